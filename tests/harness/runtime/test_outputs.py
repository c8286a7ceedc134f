"""What a run leaves in its mounted folders: outputs that obey the contract or say how not, and files not asked for."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.measure.runtime import outputs
from harness.measure.runtime.outputs import Staged, left_behind, output_problem, stage
from tests.harness.runtime.support import make_case


def files(folder: Path, contents: dict[str, str]) -> None:
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_what_a_run_leaves_besides_its_output_is_named_with_its_size(tmp_path):
    inputs, outputs = tmp_path / "in", tmp_path / "out"
    files(inputs, {"a.npz": "case"})
    staged = Staged.of(inputs / "a.npz")
    assert left_behind(staged, outputs) == []
    files(inputs, {"index.txt": "123"})
    files(outputs, {"a.npz": "segs", "cache/model.blob": "x" * 50, "efficiency.csv": "t"})
    assert left_behind(staged, outputs) == [
        {"name": "outputs/cache/model.blob", "bytes": 50},
        {"name": "inputs/index.txt", "bytes": 3},
        {"name": "outputs/efficiency.csv", "bytes": 1},
    ]


def test_a_case_that_was_written_to_is_named_and_links_are_not_followed(tmp_path):
    inputs, outputs = tmp_path / "in", tmp_path / "out"
    files(inputs, {"a.npz": "case"})
    staged = Staged.of(inputs / "a.npz")
    (inputs / "a.npz").write_text("another")
    outputs.mkdir()
    (outputs / "home").symlink_to("/")
    assert [row["name"] for row in left_behind(staged, outputs)] == ["inputs/a.npz (changed)", "outputs/home"]


def test_many_files_left_behind_are_counted_and_our_own_workers_notes_are_not_among_them(tmp_path):
    files(tmp_path, {"in/a.npz": "", **{f"out/{n}.tmp": "xx" for n in range(25)}, "out/.bench/worker.json": "{}"})
    found = left_behind(Staged.of(tmp_path / "in" / "a.npz"), tmp_path / "out", asked_for=".bench")
    assert found[-1] == {"name": "and 5 more", "bytes": 10}
    assert not [row for row in found if ".bench" in row["name"]]


def test_a_case_is_rewritten_without_its_truth_once_and_again_when_it_changes(tmp_path, monkeypatch):
    case = make_case(tmp_path)
    looks = []
    plain = outputs.inspect_header
    monkeypatch.setattr(outputs, "inspect_header", lambda path: looks.append(path) or plain(path))
    first, second = (stage(case, tmp_path / name) for name in ("one", "two"))
    assert looks == [case]
    with np.load(first, allow_pickle=False) as arrays:
        assert set(arrays.files) == {"imgs", "boxes"}
    first.write_bytes(b"scribbled by the program")
    assert np.load(stage(case, tmp_path / "three"), allow_pickle=False).files == np.load(second).files
    os.utime(case, ns=(1, 1))
    stage(case, tmp_path / "four")
    assert looks == [case, case]


def test_the_cases_made_ready_do_not_outgrow_their_room(tmp_path, monkeypatch):
    prepared = outputs._Prepared()
    monkeypatch.setattr(outputs, "KEPT_BYTES", 0)
    cases = [make_case(tmp_path, f"2DBox_US_000{number}") for number in range(3)]
    kept = [prepared.file(case) for case in cases]
    assert [path.exists() for path in kept] == [False, False, True]
    assert prepared.file(cases[0]).exists()


def test_what_was_made_ready_is_removed_when_the_process_ends(tmp_path):
    code = (
        "import sys, pathlib; from harness.measure.runtime.outputs import stage; "
        "stage(*map(pathlib.Path, sys.argv[1:]))"
    )
    (tmp_path / "scratch").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "scratch")}
    subprocess.run([sys.executable, "-c", code, make_case(tmp_path), tmp_path / "in"], check=True, env=environment)
    assert (tmp_path / "in" / "2DBox_US_0001.npz").exists()
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int64])
def test_every_type_of_whole_numbers_is_an_output(tmp_path, dtype):
    (tmp_path / "in").mkdir()
    case = make_case(tmp_path / "in")
    np.savez_compressed(tmp_path / case.name, segs=np.full((40, 60), 2, dtype))
    assert output_problem(case, tmp_path) is None


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"mask": np.zeros((40, 60), np.uint8)}, "field 'segs' is missing, the file has mask"),
        ({"segs": np.zeros((60, 40), np.uint8)}, "shape"),
        ({"segs": np.zeros((40, 60), np.float32)}, "dtype float32"),
        ({"segs": np.zeros((40, 60), bool)}, "dtype bool"),
        ({"segs": np.full((40, 60), 3, np.uint8)}, "holds labels 3..3, the case has 2 boxes"),
        ({"segs": np.full((40, 60), -1, np.int16)}, "holds labels -1..-1"),
        ({"segs": np.array([{}], dtype=object)}, "a pickle"),
    ],
)
def test_an_output_that_breaks_the_contract_says_how(tmp_path, arrays, said):
    (tmp_path / "in").mkdir()
    case = make_case(tmp_path / "in")
    np.savez_compressed(tmp_path / case.name, **arrays)
    assert said in output_problem(case, tmp_path)


def test_an_output_that_is_no_npz_a_folder_or_a_link_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    case = make_case(tmp_path / "in")
    output = tmp_path / case.name
    output.write_text("case,time")
    assert "is not an npz archive" in output_problem(case, tmp_path)
    output.unlink()
    output.mkdir()
    assert "is missing" in output_problem(case, tmp_path)
    output.rmdir()
    output.symlink_to(case)
    assert "is a link" in output_problem(case, tmp_path)


def test_a_full_disk_is_part_of_the_reason(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    case = make_case(tmp_path / "in")
    assert "No space left" not in output_problem(case, tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 0})())
    assert output_problem(case, tmp_path).endswith("No space left on device: the disk of the output folder is full")
