"""With equal weights the pipelines write the segmentations of the authors' own inference scripts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import variants
from harness.data.case import read_case
from harness.inference import InputRules, Session, segment, segment_volume
from harness.inference.torch_session import TorchSession
from tests.variants import published

E2E = Path(__file__).parents[2] / "goldens" / "e2e"
THREADS = min(2, os.cpu_count() or 1)
CASES = (
    "2DBox_XRay_0001",
    pytest.param("2DBox_US_0002", marks=pytest.mark.slow),
    pytest.param("3DBox_CT_0001", marks=pytest.mark.slow),
)
SCRIPTS = {
    "litemedsam": ("segs_lite", "litemedsam-2024-05-23", {}),
    "rep_medsam": ("segs_rep", "rep-2024-06-19", {}),
    "efficientvit_sam_l0": ("segs_gray", "gray", {}),
}


@dataclass(frozen=True)
class Author:
    """A published model with the rules of its authors' script, and the folder of what that wrote."""

    session: Session
    rules: InputRules
    loop: str
    folder: Path


@pytest.fixture(scope="module", params=SCRIPTS)
def author(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Author:
    name: str = request.param
    folder, loop, overrides = SCRIPTS[name]
    checkpoint = tmp_path_factory.mktemp(name) / "published.pth"
    torch.save(published.state_dict(name), checkpoint)
    session = TorchSession(variants.load_published(name, checkpoint), threads=THREADS, channels_last=False)
    rules = InputRules.of(variants.resolve(name, overrides), "published")
    return Author(session, rules, loop, E2E / folder)


@pytest.mark.parametrize("name", CASES)
def test_a_case_is_segmented_as_by_the_script_of_the_authors(author: Author, name: str) -> None:
    assert author.rules.loop == author.loop
    prediction = segment(author.session, read_case(E2E / f"{name}.npz"), author.rules)
    with np.load(author.folder / f"{name}.npz", allow_pickle=False) as expected:
        assert (prediction.segs == expected["segs"]).mean() >= 0.999
    slices = 1 if name.startswith("2D") else 6 if author.loop == "gray" else 8
    assert prediction.encodes == slices


def test_both_executions_agree_on_a_network() -> None:
    tiny = TorchSession(variants.create("litemedsam_tiny", seed=3), threads=THREADS, channels_last=False)
    volume = read_case(E2E / "3DBox_CT_0001.npz").image
    boxes = np.array([[20, 30, 1, 80, 100, 3], [5, 6, 2, 50, 60, 3]])
    sweep, reference = (segment_volume(tiny, volume, boxes, execution=way) for way in ("sweep", "reference"))
    assert (sweep.segs == reference.segs).mean() >= 0.9999
    assert (sweep.encodes, reference.encodes) == (3, 5)
