"""`bench score` scores a folder of predictions, whoever made them, and names what cannot be scored."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from harness.cli import main


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    truth, predictions = tmp_path / "truth", tmp_path / "predictions"
    truth.mkdir()
    predictions.mkdir()
    image = np.zeros((30, 40), np.uint16)
    image[4:14, 4:14], image[4:14, 20:30] = 1, 2
    volume = np.zeros((5, 30, 40), np.uint8)
    volume[1:4, 5:15, 5:15] = 1
    np.savez_compressed(truth / "2DBox_US_0001.npz", gts=image)
    np.savez_compressed(truth / "3DBox_CT_0001.npz", gts=volume, spacing=[0.5, 0.5, 3.0])
    np.savez_compressed(predictions / "2DBox_US_0001.npz", segs=image)
    np.savez_compressed(predictions / "3DBox_CT_0001.npz", segs=np.roll(volume, 5, axis=2))
    return truth, predictions


def score(folders: tuple[Path, Path], *options: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["score", *map(str, folders), "--processes", "1", *options])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_every_object_and_case_gets_a_line_of_the_csv_file(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert score(folders, "--out", str(tmp_path / "scores.csv")) == 0
    with (tmp_path / "scores.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    values = {(r["case"], r["protocol"], r["object"], r["metric"]): r["value"] for r in rows}
    assert values["2DBox_US_0001", "strict", "2", "nsd"] == "1.0"
    assert values["3DBox_CT_0001", "strict", "1", "dsc"] == "0.5"
    assert values["3DBox_CT_0001", "cvpr24", "", "dsc"] == "0.5"
    assert len(rows) == 2 * 2 + 2 + 2 + 2


def test_the_table_has_a_line_a_case_and_their_mean(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(folders, "--protocol", "strict", "--metric", "dsc", "--metric", "hd95") == 0
    text = capsys.readouterr().out
    assert "3DBox_CT_0001" in text
    assert "micro average, 2 cases" in text
    assert "macro average, 2 modalities" in text
    assert "0.750" in text


def test_a_mean_says_how_many_cases_it_is_of_and_how_many_could_not_be_scored(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    truth, segs = folders
    with np.load(truth / "3DBox_CT_0001.npz") as stored:
        np.savez_compressed(truth / "3DBox_CT_0001.npz", gts=stored["gts"])  # without a spacing
    assert score(folders, "--protocol", "strict", "--metric", "nsd") == 0
    assert "n 1" in capsys.readouterr().out
    (segs / "3DBox_CT_0001.npz").unlink()
    assert score(folders, "--protocol", "strict", "--metric", "nsd") == 1
    assert "1 of 2 could not be scored" in " ".join(capsys.readouterr().out.split())


def test_json_says_unit_and_value(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert score(folders, "--json", "--metric", "hd95") == 0
    rows = json.loads(capsys.readouterr().out)
    (volume,) = (row for row in rows if row["case"] == "3DBox_CT_0001")
    assert (volume["value"], volume["unit"], volume["modality"]) == (2.5, "mm, 2D: px", "CT")


@pytest.mark.parametrize(
    ("segs", "reason"),
    [
        ({}, "field 'segs' is missing"),
        ({"segs": np.zeros((30, 41), np.uint8)}, r"shape (30, 41), the ground truth (30, 40)"),
        ({"segs": np.zeros((30, 40), np.float32)}, "holds float32; store whole-number labels"),
        ({"segs": np.full((30, 40), -1)}, "the label -1; labels begin at 0"),
    ],
)
def test_a_prediction_that_cannot_be_scored_is_named_and_the_others_are_scored(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str], segs: dict[str, np.ndarray], reason: str
) -> None:
    np.savez_compressed(folders[1] / "2DBox_US_0001.npz", **(segs or {"other": np.zeros(1)}))
    assert score(folders) == 1
    captured = capsys.readouterr()
    assert "micro average, 1 case" in captured.out
    assert reason in captured.err
    assert "2DBox_US_0001.npz" in captured.err


def test_a_missing_prediction_is_a_problem_and_not_left_out(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (folders[1] / "3DBox_CT_0001.npz").unlink()
    assert score(folders) == 1
    assert "the prediction of case 3DBox_CT_0001 is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--metric", "iou"), "--metric iou: not known; there are dsc, nsd"),
        (("--protocol", "cvpr24", "--metric", "hd95"), "--metric hd95: protocol cvpr24 does not have it"),
        (("--out", "nowhere/scores.csv"), "there is no such folder"),
    ],
)
def test_a_mistake_in_the_options_is_one_sentence(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str], options: tuple[str, ...], reason: str
) -> None:
    assert score(folders, *options) == 2
    assert reason in capsys.readouterr().err
