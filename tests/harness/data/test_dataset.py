"""Opening, hashing and selecting: folders of npz files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from harness.config import FolderData, Subset
from harness.data import dataset_digest, open_dataset
from harness.data import folder as folder_module
from harness.errors import BenchError
from harness.schema import MODALITIES

from .conftest import Write


@pytest.fixture
def cases(npz: Write, tmp_path: Path) -> Path:
    """Five small cases of three modalities, one of them in both dimensions."""
    folder = tmp_path / "cases"
    rng = np.random.default_rng(3)
    for name, shape in (
        ("2DBox_US_0002", (8, 8)),
        ("2DBox_US_0001", (9, 9)),
        ("2DBox_CT_0001", (30, 30)),
        ("3DBox_CT_0001", (4, 5, 6)),
        ("2DBox_MR_0001", (7, 7, 3)),
    ):
        box = [[0, 0, 0, 1, 1, 1]] if name.startswith("3D") else [[0, 0, 1, 1]]
        npz(name, folder, imgs=rng.integers(0, 256, shape, dtype=np.uint8), boxes=box)
    return folder


def settle(folder: Path) -> None:
    """Make the files older than the index's margin for files that are just being written."""
    past = time.time_ns() - 10**9
    for file in folder.glob("*.npz"):
        os.utime(file, ns=(past, past))
    time.sleep(0.06)


def test_cases_come_sorted_by_name_and_load_by_name(cases: Path, tmp_path: Path) -> None:
    dataset = open_dataset(FolderData(path=str(cases)), tmp_path / "cache")
    assert [info.name for info in dataset.cases] == [
        "2DBox_CT_0001", "2DBox_MR_0001", "2DBox_US_0001", "2DBox_US_0002", "3DBox_CT_0001",
    ]  # fmt: skip
    assert dataset.name == "cases"
    assert dataset.load("3DBox_CT_0001").image.shape == (4, 5, 6)
    first = dataset.cases[0]
    assert (first.modality, first.ndim, first.shape, first.objects) == ("CT", 2, (30, 30), 1)


def test_the_digest_follows_the_content_and_not_the_place(cases: Path, tmp_path: Path, npz: Write) -> None:
    cache = tmp_path / "cache"
    before = dataset_digest(FolderData(path=str(cases)), cache)
    moved = cases.rename(tmp_path / "elsewhere")
    assert dataset_digest(FolderData(path=str(moved)), cache) == before
    npz("2DBox_MR_0001", moved, imgs=np.ones((7, 7), np.uint8), boxes=[[0, 0, 1, 1]])
    assert dataset_digest(FolderData(path=str(moved)), cache) != before


def test_the_digest_covers_the_truth_folder(cases: Path, tmp_path: Path, npz: Write) -> None:
    truth = tmp_path / "truth"
    for file in cases.glob("*.npz"):
        npz(file.stem, truth, gts=np.zeros(np.load(file)["imgs"].shape[: 3 if file.stem[0] == "3" else 2], np.uint8))
    spec = FolderData(path=str(cases), truth=str(truth))
    before = dataset_digest(spec, tmp_path / "cache")
    assert before != dataset_digest(FolderData(path=str(cases)), tmp_path / "cache")
    npz("2DBox_US_0002", truth, gts=np.ones((8, 8), np.uint8))
    assert dataset_digest(spec, tmp_path / "cache") != before


def test_unchanged_files_are_not_read_again(cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = FolderData(path=str(cases))
    settle(cases)
    before = dataset_digest(spec, tmp_path / "cache")
    read: list[str] = []
    monkeypatch.setattr(folder_module, "file_digest", lambda path: read.append(path.name) or "changed")
    assert dataset_digest(spec, tmp_path / "cache") == before
    assert read == []
    (cases / "2DBox_CT_0001.npz").touch()
    dataset_digest(spec, tmp_path / "cache")
    assert read == ["2DBox_CT_0001.npz"]


def test_an_unreadable_index_is_made_again(cases: Path, tmp_path: Path) -> None:
    spec, cache = FolderData(path=str(cases)), tmp_path / "cache"
    settle(cases)
    before = dataset_digest(spec, cache)
    (index,) = cache.glob("folder-*.json")
    for text in ("{", "[]", '{"version": 1, "entries": [1]}', '{"version": 0, "entries": []}'):
        index.write_text(text)
        assert dataset_digest(spec, cache) == before


def test_all_unusable_files_are_named_in_one_message(cases: Path, tmp_path: Path) -> None:
    for number in range(7):
        (cases / f"2DBox_PET_{number:04d}.npz").write_bytes(b"nothing")
    with pytest.raises(BenchError) as caught:
        open_dataset(FolderData(path=str(cases)), tmp_path / "cache")
    message = str(caught.value)
    assert "7 of 12 files are no usable cases" in message
    assert "2DBox_PET_0004.npz" in message
    assert "2DBox_PET_0005.npz" not in message
    assert "and 2 more" in message


def test_a_missing_an_empty_and_a_wrong_folder_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name, sentence in (("no", "no such folder"), ("empty", "holds no npz file"), ("file", "is not a folder")):
        with pytest.raises(BenchError, match=sentence):
            open_dataset(FolderData(path=str(tmp_path / name)), tmp_path / "cache")


def test_a_missing_truth_folder_and_missing_truth_files_are_said(cases: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="folder of the ground truth does not exist"):
        open_dataset(FolderData(path=str(cases), truth=str(tmp_path / "no")), tmp_path / "cache")
    (tmp_path / "truth").mkdir()
    with pytest.raises(BenchError, match="5 of 5 files"):
        open_dataset(FolderData(path=str(cases), truth=str(tmp_path / "truth")), tmp_path / "cache")


def test_cases_of_equal_content_are_noted(cases: Path, tmp_path: Path) -> None:
    (cases / "2DBox_US_0009.npz").write_bytes((cases / "2DBox_US_0001.npz").read_bytes())
    dataset = open_dataset(FolderData(path=str(cases)), tmp_path / "cache")
    assert dataset.notes == ("2DBox_US_0001, 2DBox_US_0009 have the same content",)


def test_hidden_files_are_no_cases(cases: Path, tmp_path: Path) -> None:
    (cases / "._2DBox_US_0001.npz").write_bytes(b"resource fork")
    assert len(open_dataset(FolderData(path=str(cases)), tmp_path / "cache").cases) == 5


def test_names_and_patterns_select_in_the_order_of_the_data_set(cases: Path, tmp_path: Path) -> None:
    dataset = open_dataset(FolderData(path=str(cases)), tmp_path / "cache")
    chosen = dataset.select(Subset(names=("3DBox_*", "2DBox_US_0001.npz", "2DBox_CT_0001")))
    assert [info.name for info in chosen] == ["2DBox_CT_0001", "2DBox_US_0001", "3DBox_CT_0001"]
    assert dataset.select(None) == dataset.cases


def test_a_pattern_that_matches_nothing_is_an_error_with_a_suggestion(cases: Path, tmp_path: Path) -> None:
    dataset = open_dataset(FolderData(path=str(cases)), tmp_path / "cache")
    with pytest.raises(BenchError, match=r"'2DBox_UX_0001' matches none .* did you mean '2DBox_US_0001'\?"):
        dataset.select(Subset(names=("2DBox_UX_0001",)))
    with pytest.raises(BenchError, match="its cases are called like '2DBox_CT_0001'"):
        dataset.select(Subset(names=("qqq",)))
    with pytest.raises(BenchError, match="no case is called '2DBox_US_001'"):
        dataset.load("2DBox_US_001")


def test_spread_takes_every_modality_once_before_any_twice_smallest_first(cases: Path, tmp_path: Path) -> None:
    dataset = open_dataset(FolderData(path=str(cases)), tmp_path / "cache")
    names = [info.name for info in dataset.select(Subset(spread=9))]
    assert names == ["2DBox_CT_0001", "2DBox_MR_0001", "2DBox_US_0002", "3DBox_CT_0001", "2DBox_US_0001"]
    assert [info.name for info in dataset.select(Subset(spread=3))] == names[:3]


def test_the_real_cases_open_with_every_modality(real_data: Path, tmp_path: Path) -> None:
    spec = FolderData(path=str(real_data))
    dataset = open_dataset(spec, tmp_path / "cache")
    assert len(dataset.cases) == 80
    assert {info.modality for info in dataset.cases} == set(MODALITIES)
    assert {info.modality for info in dataset.select(Subset(spread=12))} == set(MODALITIES)
    started = time.perf_counter()
    assert dataset_digest(spec, tmp_path / "cache") == dataset.digest
    assert time.perf_counter() - started < 0.1


def test_the_real_cases_all_load_with_a_label_for_every_box(real_data: Path, tmp_path: Path) -> None:
    dataset = open_dataset(FolderData(path=str(real_data)), tmp_path / "cache")
    for info in dataset.cases:
        case = dataset.load(info.name)
        assert case.notes == ()
        assert case.truth is not None
        assert set(np.unique(case.truth)) == set(range(info.objects + 1))
        assert (case.spacing_xyz is not None) == (case.ndim == 3)
