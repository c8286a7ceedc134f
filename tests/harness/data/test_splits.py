"""Splits: whole patients, the seed decides, no image in two parts, and a stored split fits its cases."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from harness.config import FolderData, SplitPart
from harness.data import Case, dataset_digest, open_dataset, write_case
from harness.data.splits import (
    PARTS,
    Print,
    make_split,
    patients_by_name,
    patients_by_table,
    print_of,
    read_split,
    refuse_common_images,
    write_split,
)
from harness.errors import BenchError

SHARES = (0.6, 0.2, 0.2)
BY = r"_p(\d+)_"


def prints_of(names: list[str]) -> dict[str, Print]:
    return {name: Print(name, (name,)) for name in names}


@pytest.fixture
def names() -> list[str]:
    """Twenty patients with one to three images each."""
    return [f"2DBox_US_p{patient:02d}_{image}" for patient in range(20) for image in range(1 + patient % 3)]


def test_a_patient_is_in_one_part_and_the_parts_have_their_shares(names: list[str]) -> None:
    patients = patients_by_name(names, BY)
    split = make_split(patients, prints_of(names), SHARES, 0, BY)
    assert sorted(name for part in PARTS for name in split.names(part)) == sorted(names)
    owners = {part: {patients[name] for name in split.names(part)} for part in PARTS}
    assert not owners["train"] & owners["validation"]
    assert not (owners["train"] | owners["validation"]) & owners["test"]
    for part, share in zip(PARTS, SHARES, strict=True):
        assert abs(len(split.names(part)) - share * len(names)) <= 3


def test_the_seed_alone_decides_not_the_order_of_the_cases(names: list[str]) -> None:
    def split(seed: int, listed: list[str]) -> list[str]:
        return make_split(patients_by_name(listed, BY), prints_of(listed), SHARES, seed, BY).names("test")

    assert split(0, names) == split(0, names[::-1])
    assert len({tuple(split(seed, names)) for seed in range(5)}) == 5


def test_every_part_that_is_wanted_gets_a_patient() -> None:
    for seed in range(20):
        patients = {name: name for name in "abcd"}
        split = make_split(patients, prints_of(list("abcd")), (0.9, 0.05, 0.05), seed, "")
        assert [len(split.names(part)) for part in PARTS] == [2, 1, 1]
    with pytest.raises(BenchError, match="2 patients cannot fill 3 parts"):
        make_split({"a": "x", "b": "y"}, prints_of(["a", "b"]), SHARES, 0, "")
    assert make_split({"a": "x", "b": "y"}, prints_of(["a", "b"]), (0.5, 0, 0.5), 0, "").names("validation") == []


def test_an_image_under_two_names_in_two_parts_is_refused_with_both_names() -> None:
    prints = prints_of(list("abcdef"))
    prints["f"] = prints["a"]
    found = []
    for seed in range(20):
        try:
            split = make_split({name: name for name in "abcdef"}, prints, (0.5, 0, 0.5), seed, "")
            assert split.members["a"].part == split.members["f"].part
        except BenchError as error:
            found.append(str(error))
    assert found
    assert all(re.match(r"[af] \((train|test)\) and [af] \((train|test)\) hold the same image", m) for m in found)


def test_a_slice_of_a_volume_counts_like_the_image_it_equals(volume: Case) -> None:
    grey = np.repeat(volume.image[2][..., None], 3, axis=2)
    image = Case("2DBox_MR_0001", "MR", grey, np.array([[0, 0, 1, 1]]))
    prints = {"volume": print_of(volume), "image": print_of(image)}
    with pytest.raises(BenchError, match=r"(image|volume) \(\w+\) and (image|volume) \(\w+\) hold the same slice"):
        make_split({"volume": "1", "image": "2"}, prints, (0.5, 0, 0.5), 0, "")
    make_split({"volume": "1", "image": "1", "x": "2"}, prints | prints_of(["x"]), (0.5, 0, 0.5), 0, "")


def test_constant_slices_and_equal_objects_on_other_pixels_are_no_leak(volume: Case) -> None:
    def padded(name: str, seed: int) -> Case:
        image = np.random.default_rng(seed).integers(0, 256, volume.image.shape, dtype=np.uint8)
        image[0] = 0
        return Case(name, "MR", image, volume.boxes, truth=volume.truth)

    prints = {name: print_of(padded(f"3DBox_{name}", seed)) for seed, name in enumerate("ab")}
    make_split({"a": "1", "b": "2"}, prints, (0.5, 0, 0.5), 0, "")


def test_colours_are_told_apart_from_grey() -> None:
    boxes = np.array([[0, 0, 1, 1]])
    grey = np.full((4, 5, 3), 7, np.uint8)
    grey[0] = 9
    red = grey.copy()
    red[..., 0] = 8
    assert print_of(Case("2D_a", "US", grey, boxes)) != print_of(Case("2D_b", "US", red, boxes))


def test_patients_come_from_the_name_or_from_a_table(tmp_path: Path) -> None:
    assert patients_by_name(["2DBox_US_p07_1"], r"p\d+") == {"2DBox_US_p07_1": "p07"}
    with pytest.raises(BenchError, match="does not match the case 2DBox_US_0001"):
        patients_by_name(["2DBox_US_0001"], BY)
    with pytest.raises(BenchError, match="is no regular expression"):
        patients_by_name([], "(")
    table = tmp_path / "cases.csv"
    table.write_text("file,modality,source\na.npz,US,clinic 1\nb,US,clinic 2\n")
    assert patients_by_table(["a", "b"], table) == {"a": "clinic 1", "b": "clinic 2"}
    with pytest.raises(BenchError, match="column `source` says nothing about the case c"):
        patients_by_table(["c"], table)
    table.write_text("file,modality\n1,2\n")
    with pytest.raises(BenchError, match="has the columns file, modality; needs `name` and `patient`"):
        patients_by_table(["1"], table)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six patients with two cases each."""
    rng = np.random.default_rng(5)
    for patient in range(6):
        for image in range(2):
            name = f"2DBox_US_p{patient}_{image}"
            pixels = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
            write_case(Case(name, "US", pixels, np.array([[0, 0, 1, 1]])), tmp_path / "cases" / f"{name}.npz")
    return tmp_path / "cases"


def stored(folder: Path, path: Path) -> Path:
    dataset = open_dataset(FolderData(path=str(folder)), folder.parent / "cache")
    prints = {info.name: print_of(dataset.load(info.name)) for info in dataset.cases}
    write_split(make_split(patients_by_name(prints, BY), prints, SHARES, 3, BY), path)
    return path


def test_a_stored_split_reads_back_and_gives_the_same_parts_as_its_rule(folder: Path, tmp_path: Path) -> None:
    path = stored(folder, tmp_path / "split.json")
    split = read_split(path)
    assert (split.rule, split.seed, split.fractions) == (BY, 3, SHARES)
    for part in PARTS:
        of_file = FolderData(path=str(folder), split=SplitPart(file=str(path), part=part))
        of_rule = FolderData(path=str(folder), split=SplitPart(by=BY, fractions=SHARES, seed=3, part=part))
        names = [info.name for info in open_dataset(of_file, tmp_path / "cache").cases]
        assert names == [info.name for info in open_dataset(of_rule, tmp_path / "cache").cases] == split.names(part)
        assert dataset_digest(of_file, tmp_path / "cache") == dataset_digest(of_rule, tmp_path / "cache")
    whole = dataset_digest(FolderData(path=str(folder)), tmp_path / "cache")
    assert dataset_digest(of_file, tmp_path / "cache") != whole


def test_a_stored_split_that_no_longer_fits_is_refused(folder: Path, tmp_path: Path) -> None:
    path = stored(folder, tmp_path / "split.json")
    spec = FolderData(path=str(folder), split=SplitPart(file=str(path), part="train"))

    def said() -> str:
        with pytest.raises(BenchError) as caught:
            open_dataset(spec, tmp_path / "cache")
        return str(caught.value)

    kept = (folder / "2DBox_US_p0_0.npz").read_bytes()
    pixels = np.zeros((6, 7, 3), np.uint8)
    write_case(Case("2DBox_US_p0_0", "US", pixels, np.array([[0, 0, 1, 1]])), folder / "2DBox_US_p0_0.npz")
    assert "2DBox_US_p0_0 has other pixels now" in said()
    (folder / "2DBox_US_p0_0.npz").unlink()
    assert "2DBox_US_p0_0 is not in" in said()
    (folder / "2DBox_US_p0_0.npz").write_bytes(kept)
    (folder / "2DBox_US_p9_0.npz").write_bytes(kept)
    assert "2DBox_US_p9_0 is not in it" in said()
    (folder / "2DBox_US_p9_0.npz").unlink()
    data = json.loads(path.read_text())
    part = data["cases"]["2DBox_US_p0_0"]["part"]
    data["cases"]["2DBox_US_p0_0"]["part"] = next(other for other in PARTS if other != part)
    path.write_text(json.dumps(data))
    assert "are of the same patient, 0" in said()
    path.write_text("{}")
    assert "is no split file" in said()


def test_a_copy_in_another_part_is_refused_when_the_data_set_is_opened(folder: Path, tmp_path: Path) -> None:
    split = SplitPart(by=r"p\d_\d", fractions=(0.5, 0.0, 0.5), part="train")
    dataset = open_dataset(FolderData(path=str(folder), split=split), tmp_path / "cache")
    other = next(name for name in (p.stem for p in folder.glob("*.npz")) if name not in {c.name for c in dataset.cases})
    first = dataset.load(dataset.cases[0].name)
    write_case(Case(other, "US", first.image, first.boxes), folder / f"{other}.npz")
    with pytest.raises(BenchError, match="hold the same image") as caught:
        open_dataset(FolderData(path=str(folder), split=split), tmp_path / "cache")
    assert first.name in str(caught.value)
    assert other in str(caught.value)


def test_parts_of_two_different_splits_are_refused_where_one_is_trained_on_and_one_measured(
    folder: Path, tmp_path: Path
) -> None:
    def part(name: str, seed: int) -> FolderData:
        return FolderData(path=str(folder), split=SplitPart(by=BY, fractions=SHARES, seed=seed, part=name))

    def check(train: FolderData, test: FolderData) -> None:
        specs = {"learn": train, "test": test}
        opened = {name: open_dataset(spec, tmp_path / "cache") for name, spec in specs.items()}
        refuse_common_images("learn", opened, specs, tmp_path / "cache")

    whole = FolderData(path=str(folder))
    check(part("train", 0), part("test", 0))
    check(whole, whole)  # asked for: the same folder twice, no split
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied)
    elsewhere = FolderData(path=str(copied))  # two folders without a split can share an image as well
    for train, test in ((part("train", 0), part("train", 1)), (whole, part("test", 0)), (whole, elsewhere)):
        with pytest.raises(BenchError, match=r"datasets\.learn and datasets\.test: 2DBox_US_p\d_\d is trained on"):
            check(train, test)


def test_a_rule_that_says_nothing_or_too_much_is_refused() -> None:
    for fields, said in (
        ({}, "give one of"),
        ({"by": "x", "file": "y"}, "give one of"),
        ({"file": "x", "seed": 1}, "the split file holds"),
        ({"by": "x", "fractions": (0.5, 0.1, 0.1)}, "add up to 1"),
    ):
        with pytest.raises(ValueError, match=said):
            SplitPart(part="train", **fields)
