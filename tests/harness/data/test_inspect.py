"""What `bench data make` and `bench data inspect` do."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from harness.config import FolderData, PhantomData
from harness.data import Case, open_dataset, write_case
from harness.data.inspect import inspect, make
from harness.data.sheet import contact_sheet
from harness.errors import BenchError

from .conftest import Write


def test_phantoms_made_for_people_are_clean_cases_with_a_manifest(tmp_path: Path) -> None:
    spec = PhantomData(size=64, volumes=1, volume_size=32, slices=6, modalities=("CT", "Dermoscopy"))
    manifest = make(spec, tmp_path / "out")
    rows = inspect(tmp_path / "out")
    assert [row.name for row in rows] == [entry.name for entry in manifest.entries]
    assert [row.digest for row in rows] == [entry.digest for entry in manifest.entries]
    assert all(row.problems == () and row.notes == () for row in rows)
    assert [(row.ndim, row.modality, row.spacing is None) for row in rows] == [
        (2, "CT", True),
        (2, "Dermoscopy", True),
        (3, "CT", False),
    ]


def test_every_problem_of_every_file_is_listed(npz: Write, tmp_path: Path) -> None:
    pixels = np.zeros((10, 12), np.uint8)
    npz("2DBox_CT_0001", imgs=pixels, boxes=[[0, 0, 99, 5]], gts=np.full((10, 12), -1), spacing=[0, 1, 1])
    npz("2DBox_CT_0002", imgs=pixels + 0.5, boxes=[1, 2])
    (tmp_path / "2DBox_CT_0003.npz").write_bytes(b"PK")
    first, second, third = inspect(tmp_path)
    for row, fields in ((first, ("boxes", "gts", "spacing")), (second, ("boxes", "imgs"))):
        assert len(row.problems) == len(fields)
        for problem, field in zip(row.problems, fields, strict=True):
            assert f"field '{field}'" in problem
    assert len(third.problems) == 1
    assert "truncated or damaged" in third.problems[0]


def test_oddities_that_are_allowed_are_noted(npz: Write, tmp_path: Path) -> None:
    gts = np.zeros((10, 12), np.uint8)
    gts[1:3, 1:3] = 1
    gts[5:8, 5:8] = 9
    npz("photo", imgs=np.zeros((10, 12), np.uint8), boxes=[[0, 0, 12, 5], [0, 0, 1, 1]], gts=gts)
    (row,) = inspect(tmp_path)
    assert row.problems == ()
    assert row.notes == (
        "the image is constant",
        "1 of 2 boxes have a maximum equal to the image's size (exclusive); moved to the last pixel",
        "labels 9 have no box",
        "boxes 2 (counted from 1) have no label in the ground truth",
        "boxes 1 (counted from 1) are not tight around their label",
        "the name states no modality",
    )


def test_missing_truth_and_copies_are_noted(case: Case, tmp_path: Path) -> None:
    for name in ("2DBox_US_0001", "2DBox_US_0002"):
        write_case(Case(name, "US", case.image, case.boxes), tmp_path / f"{name}.npz")
    first, second = inspect(tmp_path)
    assert first.notes == ("no ground truth",)
    assert second.notes == ("no ground truth", "same content as 2DBox_US_0001")


def test_truth_in_a_sibling_folder_is_inspected(npz: Write, case: Case, tmp_path: Path) -> None:
    npz(case.name, tmp_path / "imgs", imgs=case.image, boxes=case.boxes)
    npz(case.name, tmp_path / "gts", gts=case.truth)
    (row,) = inspect(tmp_path / "imgs", tmp_path / "gts")
    assert (row.problems, row.notes) == ((), ())
    (tmp_path / "gts" / f"{case.name}.npz").unlink()
    (row,) = inspect(tmp_path / "imgs", tmp_path / "gts")
    assert "the ground truth of case 2DBox_US_0001 is missing" in row.problems[0]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no such folder"):
        inspect(tmp_path / "no")


def test_the_contact_sheet_shows_images_and_volumes(case: Case, volume: Case, tmp_path: Path) -> None:
    for each in (case, volume):
        write_case(each, tmp_path / "cases" / f"{each.name}.npz")
    dataset = open_dataset(FolderData(path=str(tmp_path / "cases")), tmp_path)
    files = contact_sheet((dataset.load(info.name) for info in dataset.cases), tmp_path / "sheet.png", cell=100)
    picture = cv2.imread(str(tmp_path / "sheet.png"))
    assert files == [tmp_path / "sheet.png"]
    assert picture is not None
    assert picture.shape == (100, 400, 3)


def test_the_real_cases_have_no_problem_and_nothing_odd(real_data: Path) -> None:
    rows = inspect(real_data)
    assert len(rows) == 80
    assert [(row.name, row.problems, row.notes) for row in rows if row.problems or row.notes] == []
