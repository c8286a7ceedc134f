"""Conversion between formats: nothing is lost, nothing is done twice, nothing of others is overwritten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.config import FolderData, ImagesData, NiftiData, PhantomData, StoredData
from harness.data import Case, dataset_digest, open_dataset, read_case, write_case
from harness.data import convert as convert_module
from harness.data.convert import Form, convert
from harness.data.inspect import inspect, inspect_sources, make
from harness.errors import BenchError
from harness.jobs import JobSpec

LOSSLESS: tuple[Form, ...] = ("nifti", "png", "tiff")


def written_as(form: Form, folder: Path) -> StoredData:
    """The data set that `convert` leaves in a folder."""
    kind = NiftiData if form == "nifti" else ImagesData
    return kind(path=str(folder / "images"), truth=str(folder / "labels"), boxes=str(folder / "boxes"))


def round_trip(cases: Path, form: Form, folder: Path) -> Iterator[tuple[Case, Case]]:
    """Every case of a folder, and what is left of it after writing it in another format and back."""
    convert(FolderData(path=str(cases)), folder / form, form)
    convert(written_as(form, folder / form), folder / "back", "npz")
    names = sorted(path.name for path in cases.glob("*.npz"))
    assert sorted(path.name for path in (folder / "back").glob("*.npz")) == names
    for name in names:
        yield read_case(cases / name), read_case(folder / "back" / name)


def assert_equal(before: Case, after: Case) -> None:
    assert np.array_equal(before.image, after.image)
    assert np.array_equal(before.boxes, after.boxes)
    assert before.truth is not None
    assert after.truth is not None
    assert np.array_equal(before.truth, after.truth)
    assert before.spacing_xyz == after.spacing_xyz
    assert (before.name, before.modality) == (after.name, after.modality)


@pytest.fixture
def odd_cases(case: Case, volume: Case, tmp_path: Path) -> Path:
    """Colour and grey, loose boxes, a label without a pixel, 16-bit labels, a spacing that only doubles hold, none."""
    folder = tmp_path / "cases"
    loose = case.boxes + np.array([-1, -1, 1, 1])
    grey = np.repeat(case.image[..., :1], 3, axis=2)
    assert case.truth is not None
    assert volume.truth is not None
    many = np.arange(600, dtype=np.uint16).reshape(20, 30) % 300
    third, flat = np.array([[0, 0, 1, 1]], np.int64), np.array([[0, 0, 0, 1, 1, 0]], np.int64)
    for each in (
        Case("2DBox_US_0001", "US", case.image, loose, truth=case.truth),
        Case("2DBox_OCT_0001", "OCT", grey, np.concatenate([case.boxes, third]), truth=case.truth),
        Case("2DBox_Microscopy_0001", "Microscopy", grey, np.repeat(third, 299, axis=0), truth=many),
        Case("3DBox_MR_0001", "MR", volume.image, volume.boxes, (0.1, 1 / 3, 5.000000001), volume.truth),
        Case("3DBox_CT_0001", "CT", volume.image, volume.boxes, (0.5, 0.75, 2.0), volume.truth * 2),
        Case("3DBox_PET_0001", "PET", volume.image, volume.boxes, None, volume.truth),
        Case("3DBox_PET_0002", "PET", volume.image[:1, :, :3], flat, (1, 1, 1), volume.truth[:1, :, :3]),
    ):  # fmt: skip
        write_case(each, folder / f"{each.name}.npz")
    return folder


@pytest.mark.parametrize("form", LOSSLESS)
def test_cases_come_back_bit_for_bit(odd_cases: Path, form: Form, tmp_path: Path) -> None:
    pairs = list(round_trip(odd_cases, form, tmp_path / "out"))
    assert len(pairs) == 7
    for before, after in pairs:
        assert_equal(before, after)


@pytest.mark.slow
@pytest.mark.parametrize("form", LOSSLESS)
def test_the_real_cases_come_back_bit_for_bit(real_data: Path, form: Form, tmp_path: Path) -> None:
    count = 0
    for before, after in round_trip(real_data, form, tmp_path):
        assert_equal(before, after)
        count += 1
    assert count == 80


def test_the_same_conversion_gives_the_same_bytes(odd_cases: Path, tmp_path: Path) -> None:
    for form in LOSSLESS:
        for target in ("one", "two"):
            convert(FolderData(path=str(odd_cases)), tmp_path / target / form, form)
    first = {p.relative_to(tmp_path / "one"): p.read_bytes() for p in (tmp_path / "one").rglob("*.*") if p.is_file()}
    second = {p.relative_to(tmp_path / "two"): p.read_bytes() for p in (tmp_path / "two").rglob("*.*") if p.is_file()}
    assert len(first) > 21
    assert first == second


def test_what_is_there_and_equal_is_not_made_again(
    odd_cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, target = FolderData(path=str(odd_cases)), tmp_path / "out"
    assert len(convert(spec, target, "png").written) == 7
    encoded: list[str] = []
    real = convert_module.encoded
    monkeypatch.setattr(convert_module, "encoded", lambda c, f: encoded.append(c.name) or real(c, f))
    again = convert(spec, target, "png")
    assert (again.written, len(again.kept), encoded) == ([], 7, [])
    (target / "images" / "2DBox_US_0001.png").unlink()
    assert convert(spec, target, "png").written == encoded == ["2DBox_US_0001"]
    (target / "conversion.json").unlink()  # a conversion that was stopped before it said what it had done
    again = convert(spec, target, "png")
    assert (again.written, len(again.kept)) == ([], 7)


def test_a_changed_source_replaces_its_own_files_and_nobody_else_s(odd_cases: Path, case: Case, tmp_path: Path) -> None:
    spec, target = FolderData(path=str(odd_cases)), tmp_path / "out"
    convert(spec, target, "png")
    write_case(
        Case("2DBox_US_0001", "US", 255 - case.image, case.boxes, truth=case.truth), odd_cases / "2DBox_US_0001.npz"
    )
    assert convert(spec, target, "png").written == ["2DBox_US_0001"]
    (target / "images" / "2DBox_US_0001.png").write_bytes(b"somebody's own")
    with pytest.raises(BenchError, match="holds something else"):
        convert(spec, target, "png")
    assert convert(spec, target, "png", replace=True).written == ["2DBox_US_0001"]


def test_cases_that_cannot_be_read_are_named_when_the_others_are_done(odd_cases: Path, tmp_path: Path) -> None:
    (odd_cases / "2DBox_CT_0009.npz").write_bytes(b"PK")
    (odd_cases / "2DBox_CT_0008.npz").write_bytes(b"no")
    with pytest.raises(BenchError, match="2 of 9 cases could not be written") as caught:
        convert(FolderData(path=str(odd_cases)), tmp_path / "out", "nifti")
    assert "2DBox_CT_0009.npz" in str(caught.value)
    assert len(list((tmp_path / "out" / "images").iterdir())) == 7


def test_a_suite_s_nifti_data_set_is_converted_once_and_follows_its_files(
    odd_cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(FolderData(path=str(odd_cases)), tmp_path / "nifti", "nifti")
    spec, cache = written_as("nifti", tmp_path / "nifti"), tmp_path / "cache"
    dataset = open_dataset(spec, cache)
    assert [info.name for info in dataset.cases] == sorted(path.stem for path in odd_cases.glob("*.npz"))
    assert (dataset.name, dataset.digest) == ("images", dataset_digest(spec, cache))
    assert_equal(read_case(odd_cases / "3DBox_MR_0001.npz"), dataset.load("3DBox_MR_0001"))
    with monkeypatch.context() as patch:
        patch.setattr(convert_module, "convert", lambda *_: pytest.fail("converted again"))
        assert dataset_digest(spec, cache) == dataset.digest
    box_file = tmp_path / "nifti" / "boxes" / "2DBox_US_0001.json"
    box_file.write_text(json.dumps({"boxes": [[0, 0, 5, 5]], "spacing": None}))
    assert dataset_digest(spec, cache) != dataset.digest


def test_the_same_cases_are_the_same_job_whatever_format_they_came_in(odd_cases: Path, tmp_path: Path) -> None:
    for form in LOSSLESS:
        convert(FolderData(path=str(odd_cases)), tmp_path / form, form)
    convert(FolderData(path=str(odd_cases)), tmp_path / "npz", "npz")
    specs = [FolderData(path=str(tmp_path / "npz")), *(written_as(form, tmp_path / form) for form in LOSSLESS)]
    assert len({dataset_digest(spec, tmp_path / "cache") for spec in specs}) == 1
    jobs = [JobSpec(kind="accuracy", variant={"name": "dummy"}, dataset=spec) for spec in specs]
    assert len({job.digest for job in jobs}) == 1


def test_inspection_of_other_formats_lists_cases_and_every_problem(tmp_path: Path) -> None:
    make(PhantomData(size=64, volumes=1, volume_size=32, slices=6, modalities=("CT", "US")), tmp_path / "cases")
    convert(FolderData(path=str(tmp_path / "cases")), tmp_path / "png", "png")
    spec = written_as("png", tmp_path / "png")
    before, after = inspect(tmp_path / "cases"), inspect_sources(spec)
    assert [(r.name, r.modality, r.shape, r.objects, r.spacing) for r in after] == [
        (r.name, r.modality, r.shape, r.objects, r.spacing) for r in before
    ]
    assert all(row.problems == () and row.notes == () for row in after)
    (tmp_path / "png" / "images" / "2DBox_CT_0001.png").write_bytes(b"")
    (tmp_path / "png" / "labels" / "2DBox_US_0001.png").unlink()
    first, second, third = inspect_sources(spec)
    assert "is damaged" in first.problems[0]
    assert "its label map is missing" in second.problems[0]
    assert third.problems == ()
