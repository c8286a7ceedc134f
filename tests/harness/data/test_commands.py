"""`bench data` at the command line: what a folder holds is found out, and mistakes are one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from harness.cli import main
from harness.config import PhantomData
from harness.data.inspect import make


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image and one volume of generated data."""
    folder = tmp_path_factory.mktemp("data") / "cases"
    make(PhantomData(size=64, volumes=1, volume_size=32, slices=5, modalities=("CT",)), folder)
    return folder


def bench(*arguments: object) -> int:
    """Exit status of `bench data`."""
    with pytest.raises(SystemExit) as ended:
        main(["data", *map(str, arguments)])
    return int(ended.value.code or 0)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("form", ["nifti", "png", "tiff", "npz"])
def test_a_converted_folder_is_recognised_and_shows_the_same_table(
    cases: Path, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("convert", cases, tmp_path / "out", "--to", form) == 0
    assert "2 cases written" in said(capsys)
    assert bench("convert", cases, tmp_path / "out", "--to", form) == 0
    assert "0 cases written" in said(capsys)
    tables = []
    for folder in (cases, tmp_path / "out"):
        assert bench("inspect", folder, "--json") == 0
        rows = json.loads(capsys.readouterr().out)
        tables.append([{k: v for k, v in row.items() if k != "digest"} for row in rows])
    assert tables[0] == tables[1]
    assert [row["ndim"] for row in tables[0]] == [2, 3]


def test_a_dry_run_writes_nothing(cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("convert", cases, tmp_path / "out", "--to", "png", "--dry-run") == 0
    assert "2 cases would be written" in said(capsys)
    assert not (tmp_path / "out").exists()


def test_lossy_and_unknown_targets_are_refused(cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("convert", cases, tmp_path / "out", "--to", "jpeg") == 2
    assert "JPEG changes pixels and blurs labels" in said(capsys)
    assert bench("convert", cases, tmp_path / "out", "--to", "bmp") == 2
    assert "choose one of npz, nifti, png, tiff" in said(capsys)
    assert not (tmp_path / "out").exists()


def test_settings_reach_the_data_set_and_wrong_ones_are_named(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    bench("convert", cases, out, "--to", "png")
    (out / "boxes").rename(tmp_path / "elsewhere")
    capsys.readouterr()
    assert bench("inspect", out, "--json", "--set", "margin=2", "--set", "spacing=[1, 1, 2]") == 0
    rows = json.loads(capsys.readouterr().out)
    assert all("not tight" in row["notes"][0] for row in rows)
    for setting, sentence in (("margin", "is not KEY=VALUE"), ("colour=1", "colour=1"), ("margin=-1", "margin=-1")):
        assert bench("inspect", out, "--set", setting) == 2
        assert sentence in said(capsys)
    assert bench("inspect", out, "--modality", "XCT") == 2
    assert "unknown modality 'XCT'" in said(capsys)


def test_a_folder_of_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("inspect", tmp_path) == 2
    assert "holds no npz, NIfTI, PNG, TIFF or JPEG files" in said(capsys)
    assert bench("inspect", tmp_path / "no") == 2
    assert "is not a folder" in said(capsys)


def test_a_contact_sheet_is_a_picture_or_a_page_and_leaves_out_what_cannot_be_read(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench("convert", cases, tmp_path / "out", "--to", "png")
    (tmp_path / "out" / "images" / "2DBox_CT_0001.png").write_bytes(b"")
    assert bench("inspect", tmp_path / "out", "--sheet", tmp_path / "sheet.png") == 1
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (256, 1024, 3)
    assert bench("inspect", cases, "--sheet", tmp_path / "sheet.html") == 0
    assert (tmp_path / "sheet.html").read_text().count("<img ") == 2
    assert bench("inspect", cases, "--sheet", tmp_path / "sheet.bmp") == 2
    assert "a contact sheet is a .png or a .html" in said(capsys)


def test_a_split_is_stored_and_used_by_its_file(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "split.json"
    arguments = ("split", cases, "--fractions", "0.5,0,0.5", "-o", file)
    assert bench(*arguments, "--by", r"^..", "--json") == 0
    parts = json.loads(capsys.readouterr().out)["parts"]
    assert [parts[part]["cases"] for part in ("train", "validation", "test")] == [1, 0, 1]
    assert set(json.loads(file.read_text())["cases"]) == {"2DBox_CT_0001", "3DBox_CT_0001"}
    assert bench(*arguments) == 2
    assert "give either --by REGEX or --table FILE" in said(capsys)
    for fractions in ("1,2", "a,b,c", "0.5,0.1,0.1", "1.5,-0.5,0"):
        assert bench("split", cases, "--by", ".", "--fractions", fractions) == 2
        assert "that add up to 1" in said(capsys)
