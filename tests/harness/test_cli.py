"""The command line as a user meets it: one clear sentence for every mistake, JSON for every listing."""

import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.harness.small import DUMMY, SMALL, write_suite

ROOT = Path(__file__).resolve().parents[2]


def bench(*arguments: str, cwd: Path = ROOT, **environment: str) -> "subprocess.CompletedProcess[str]":
    import os

    return subprocess.run(
        [sys.executable, "-m", "harness.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment},
    )


def sentence(done: "subprocess.CompletedProcess[str]") -> str:
    """The message of a refused command; it must be told on stderr, without a traceback, and with a bad exit code."""
    assert done.returncode not in (0, None), done.stdout
    assert "Traceback" not in done.stderr + done.stdout
    return " ".join(done.stderr.split())


def case_file(path: Path, **changes: np.ndarray) -> Path:
    truth = np.zeros((64, 64), np.uint8)
    truth[10:21, 12:31] = 1
    arrays = {"imgs": np.full((64, 64, 3), 7, np.uint8), "gts": truth, "boxes": np.array([[12, 10, 30, 20]])}
    np.savez_compressed(path, **(arrays | changes))
    return path


@pytest.mark.parametrize(
    "what", ["variants", "deployments", "datasets", "recipes", "protocols", "suites", "checkpoints", "runs"]
)
def test_every_listing_takes_json(what: str, tmp_path: Path):
    done = bench("list", what, "--json", "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert isinstance(rows, list)
    assert rows or what in ("checkpoints", "runs")


def test_a_listing_is_a_table_for_people():
    done = bench("list", "variants")
    assert "litemedsam" in done.stdout
    assert "9,791,300" in done.stdout


def test_the_doctor_says_what_is_missing_and_what_brings_it():
    done = bench("doctor", "--json")
    data = json.loads(done.stdout)
    topics = {f["topic"]: f for f in data["findings"]}
    assert {"CPU", "Instruction sets", "cgroups", "Docker", "GPU", "torch"} <= topics.keys()
    assert all(f["ok"] or f["remedy"] or f["topic"] == "GPU" for f in data["findings"])


def test_a_dry_run_prints_the_plan_and_makes_nothing(tmp_path: Path):
    done = bench("run", str(write_suite(tmp_path)), "--dry-run", "--results", str(tmp_path / "r"))
    assert done.returncode == 0, done.stderr
    assert "to do" in done.stdout
    assert "7 of 7 jobs to do" in done.stdout
    assert not (tmp_path / "r" / "runs").exists()


def test_a_dry_run_in_json(tmp_path: Path):
    done = bench("run", str(write_suite(tmp_path)), "--dry-run", "--json", "--results", str(tmp_path / "r"))
    plan = json.loads(done.stdout)
    assert len(plan["jobs"]) == 7
    assert plan["estimated_seconds"] > 0


@pytest.mark.parametrize(
    ("what", "name", "holds"),
    [
        ("variant", "litemedsam", "decoder_mlp_dim"),
        ("recipe", "quick", "steps"),
        ("suite", "quickstart", "measure"),
    ],
)
def test_show_prints_one_thing_in_full(what: str, name: str, holds: str):
    done = bench("show", what, name)
    assert done.returncode == 0, done.stderr
    assert holds in done.stdout


def test_validate_says_that_a_suite_is_valid():
    assert "is valid" in bench("validate", "suites/quickstart.yaml").stdout


def test_validate_tells_all_mistakes_with_file_and_line(tmp_path: Path):
    path = write_suite(tmp_path, SMALL.replace("threads", "treads").replace("steps: 6", "steps: many"))
    done = bench("validate", str(path))
    said = sentence(done)
    assert "suite.yaml:6" in said
    assert "Did you mean 'threads'?" in said
    assert "recipes.quick.steps" in said
    listed = json.loads(bench("validate", str(path), "--json").stdout)
    assert len(listed["problems"]) == 2


def test_a_typo_in_a_suite_is_one_sentence(tmp_path: Path):
    path = write_suite(tmp_path, SMALL.replace("measure:", "mesure:"))
    assert "Did you mean 'measure'?" in sentence(bench("run", str(path)))


def test_a_suite_that_is_not_there(tmp_path: Path):
    assert "nothing.yaml" in sentence(bench("run", "nothing.yaml"))


def test_a_run_that_is_not_there(tmp_path: Path):
    assert "holds no run yet" in sentence(bench("leaderboard", "--results", str(tmp_path)))


def run_on(folder: Path, tmp_path: Path) -> str:
    suite = write_suite(tmp_path, DUMMY)
    return sentence(bench("run", str(suite), f"datasets.test={folder}", "--results", str(tmp_path / "r")))


def test_a_truncated_npz_is_named_before_anything_runs(tmp_path: Path):
    folder = tmp_path / "cases"
    folder.mkdir()
    case_file(folder / "2DBox_CT_0001.npz")
    whole = case_file(folder / "2DBox_CT_0002.npz").read_bytes()
    (folder / "2DBox_CT_0002.npz").write_bytes(whole[: len(whole) // 2])
    assert "2DBox_CT_0002.npz" in run_on(folder, tmp_path)


class Bomb:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_an_npz_that_holds_a_pickle_is_refused_and_executes_nothing(tmp_path: Path):
    folder = tmp_path / "cases"
    folder.mkdir()
    trace = tmp_path / "executed"
    boxes = np.empty(1, object)
    boxes[0] = Bomb(trace)
    np.savez(folder / "2DBox_CT_0001.npz", imgs=np.zeros((8, 8, 3), np.uint8), boxes=boxes)
    said = run_on(folder, tmp_path)
    assert "2DBox_CT_0001.npz" in said
    assert "boxes" in said
    assert not trace.exists()


def test_an_npz_that_declares_100_gb_is_refused_before_anything_is_allocated(tmp_path: Path):
    folder = tmp_path / "cases"
    folder.mkdir()
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000, 10000, 10000), }"
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 1000
    boxes = io.BytesIO()
    np.save(boxes, np.array([[1, 1, 1, 5, 5, 5]]))
    with zipfile.ZipFile(folder / "3DBox_CT_0001.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("imgs.npy", array)
        archive.writestr("boxes.npy", boxes.getvalue())
    said = run_on(folder, tmp_path)
    assert "3DBox_CT_0001.npz" in said
    assert "imgs" in said


def test_an_empty_folder_is_no_data_set(tmp_path: Path):
    (tmp_path / "cases").mkdir()
    assert "cases" in run_on(tmp_path / "cases", tmp_path)


def test_a_missing_docker_is_one_sentence_before_any_time_is_spent(tmp_path: Path):
    suite = write_suite(tmp_path, DUMMY)
    done = bench(
        "run", str(suite), "measure.runtime.sandboxes=[docker]", "--results", str(tmp_path / "r"),
        DOCKER_HOST="unix:///nonexistent/docker.sock",
    )  # fmt: skip
    said = sentence(done)
    assert "docker" in said.lower()
    assert "missing_sandbox=skip" in said
    assert not list((tmp_path / "r").rglob("*.parquet"))


def test_a_suite_may_say_that_a_missing_docker_is_skipped(tmp_path: Path):
    suite = write_suite(tmp_path, DUMMY)
    done = bench(
        "run", str(suite), "measure.runtime.sandboxes=[process, docker]", "measure.runtime.missing_sandbox=skip",
        "--results", str(tmp_path / "r"), DOCKER_HOST="unix:///nonexistent/docker.sock",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "skipped" in done.stderr
    report = next((tmp_path / "r").rglob("*.html")).read_text()
    assert "skipped" in report


def test_a_checkpoint_with_a_wrong_shape_names_the_key(tmp_path: Path):
    import torch

    import variants

    weights = variants.to_published(variants.create("litemedsam_tiny"))
    key = next(k for k, v in weights.items() if v.ndim == 4)
    weights[key] = torch.zeros(1, 2, 3, 4)
    torch.save(weights, tmp_path / "wrong.pth")
    text = SMALL.replace("  litemedsam_tiny:\n", f"  litemedsam_tiny: {{weights: {tmp_path / 'wrong.pth'}}}\n")
    done = bench("run", str(write_suite(tmp_path, text)), "--results", str(tmp_path / "r"))
    said = sentence(done)
    assert "wrong.pth" in said
    assert key in said


def test_a_checkpoint_that_is_a_malicious_pickle_executes_nothing(tmp_path: Path):
    trace = tmp_path / "executed"
    (tmp_path / "bad.pth").write_bytes(pickle.dumps(Bomb(trace)))
    text = SMALL.replace("  litemedsam_tiny:\n", f"  litemedsam_tiny: {{weights: {tmp_path / 'bad.pth'}}}\n")
    said = sentence(bench("run", str(write_suite(tmp_path, text)), "--results", str(tmp_path / "r")))
    assert "bad.pth" in said
    assert not trace.exists()


def test_data_make_and_inspect(tmp_path: Path):
    made = bench("data", "make", str(tmp_path / "p"), "--size", "96", "--volumes", "0")
    assert made.returncode == 0, made.stderr
    rows = json.loads(bench("data", "inspect", str(tmp_path / "p"), "--json").stdout)
    assert len({r["modality"] for r in rows}) == 11
    assert "not an empty folder" in sentence(bench("data", "make", str(tmp_path / "p")))


def test_data_inspect_shows_every_problem_and_fails(tmp_path: Path):
    case_file(tmp_path / "2DBox_CT_0001.npz")
    case_file(tmp_path / "2DBox_CT_0002.npz", boxes=np.array([[12, 10, 300, 20]]))
    (tmp_path / "2DBox_CT_0003.npz").write_bytes(b"no zip")
    done = bench("data", "inspect", str(tmp_path))
    assert done.returncode == 1
    assert "2 with problems" in done.stdout
    assert "Traceback" not in done.stderr


def test_leaderboard_report_and_gate_of_a_run(tmp_path: Path):
    results = ("--results", str(tmp_path / "r"))
    ran = bench(
        "run", str(write_suite(tmp_path, DUMMY)), "gates.dsc={metric: dsc, protocol: strict, max_drop: 0.01}", *results
    )
    assert ran.returncode == 0, ran.stderr
    assert "dummy" in ran.stdout
    assert "Report:" in ran.stdout
    assert json.loads(bench("leaderboard", "--json", *results).stdout)
    assert "dummy" in bench("leaderboard", "--format", "markdown", *results).stdout
    part = bench("leaderboard", "--rows", "dummy", "--modality", "CT", "--format", "csv", *results).stdout
    assert "rows dummy, modality CT" in part
    page = Path(bench("report", "-o", str(tmp_path / "page.html"), *results).stdout.strip())
    assert "dummy" in page.read_text()
    baseline = str(tmp_path / "baseline.json")
    assert bench("gate", "--save", baseline, *results).returncode == 0
    assert bench("gate", "--baseline", baseline, *results).returncode == 0
    data = json.loads(Path(baseline).read_text())
    worse = json.dumps(data).replace('"value": 0.', '"value": 0.99')
    (tmp_path / "worse.json").write_text(worse)
    assert bench("gate", "--baseline", str(tmp_path / "worse.json"), *results).returncode == 1
    (tmp_path / "torn.json").write_text("{")
    assert bench("gate", "--baseline", str(tmp_path / "torn.json"), *results).returncode == 2


def test_a_results_folder_that_is_a_file_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in sentence(
        bench("run", str(write_suite(tmp_path)), "--results", str(tmp_path / "file"))
    )


def test_a_checkpoint_is_not_trained_for_a_folder_that_is_not_there(tmp_path: Path):
    done = bench("train", "litemedsam_tiny", "-o", str(tmp_path / "no" / "x.safetensors"), "--results", str(tmp_path))
    assert "there is no such folder" in sentence(done)
