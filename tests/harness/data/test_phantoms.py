"""Phantoms: repeatable, independent of each other, tight, and no ellipses."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.config import PhantomData, Subset
from harness.data import Case, dataset_digest, open_dataset
from harness.data.materialise import materialise, phantoms_digest, read_manifest
from harness.data.phantoms import KINDS, PhantomId, generate, phantom_ids
from harness.errors import BenchError
from harness.schema import MODALITIES, VOLUME_MODALITIES

KINDS_AND_DIMENSIONS = [(m, 2) for m in MODALITIES] + [(m, 3) for m in sorted(VOLUME_MODALITIES)]


def phantom(modality: str, ndim: int, index: int = 1, seed: int = 0, size: int = 96) -> PhantomId:
    high, wide = KINDS[modality].aspect
    shape = (round(size * high), round(size * wide)) if ndim == 2 else (8, size // 2, size // 2)
    return PhantomId(seed, modality, ndim, index, shape)


def ellipse_dice(case: Case) -> list[float]:
    """DSC of each object with the ellipse inscribed in its box: what a model gets that looks at the box alone."""
    assert case.truth is not None
    scores = []
    for label, box in enumerate(case.boxes, start=1):
        mask = case.truth == label
        n = case.ndim
        middle, half = (box[:n] + box[n:]) / 2, (box[n:] - box[:n] + 1) / 2
        axes = np.indices(mask.shape)[::-1]
        inside = sum(((axes[a] - middle[a]) / half[a]) ** 2 for a in range(n)) <= 1
        scores.append(2 * np.sum(inside & mask) / (np.sum(inside) + np.sum(mask)))
    return scores


@pytest.mark.parametrize(("modality", "ndim"), KINDS_AND_DIMENSIONS)
def test_a_phantom_is_a_case_of_its_kind(modality: str, ndim: int) -> None:
    identity = phantom(modality, ndim)
    case = generate(identity)
    assert (case.name, case.modality, case.ndim) == (f"{ndim}DBox_{modality}_0001", modality, ndim)
    assert case.size == identity.shape
    assert 1 <= case.objects <= KINDS[modality].max_objects
    assert case.image.min() < 60
    assert case.image.max() > 150
    assert case.image.std() > 15


@pytest.mark.parametrize(("modality", "ndim"), KINDS_AND_DIMENSIONS)
def test_the_same_identity_gives_the_same_bytes_and_another_one_other_bytes(modality: str, ndim: int) -> None:
    case, again = generate(phantom(modality, ndim)), generate(phantom(modality, ndim))
    np.testing.assert_array_equal(case.image, again.image)
    np.testing.assert_array_equal(case.truth, again.truth)
    for other in (phantom(modality, ndim, index=2), phantom(modality, ndim, seed=1)):
        assert not np.array_equal(case.image, generate(other).image)


@pytest.mark.parametrize(("modality", "ndim"), KINDS_AND_DIMENSIONS)
def test_boxes_are_tight_with_inclusive_maxima(modality: str, ndim: int) -> None:
    for index in (1, 2, 3):
        case = generate(phantom(modality, ndim, index))
        assert case.truth is not None
        assert set(np.unique(case.truth)) == set(range(case.objects + 1))
        for label, box in enumerate(case.boxes, start=1):
            places = np.argwhere(case.truth == label)[:, ::-1]
            assert box.tolist() == [*places.min(axis=0), *places.max(axis=0)]


@pytest.mark.parametrize(("modality", "ndim"), KINDS_AND_DIMENSIONS)
def test_filling_the_box_with_an_ellipse_is_not_the_answer(modality: str, ndim: int) -> None:
    scores = [s for index in range(1, 9) for s in ellipse_dice(generate(phantom(modality, ndim, index)))]
    assert 0.35 < np.mean(scores) < 0.88


@pytest.mark.parametrize("modality", sorted(VOLUME_MODALITIES))
def test_volumes_are_anisotropic_and_their_objects_span_slices(modality: str) -> None:
    middles = set()
    for index in range(1, 7):
        case = generate(phantom(modality, 3, index))
        x, y, z = case.spacing_xyz or (0, 0, 0)
        assert x == y
        assert x != z
        assert (case.boxes[:, 5] - case.boxes[:, 2] >= 2).all()
        middles |= set(((case.boxes[:, 5] + case.boxes[:, 2]) // 2).tolist())
    assert len(middles) > 1


def test_some_objects_touch_the_border_and_some_touch_each_other() -> None:
    touching = 0
    border = 0
    for index in range(1, 7):
        case = generate(phantom("Microscopy", 2, index))
        assert case.truth is not None
        height, width = case.size
        border += int(((case.boxes[:, :2] == 0) | (case.boxes[:, 2:] == (width - 1, height - 1))).any())
        left, right = case.truth[:, :-1], case.truth[:, 1:]
        touching += int(((left != right) & (left > 0) & (right > 0)).any())
    assert touching > 0
    assert border > 0


def test_a_case_does_not_depend_on_the_number_of_cases_or_on_the_other_modalities() -> None:
    few = PhantomData(size=64, modalities=("OCT",))
    many = PhantomData(size=64, per_modality=3, modalities=("US", "OCT"))
    (one,) = phantom_ids(few)
    assert one in phantom_ids(many)


def test_the_names_of_a_specification_are_sorted_and_volumes_only_where_the_modality_has_them() -> None:
    names = [identity.name for identity in phantom_ids(PhantomData(volumes=1))]
    assert len(names) == 14
    assert names == sorted(names)
    assert [name for name in names if name.startswith("3D")] == ["3DBox_CT_0001", "3DBox_MR_0001", "3DBox_PET_0001"]


SMALL = PhantomData(size=64, volume_size=32, slices=5, per_modality=2, modalities=("OCT", "US"))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.startswith(".")}


def test_opening_writes_the_phantoms_once(tmp_path: Path) -> None:
    said: list[str] = []
    dataset = open_dataset(SMALL, tmp_path, lambda fraction, message: said.append(message))
    assert [info.name for info in dataset.cases] == [
        "2DBox_OCT_0001", "2DBox_OCT_0002", "2DBox_US_0001", "2DBox_US_0002",
    ]  # fmt: skip
    assert dataset.path == tmp_path / f"phantoms-{dataset.digest[:16]}"
    assert len(said) == 5
    said.clear()
    again = open_dataset(SMALL, tmp_path, lambda fraction, message: said.append(message))
    assert (again.cases, said) == (dataset.cases, [])
    assert {info.modality for info in dataset.select(Subset(spread=2))} == {"OCT", "US"}


def test_the_written_case_is_the_generated_one(tmp_path: Path) -> None:
    case = open_dataset(SMALL, tmp_path).load("2DBox_US_0002")
    (identity,) = (i for i in phantom_ids(SMALL) if i.name == "2DBox_US_0002")
    np.testing.assert_array_equal(case.image, generate(identity).image)


def test_the_digest_is_known_without_generating(tmp_path: Path) -> None:
    digest = dataset_digest(SMALL, tmp_path)
    assert not list(tmp_path.iterdir())
    assert open_dataset(SMALL, tmp_path).digest == digest
    assert dataset_digest(SMALL.model_copy(update={"seed": 1}), tmp_path) != digest
    assert phantoms_digest(SMALL.model_copy(update={"modalities": ("US", "OCT")})) == digest


def test_a_damaged_or_missing_file_is_made_again_with_the_same_bytes(tmp_path: Path) -> None:
    dataset = open_dataset(SMALL, tmp_path)
    before = contents(dataset.path)
    (dataset.path / "2DBox_US_0001.npz").write_bytes(b"short")
    (dataset.path / "2DBox_US_0002.npz").unlink()
    assert open_dataset(SMALL, tmp_path).cases == dataset.cases
    assert contents(dataset.path) == before


def test_a_folder_of_other_phantoms_is_not_overwritten(tmp_path: Path) -> None:
    materialise(SMALL, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(BenchError, match="holds other phantoms"):
        materialise(SMALL.model_copy(update={"seed": 5}), tmp_path)
    assert contents(tmp_path) == before


def test_no_modality_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="field 'modalities' is empty"):
        open_dataset(PhantomData(modalities=()), tmp_path)


SCRIPT = """
import os, signal, stat, sys
from pathlib import Path
from harness.config import PhantomData
from harness.data.materialise import materialise

written = 0

def die(descriptor):
    # The process dies in the middle of a file: written, not yet in its place.
    global written
    written += stat.S_ISREG(os.fstat(descriptor).st_mode)
    if written == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

os.fsync = die
materialise(PhantomData.model_validate_json(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_generation_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    materialise(SMALL, tmp_path / "undisturbed")
    folder = tmp_path / "killed"
    for write in (1, 3, 3):
        # Four cases and the manifest: the second and third attempt get further, the last one up to the manifest.
        command = [sys.executable, "-c", SCRIPT, SMALL.model_dump_json(), str(folder), str(write)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert len(list(folder.glob("*.npz"))) == 4
    assert read_manifest(folder) is None
    assert list(folder.glob(".*.tmp"))
    (folder / "2DBox_US_0002.npz").write_bytes(b"half a file")
    materialise(SMALL, folder)
    assert contents(folder) == contents(tmp_path / "undisturbed")
    assert not list(folder.glob(".*.tmp"))


def _open(folder: str) -> str:
    os.environ["OMP_NUM_THREADS"] = "1"
    return open_dataset(SMALL, Path(folder)).digest


def test_two_processes_at_once_give_one_data_set(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(_open, [str(tmp_path)] * 2)
    assert first == second
    (folder,) = tmp_path.iterdir()
    manifest = read_manifest(folder)
    assert manifest is not None
    assert {entry.name for entry in manifest.entries} == {file.stem for file in folder.glob("*.npz")}
