"""The worker obeys the challenge's contract, imports the least, and one bad case does not harm the others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.config import Deployment
from harness.data import Case, write_case
from harness.measure.runtime.bundle import Bundle, environment_of, load_bundle, make_bundle
from harness.measure.runtime.outputs import output_problem, stage
from harness.measure.runtime.phases import Marks, account, read_side_file
from harness.measure.runtime.sandbox import python_path
from tests.harness.runtime.support import PlainContext, make_case, runtime_job

NEVER = {
    "timm",
    "torchvision",
    "pandas",
    "matplotlib",
    "fvcore",
    "lightning",
    "scipy",
    "pyarrow",
    "pydantic",
    "typer",
    "rich",
    "harness.cli",
}


def bundle_of(tmp_path: Path, variant: str) -> Bundle:
    return make_bundle(runtime_job(tmp_path, variant), PlainContext(tmp_path / "job"))


def work(tmp_path: Path, bundle: Bundle, code: str = "") -> subprocess.CompletedProcess:
    program = ["-c", code] if code else ["-m", "harness.measure.runtime.worker"]
    argv = [sys.executable, *program, str(tmp_path / "in"), str(tmp_path / "out"), str(bundle.folder)]
    env = {**os.environ, "PYTHONPATH": python_path(), **bundle.environment}
    return subprocess.run(argv, capture_output=True, text=True, env=env, check=False)


def segs(folder: Path, name: str) -> np.ndarray:
    with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
        return arrays["segs"]


def test_every_case_of_the_inputs_gets_a_label_map_of_its_size_and_name(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("2DBox_US_0001", "2DBox_US_0002"):
        make_case(tmp_path / "in", name)
    done = work(tmp_path, bundle_of(tmp_path, "dummy"))
    assert done.returncode == 0, done.stderr
    for name in ("2DBox_US_0001", "2DBox_US_0002"):
        labels = segs(tmp_path / "out", name)
        assert labels.shape == (40, 60)
        assert set(np.unique(labels)) == {0, 1, 2}
    assert [path.name for path in sorted((tmp_path / "out").iterdir()) if not path.name.startswith(".")] == [
        "2DBox_US_0001.npz",
        "2DBox_US_0002.npz",
    ]


@pytest.mark.parametrize(("loop", "slices"), [("published", [1, 2, 3, 4, 5]), ("swin", [2, 3, 4])])
def test_the_worker_goes_through_a_volume_by_the_loop_of_the_measurement(tmp_path, loop, slices):
    (tmp_path / "in").mkdir()
    volume = Case("3DBox_CT_0001", "CT", np.zeros((8, 40, 50), np.uint8), np.array([[5, 5, 1, 30, 30, 5]]))
    write_case(volume, tmp_path / "in" / "3DBox_CT_0001.npz")
    bundle = make_bundle(runtime_job(tmp_path, "dummy", loop=loop), PlainContext(tmp_path / "job"))
    done = work(tmp_path, bundle)
    assert done.returncode == 0, done.stderr
    labels = segs(tmp_path / "out", "3DBox_CT_0001")
    assert [z for z in range(8) if labels[z].any()] == slices


def test_a_broken_case_fails_the_run_but_not_the_other_cases(tmp_path):
    (tmp_path / "in").mkdir()
    whole = make_case(tmp_path / "in", "2DBox_US_0002")
    (tmp_path / "in" / "2DBox_US_0001.npz").write_bytes(whole.read_bytes()[:200])
    done = work(tmp_path, bundle_of(tmp_path, "dummy"))
    assert done.returncode == 1
    assert "2DBox_US_0001.npz" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert output_problem(whole, tmp_path / "out") is None
    assert not (tmp_path / "out" / "2DBox_US_0001.npz").exists()
    told = read_side_file(tmp_path / "out")
    assert told["cases"]["2DBox_US_0001"]["status"] == "crashed"


@pytest.mark.parametrize(
    ("variant", "banned"), [("dummy", NEVER | {"torch", "safetensors"}), ("litemedsam_tiny", NEVER)]
)
def test_the_worker_imports_the_least(tmp_path, variant, banned):
    (tmp_path / "in").mkdir()
    make_case(tmp_path / "in")
    code = (
        "import json, sys\n"
        "from harness.measure.runtime import worker\n"
        "status = worker.main(sys.argv[1:])\n"
        "print(json.dumps(sorted(sys.modules)))\n"
        "sys.exit(status)\n"
    )
    done = work(tmp_path, bundle_of(tmp_path, variant), code)
    assert done.returncode == 0, done.stderr
    imported = set(json.loads(done.stdout.splitlines()[-1]))
    assert banned & imported == set()


def test_seed_initialised_weights_are_a_file_and_the_bundle_is_made_once(tmp_path):
    first = bundle_of(tmp_path, "litemedsam_tiny")
    assert (first.folder / "model.safetensors").stat().st_size > 10_000
    before = (first.folder / "model.safetensors").stat().st_mtime_ns
    again = bundle_of(tmp_path, "litemedsam_tiny")
    assert again.digest == first.digest == load_bundle(first.folder).digest
    assert (again.folder / "model.safetensors").stat().st_mtime_ns == before
    assert [path.name for path in (tmp_path / "job" / "work").iterdir()] == ["bundle"]


def test_threads_and_allocator_of_the_deployment_are_in_the_environment():
    assert environment_of(Deployment(threads=3))["OMP_NUM_THREADS"] == "3"
    assert "MALLOC_TRIM_THRESHOLD_" not in environment_of(Deployment())
    assert "MALLOC_TRIM_THRESHOLD_" in environment_of(Deployment(allocator="keep-pages"))


def test_a_staged_case_has_no_ground_truth_and_is_readable_by_everyone(tmp_path):
    staged = stage(make_case(tmp_path), tmp_path / "in")
    with np.load(staged, allow_pickle=False) as arrays:
        assert sorted(arrays) == ["boxes", "imgs"]
        assert arrays["imgs"].shape == (40, 60, 3)
    assert staged.stat().st_mode & 0o777 == 0o644


def test_a_pickle_in_the_output_is_refused_and_not_loaded(tmp_path):
    case = make_case(tmp_path)
    (tmp_path / "out").mkdir()
    np.savez(tmp_path / "out" / case.name, segs=np.array([{"a": 1}], dtype=object))
    assert "pickle" in output_problem(case, tmp_path / "out")


def test_phases_sum_to_the_wall_time_and_the_rest_is_unaccounted():
    told = {"started": 10.5, "finished": 13.0, "phases": {"imports": 1.0}, "cases": {"a": {"phases": {"encode": 0.7}}}}
    phases = account(Marks(begin=10.0, end=13.5, wall_s=3.5, started=10.2, finished=13.1), told)
    assert phases["start"] == pytest.approx(0.2)
    assert phases["interpreter"] == pytest.approx(0.3)
    assert phases["exit"] == pytest.approx(0.1)
    assert phases["stop"] == pytest.approx(0.4)
    assert phases["unaccounted"] == pytest.approx(0.8)
    assert sum(phases.values()) == pytest.approx(3.5)


def test_without_a_word_from_inside_the_inner_time_is_unaccounted():
    assert account(Marks(0.0, 2.0, 2.0), {}) == {"unaccounted": 2.0}
