"""A run: jobs are done once, whoever asks; failures are results; what was interrupted goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.jobs import JobSpec
from harness.plan import Plan, PlannedJob, make_plan
from harness.results import Results, read_run
from harness.run import Run
from harness.schema import Record
from harness.store import records_key, unseal
from harness.suitefile import read_suite
from harness.worker import perform
from tests.harness.small import DUMMY, write_suite


class Silent:
    """A watcher that remembers how jobs ended."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, str, str | None]] = []

    def started(self, job: PlannedJob, index: int, total: int) -> None: ...

    def progress(self, job: PlannedJob, fraction: float, message: str) -> None: ...

    def ended(self, job: PlannedJob, state: str, reason: str | None, seconds: float) -> None:
        self.ends.append((job.title, state, reason))


def plan_of(folder: Path, *overrides: str, text: str = DUMMY) -> tuple[Plan, Results]:
    results = Results(folder / "results")
    return make_plan(read_suite(write_suite(folder, text), overrides)[0], results), results


def records(plan: Plan, results: Results, kind: str) -> list[Record]:
    job = next(j for j in plan.jobs if j.spec.kind == kind)
    data = results.store.get(records_key(job.digest))
    assert data is not None
    return unseal(data)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Results, Path, Silent]:
    folder = tmp_path_factory.mktemp("run")
    plan, results = plan_of(folder)
    watcher = Silent()
    run = Run(plan, results, ["bench", "run", "suite.yaml"], [])
    assert run.execute(watcher) == 0
    return plan, results, run.folder, watcher


def test_a_run_does_every_job_and_seals_its_records(finished: Any):
    plan, results, _, watcher = finished
    assert [state for _, state, _ in watcher.ends] == ["done"] * len(plan.jobs)
    assert all(results.sealed(j.digest) for j in plan.jobs)


def test_nothing_but_the_store_and_the_run_is_left_behind(finished: Any):
    _, results, _, _ = finished
    assert not list((results.root / "work").glob("*"))
    assert not list((results.root / "journals").glob("*.jsonl")) or [
        p.name for p in (results.root / "journals").glob("*.jsonl")
    ] == ["durations.jsonl"]


def test_what_a_kill_after_the_seal_left_behind_is_swept_and_an_unfinished_job_keeps_its_own(finished: Any):
    plan, results, _, _ = finished
    sealed, unfinished = plan.jobs[0].digest, "0" * 64
    for digest in (sealed, unfinished):
        (results.work(digest) / "bundle").mkdir(parents=True)
        results.journal(digest).write_text("")
    run = Run(make_plan(plan.suite, results), results, [])
    assert run.execute(Silent()) == 0
    assert [p.name for p in (results.root / "work").glob("*")] == [unfinished]
    assert not results.journal(sealed).exists()
    assert results.journal(unfinished).exists()
    results.tidy(unfinished)


def test_every_case_of_the_data_set_has_a_value_for_every_metric(finished: Any):
    plan, results, _, _ = finished
    rows = records(plan, results, "accuracy")
    assert {r.case for r in rows} == {"2DBox_CT_0001", "2DBox_US_0001", "3DBox_CT_0001"}
    assert {(r.metric, r.protocol) for r in rows} >= {(m, p) for m in ("dsc", "nsd") for p in ("strict", "cvpr24")}
    assert all(r.status == "ok" for r in rows)


def test_cold_runs_have_a_wall_time_and_a_peak_memory_a_case(finished: Any):
    plan, results, _, _ = finished
    rows = records(plan, results, "runtime")
    for metric in ("wall", "peak_memory"):
        values = [r.value for r in rows if r.metric == metric]
        assert len(values) == 2
        assert all(v is not None and v > 0 for v in values)


def test_the_run_folder_says_where_everything_came_from(finished: Any):
    plan, _, folder, _ = finished
    data = read_run(folder)
    assert data["status"] == "finished"
    assert data["plan"] == plan.digest
    provenance = data["provenance"]
    assert {"git", "versions", "machine", "seeds", "datasets"} <= provenance.keys()
    assert len(provenance["machine"]["fingerprint"]) == 16
    assert provenance["datasets"]["test"]["digest"]
    assert [j["state"] for j in data["jobs"]] == ["done"] * len(plan.jobs)


def test_a_second_run_is_all_from_cache(finished: Any):
    plan, results, _, _ = finished
    again = make_plan(plan.suite, results)
    assert all(j.cached for j in again.jobs)
    watcher = Silent()
    run = Run(again, results, [])
    assert run.execute(watcher) == 0
    assert watcher.ends == []
    assert {j["state"] for j in read_run(run.folder)["jobs"]} == {"cached"}


def test_a_job_that_somebody_else_finished_meanwhile_is_not_done_twice(finished: Any):
    plan, results, _, _ = finished
    assert perform(plan.jobs[0].spec, results, lambda f, m: None).state == "cached"


def test_a_job_that_cannot_be_done_here_is_skipped_with_a_reason_and_asked_again(tmp_path: Path):
    plan, results = plan_of(tmp_path)
    no_engine = "there is no Docker engine"
    run = Run(plan, results, [])
    watcher = Silent()
    run.execute(watcher, check=lambda j: no_engine if j.spec.kind == "runtime" else None)
    states = {j["kind"]: (j["state"], j["reason"]) for j in read_run(run.folder)["jobs"]}
    assert states["runtime"] == ("skipped", no_engine)
    assert states["accuracy"] == ("done", None)
    later = Silent()
    Run(make_plan(plan.suite, results), results, []).execute(later)
    assert [state for _, state, _ in later.ends] == ["done"]


@pytest.mark.parametrize(("rule", "failed"), [("error", 1), ("skip", 0)])
def test_a_job_whose_sandbox_goes_away_meanwhile_is_skipped_and_not_stored(
    tmp_path: Path, monkeypatch: Any, rule: str, failed: int
):
    plan, results = plan_of(tmp_path, "measure.runtime.sandboxes=[docker]", f"measure.runtime.missing_sandbox={rule}")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    run = Run(plan, results, [])
    watcher = Silent()
    assert run.execute(watcher, check=lambda job: None) == failed
    assert [state for _, state, _ in watcher.ends] == ["done", "done", "skipped"]
    assert not results.sealed(plan.jobs[-1].digest)


def test_a_job_that_fails_does_not_stop_the_others(tmp_path: Path):
    weights = tmp_path / "broken.safetensors"
    weights.write_bytes(b"this is no checkpoint")
    text = DUMMY.replace("  dummy:\n", f"  litemedsam_tiny: {{weights: {weights}}}\n  dummy:\n")
    plan, results = plan_of(tmp_path, text=text)
    run = Run(plan, results, [])
    failed = run.execute(Silent())
    states = {(j["kind"], j["variant"]): (j["state"], j["reason"]) for j in read_run(run.folder)["jobs"]}
    assert failed >= 1
    assert states["accuracy", "dummy"] == ("done", None)
    state, reason = states["accuracy", "litemedsam_tiny"]
    assert state == "failed"
    assert "broken.safetensors" in str(reason)
    assert "Traceback" not in str(reason)


def test_a_worker_that_is_killed_fails_its_job_and_the_next_one_runs(tmp_path: Path):
    plan, results = plan_of(tmp_path)

    class Killer(Silent):
        def __init__(self) -> None:
            super().__init__()
            self.killed = False

        def started(self, job: PlannedJob, index: int, total: int) -> None:
            if not self.killed:
                self.killed = True
                children = subprocess.run(
                    ["pgrep", "-P", str(os.getpid())], capture_output=True, text=True, check=False
                )
                for pid in children.stdout.split():
                    with_worker = Path(f"/proc/{pid}/cmdline")
                    if with_worker.exists() and b"harness.worker" in with_worker.read_bytes():
                        os.kill(int(pid), signal.SIGKILL)

    class Eager(Killer):
        """Kills the worker as soon as it says anything."""

        def progress(self, job: PlannedJob, fraction: float, message: str) -> None:
            if len(self.ends) == 1 and self.killed:
                self.killed = False
                self.started(job, 0, 0)

    watcher = Eager()
    run = Run(plan, results, [])
    failed = run.execute(watcher)
    states = [state for _, state, _ in watcher.ends]
    assert failed == 1
    assert states.count("failed") == 1
    assert "killed" in str(next(reason for _, state, reason in watcher.ends if state == "failed"))
    assert states.count("done") == len(plan.jobs) - 1
    again = Silent()
    assert Run(make_plan(plan.suite, results), results, []).execute(again) == 0


TWO = DUMMY.replace("  dummy:\n", "  dummy:\n  other: {name: dummy, set: {preprocess: gray-code}}\n")


def test_timings_of_a_sandbox_are_one_session_and_each_job_is_sealed(tmp_path: Path):
    plan, results = plan_of(tmp_path, text=TWO)
    watcher = Silent()
    assert Run(plan, results, []).execute(watcher) == 0
    timed = [job for job in plan.unique if job.spec.kind == "runtime"]
    assert len(timed) == 2
    told = [
        json.loads(str(record.detail))
        for job in timed
        for record in unseal(results.store.get(records_key(job.digest)) or b"")
        if record.metric == "wall"
    ]
    assert len({detail["session"] for detail in told}) == 1
    assert sorted(detail["place"] for detail in told) == list(range(len(told)))
    assert not list((results.root / "work").glob("*"))


@pytest.mark.slow
def test_a_worker_that_dies_in_a_session_is_replaced_as_long_as_the_session_gets_on(tmp_path: Path):
    plan, results = plan_of(tmp_path, "measure.runtime.repeats=3", text=TWO)

    class KillsOnce(Silent):
        def __init__(self) -> None:
            super().__init__()
            self.told = 0

        def progress(self, job: PlannedJob, fraction: float, message: str) -> None:
            if job.spec.kind != "runtime" or "run" not in message:
                return
            self.told += 1
            if self.told == 4:
                workers = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True, check=False)
                for pid in workers.stdout.split():
                    if b"harness.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        os.kill(int(pid), signal.SIGKILL)

    watcher = KillsOnce()
    assert Run(plan, results, []).execute(watcher) == 0
    assert watcher.told > 4
    assert {state for _, state, _ in watcher.ends} == {"done"}
    walls = [
        r for job in plan.unique if job.spec.kind == "runtime" for r in _records(results, job) if r.metric == "wall"
    ]
    assert sorted({r.repeat for r in walls if r.repeat is not None}) == [0, 1, 2]
    assert len({json.loads(str(r.detail))["session"] for r in walls}) == 2


def _records(results: Results, job: PlannedJob) -> list[Record]:
    return unseal(results.store.get(records_key(job.digest)) or b"")


def test_two_runs_at_once_do_every_job_once_and_agree(tmp_path: Path):
    suite = write_suite(tmp_path, DUMMY)
    command = [sys.executable, "-m", "harness.cli", "run", str(suite), "--results", str(tmp_path / "results")]
    runs = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for run in runs:
        _, errors = run.communicate(timeout=120)
        assert run.returncode == 0, errors
    results = Results(tmp_path / "results")
    done = [
        event["job"]
        for folder in results.run_folders()
        for event in map(json.loads, (folder / "events.jsonl").read_text().splitlines())
        if event["event"] == "done"
    ]
    assert len(done) == len(set(done)) == 3
    assert len(list(results.run_folders())) == 2


def test_ctrl_c_keeps_everything_and_the_same_command_goes_on_in_the_same_run(tmp_path: Path):
    suite = write_suite(tmp_path, DUMMY)
    command = [sys.executable, "-m", "harness.cli", "run", str(suite), "--results", str(tmp_path / "results")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "results").glob("runs/*/events.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert "the same command goes on" in output
    assert "Traceback" not in output
    (folder,) = Results(tmp_path / "results").run_folders()
    assert read_run(folder)["status"] == "interrupted"
    again = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    assert "Resuming" in again.stderr
    assert [f.name for f in Results(tmp_path / "results").run_folders()] == [folder.name]


def test_every_kind_of_job_has_a_runner():
    from harness.worker import RUNNERS, load_runner

    for kind in RUNNERS:
        assert callable(load_runner(kind))


def test_job_specifications_are_closed():
    with pytest.raises(ValueError, match="extra"):
        JobSpec.model_validate({"kind": "accuracy", "variant": {"name": "dummy"}, "colour": "red"})
