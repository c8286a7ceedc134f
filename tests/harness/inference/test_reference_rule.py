"""The fast pipelines give the masks of the authors' way of execution, on phantoms and on real cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.config import Deployment, FolderData, PhantomData, VariantRef, WorkloadData
from harness.data import Case, open_dataset
from harness.inference import InputRules, Session, open_session, segment
from harness.protocols import DEFAULT_LOOP

pytestmark = pytest.mark.slow

AGREEMENT = 0.999
TINY = VariantRef(name="litemedsam_tiny")
FOUR = 4


@pytest.fixture(scope="module")
def sessions() -> tuple[Session, Session]:
    """Eager torch as written, and with the decoder folded; the same arbitrary weights."""
    return open_session(TINY, Deployment(threads=1)), open_session(TINY, Deployment(threads=1, fold_decoder=True))


def agreement(sessions: tuple[Session, Session], case: Case, loop: str = DEFAULT_LOOP) -> float:
    """Share of the pixels that either marks on which the labels are the same."""
    rules, (plain, folded) = InputRules(loop=loop), sessions
    slow = segment(plain, case, rules, execution="reference").segs
    fast = segment(folded, case, rules).segs
    marked = (slow > 0) | (fast > 0)
    assert marked.any(), "arbitrary weights mark nothing here: the comparison would be empty"
    return float((slow == fast)[marked].mean())


def volume(size: int, seed: int, tmp_path: Path) -> Case:
    """A phantom volume with four objects of different middle slices."""
    spec = PhantomData(seed=seed, per_modality=1, volumes=1, size=64, volume_size=size, slices=9, modalities=("CT",))
    dataset = open_dataset(spec, tmp_path)
    case = dataset.load("3DBox_CT_0001")
    boxes = case.boxes[:1].repeat(FOUR, axis=0)
    for number in range(FOUR):
        boxes[number, [2, 5]] = number, 5 + number  # middle slices 2, 3, 4 and 5
        boxes[number, [0, 3]] += number * size // 32
    boxes[:, [0, 3]] = boxes[:, [0, 3]].clip(0, size - 1)
    return Case(case.name, case.modality, case.image, boxes)


@pytest.mark.parametrize("size", [96, 400], ids=["upscaled", "downscaled"])
@pytest.mark.parametrize("loop", [DEFAULT_LOOP, "gray", "rep-2024-06-19"])
def test_four_objects_of_different_middle_slices(
    size: int, loop: str, sessions: tuple[Session, Session], tmp_path: Path
):
    case = volume(size, 1, tmp_path)
    assert len({int((box[5] - box[2]) / 2 + box[2]) for box in case.boxes}) == FOUR
    assert agreement(sessions, case, loop) >= AGREEMENT


@pytest.mark.full
def test_the_small_workload_of_the_papers(sessions: tuple[Session, Session], tmp_path: Path):
    dataset = open_dataset(WorkloadData(scale="small", seed=3), tmp_path)
    found = {info.name: agreement(sessions, dataset.load(info.name)) for info in dataset.cases}
    assert min(found.values()) >= AGREEMENT, {name: share for name, share in found.items() if share < AGREEMENT}


@pytest.mark.full
def test_every_real_case(real_data: Path, sessions: tuple[Session, Session], tmp_path: Path):
    dataset = open_dataset(FolderData(path=str(real_data)), tmp_path)
    found = {info.name: agreement(sessions, dataset.load(info.name)) for info in dataset.cases}
    assert len(found) >= 80
    assert min(found.values()) >= AGREEMENT, {name: share for name, share in found.items() if share < AGREEMENT}
    assert np.mean(list(found.values())) > AGREEMENT
