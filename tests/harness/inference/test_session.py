"""A session is a variant under a deployment: arrays in, arrays out."""

from __future__ import annotations

import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from harness.config import Deployment, VariantRef, Weights
from harness.errors import BenchError
from harness.inference import open_session
from harness.inference.delayed import DelayedSession
from harness.inference.weights import locate
from harness.jobs import JobSpec
from tests.harness.inference.support import BrightInBox, Picture
from tests.harness.measure.support import PlainContext

IMAGE = np.random.default_rng(0).random((1, 3, 256, 256)).astype(np.float32)
BOXES = np.array([[40, 60, 180, 200], [10, 20, 90, 250]], np.float32)


@pytest.mark.parametrize("name", ["dummy", "litemedsam_tiny"])
def test_a_session_takes_and_returns_float32_arrays(name: str) -> None:
    session = open_session(VariantRef(name=name), Deployment())
    embedding = session.encode(IMAGE)
    logits, iou = session.decode(embedding, BOXES)
    assert session.input_size == 256
    assert embedding.nbytes > 0
    assert (logits.shape, logits.dtype) == ((2, 1, 256, 256), np.float32)
    assert (iou.shape, iou.dtype) == ((2, 1), np.float32)


def test_the_threads_of_the_deployment_are_set() -> None:
    import torch

    before = torch.get_num_threads()
    try:
        open_session(VariantRef(name="litemedsam_tiny"), Deployment(threads=1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_channels_last_changes_the_memory_format_and_hardly_a_value() -> None:
    plain, last = (
        open_session(VariantRef(name="litemedsam_tiny"), Deployment(channels_last=flag)) for flag in (False, True)
    )
    a, b = (s.decode(s.encode(IMAGE), BOXES)[0] for s in (plain, last))
    assert np.abs(a - b).max() < 1e-3


def test_weights_as_initialised_follow_the_seed() -> None:
    def logits(seed: int) -> np.ndarray:
        session = open_session(VariantRef(name="litemedsam_tiny"), Deployment(), seed=seed)
        return session.decode(session.encode(IMAGE), BOXES)[0]

    assert np.array_equal(logits(1), logits(1))
    assert not np.array_equal(logits(1), logits(2))


def test_an_unknown_variant_is_one_sentence_with_a_suggestion() -> None:
    with pytest.raises(BenchError, match="litemedsam"):
        open_session(VariantRef(name="litemedsan"), Deployment())


def test_dummy_runs_on_numpy_and_opencv_alone() -> None:
    code = (
        "import sys, numpy as np\n"
        "from types import SimpleNamespace as Plain\n"
        "from harness.inference import open_session, segment_image\n"
        "s = open_session(Plain(name='dummy', set={}), Plain(backend='torch', precision='fp32', threads=1))\n"
        "segment_image(s, np.zeros((9, 9, 3), np.uint8), np.array([[1, 1, 5, 5]]))\n"
        "assert not {'torch', 'timm', 'scipy', 'pandas', 'matplotlib', 'pydantic'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def job(**weights: str) -> JobSpec:
    return JobSpec(kind="accuracy", variant=VariantRef(name="dummy"), weights=Weights(**weights))


def test_weights_come_from_the_training_job_or_the_file_or_nowhere(tmp_path: Path) -> None:
    context = PlainContext(tmp_path)
    trained = tmp_path / "artifacts" / "abc" / "model.safetensors"
    trained.parent.mkdir(parents=True)
    trained.write_bytes(b"weights")
    assert locate(job(train_job="abc"), context) == trained
    assert locate(job(file=str(trained)), context) == trained
    assert locate(job(), context) is None


def test_missing_and_changed_weights_are_named(tmp_path: Path) -> None:
    context = PlainContext(tmp_path)
    path = tmp_path / "model.pth"
    with pytest.raises(BenchError, match=r"model\.safetensors are not in the store"):
        locate(job(train_job="abc"), context)
    with pytest.raises(BenchError, match=r"model\.pth: the checkpoint is missing"):
        locate(job(file=str(path)), context)
    path.write_bytes(b"one")
    assert locate(job(file=str(path), sha256=sha256(b"one").hexdigest()), context) == path
    with pytest.raises(BenchError, match="has changed"):
        locate(job(file=str(path), sha256=sha256(b"two").hexdigest()), context)


def test_a_delayed_session_takes_its_share_longer_and_gives_the_same() -> None:
    class Slow(BrightInBox):
        def encode(self, images: np.ndarray) -> Picture:
            time.sleep(0.02)
            return super().encode(images)

    images, boxes = IMAGE, np.array([[5.0, 5, 90, 90]], np.float32)
    plain, delayed = Slow(), DelayedSession(Slow(), 0.5)
    begin = time.perf_counter()
    embedding = delayed.encode(images)
    assert time.perf_counter() - begin >= 0.03
    expected = plain.decode(plain.encode(images), boxes)
    for got, reference in zip(delayed.decode(embedding, boxes), expected, strict=True):
        assert np.array_equal(got, reference)
