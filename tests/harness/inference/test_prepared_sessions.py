"""Sessions of prepared files import their backend and nothing else, and refuse what they were not prepared for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import BenchError
from harness.inference.prepared import PreparedSession
from harness.inference.session import FloatArray
from variants.embedding import Embedding

ROOT = Path(__file__).parents[3]


class Echo(PreparedSession):
    """Gives back what it is fed: the image as embedding, its half as a skip."""

    calls: list[dict[str, FloatArray]]

    def run(self, role: str, inputs: dict[str, FloatArray]) -> list[FloatArray]:
        self.calls = [*getattr(self, "calls", []), inputs]
        if role == "encoder":
            return [inputs["image"], inputs["image"] / 2]
        count = len(inputs["boxes"])
        return [np.zeros((count, 1, 8, 8), np.float32), np.ones((count, 1), np.float32)]


def echo(folder: Path, prompts: tuple[str, ...] = ("box",), batch: str = "any") -> Echo:
    for name in ("encoder.bin", "decoder.bin"):
        (folder / name).touch()
    files = {"encoder": "encoder.bin", "decoder": "decoder.bin"}
    description: dict[str, Any] = {"files": files, "input_size": 8, "prompts": list(prompts), "facts": {"batch": batch}}
    return Echo(folder, description)


def images(count: int) -> FloatArray:
    return np.arange(count * 3 * 64, dtype=np.float32).reshape(count, 3, 8, 8)


@pytest.mark.parametrize(("batch", "calls"), [("any", 1), ("1", 3)])
def test_images_go_together_or_one_by_one_as_the_encoder_takes_them(batch: str, calls: int, tmp_path: Path) -> None:
    session = echo(tmp_path, batch=batch)
    embedding = session.encode(images(3))
    assert len(session.calls) == calls
    np.testing.assert_array_equal(embedding.image, images(3))
    np.testing.assert_array_equal(embedding.skips[0], images(3) / 2)
    assert embedding.nbytes == 2 * images(3).nbytes


def test_prompts_belong_to_the_first_image_and_are_float32(tmp_path: Path) -> None:
    session = echo(tmp_path, ("box", "points"))
    embedding = Embedding(images(2), (images(2),))
    session.decode(embedding, np.ones((5, 4)), points=np.ones((5, 4, 2)))  # type: ignore[arg-type]
    fed = session.calls[-1]
    assert list(fed) == ["image_embedding", "boxes", "skip0", "points"]
    assert fed["image_embedding"].shape == fed["skip0"].shape == (1, 3, 8, 8)
    assert {value.dtype for value in fed.values()} == {np.dtype(np.float32)}


def test_a_prompt_the_decoder_was_not_prepared_for_is_refused(tmp_path: Path) -> None:
    boxes, points = np.ones((1, 4), np.float32), np.ones((1, 4, 2), np.float32)
    with pytest.raises(BenchError, match=r"decoder\.bin was prepared for box, but points was given"):
        echo(tmp_path).decode(Embedding(images(1)), boxes, points=points)
    with pytest.raises(BenchError, match=r"prepared for box \+ points, but points was not given"):
        echo(tmp_path, ("box", "points")).decode(Embedding(images(1)), boxes)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"encoder\.bin: a file of the prepared deployment is missing"):
        Echo(tmp_path, {"files": {"encoder": "encoder.bin"}, "input_size": 8, "prompts": ["box"]})


@pytest.mark.parametrize("module", ["ort_session", "openvino_session"])
def test_a_session_imports_its_backend_and_no_torch(module: str) -> None:
    code = (
        f"import sys, harness.inference.{module}\n"
        "heavy = {'torch', 'timm', 'torchvision', 'scipy', 'pandas', 'matplotlib', 'pydantic', 'onnx'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
