"""The runtime job: a record for every case and repeat, whatever happens."""

import json

import pytest

from harness.errors import BenchError, OutOfMemoryError, UnavailableError
from harness.measure.runtime import job
from harness.measure.runtime.sandbox import Outcome, open_sandbox
from harness.schema import PHASES
from tests.harness.runtime.support import PlainContext, make_case, runtime_job


@pytest.fixture
def cases(tmp_path):
    folder = tmp_path / "cases"
    folder.mkdir()
    for name in ("2DBox_US_0001", "2DBox_US_0002"):
        make_case(folder, name)
    return folder


def test_the_dummy_variant_is_measured_end_to_end_in_processes(tmp_path, cases):
    context = PlainContext(tmp_path)
    job.run(runtime_job(cases, repeats=2), context)
    assert sorted(context.journal) == ["0/2DBox_US_0001", "0/2DBox_US_0002", "1/2DBox_US_0001", "1/2DBox_US_0002"]
    for rows in context.journal.values():
        assert {row.status for row in rows} == {"ok"}
        values = {row.metric: row.value for row in rows if row.phase is None}
        phases = {row.phase: row.value for row in rows if row.metric == "phase"}
        assert set(phases) == set(PHASES)
        assert sum(phases.values()) == pytest.approx(values["wall"])
        assert values["memory_limit"] == 1 << 30
        assert values["cpu_limit"] == 1.0
        assert values["peak_memory"] > 10 << 20
    wall = context.rows("wall")[0]
    detail = json.loads(wall.detail)
    assert (wall.modality, wall.ndim, wall.protocol, wall.repeat) == ("US", 2, "strict", 0)
    assert detail["limits_read"]["memory_source"] == "RLIMIT_DATA"
    assert any(text.startswith("network") for text in detail["not_enforced"])
    assert len(detail["load_average"]) == 3


def test_finished_units_are_not_measured_again(tmp_path, cases):
    context = PlainContext(tmp_path)
    kept = object()
    context.journal = {"0/2DBox_US_0001": [kept]}
    job.run(runtime_job(cases), context)
    assert context.journal["0/2DBox_US_0001"] == [kept]
    assert len(context.journal["0/2DBox_US_0002"]) > 5
    job.run(runtime_job(cases), context)


def test_a_failing_case_becomes_records_with_its_reason_and_the_next_is_measured(tmp_path, cases, monkeypatch):
    outcomes = iter(
        [
            Outcome("ok", None, 1.0, phases={"unaccounted": 1.0}),
            Outcome("oom", "too much", 2.0),
            Outcome("ok", None, 1.0, phases={"unaccounted": 1.0}),
        ]
    )
    monkeypatch.setattr("harness.measure.runtime.process.ProcessSandbox.run_case", lambda *_: next(outcomes))
    context = PlainContext(tmp_path)
    job.run(runtime_job(cases), context)
    first, second = context.rows("wall")
    assert (first.status, first.reason, first.value) == ("oom", "too much", None)
    assert (second.status, second.value) == ("ok", 1.0)
    assert context.rows("peak_memory")[0].status == "oom"


def test_a_disk_that_is_full_costs_the_case_and_not_the_job(tmp_path, cases, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("harness.measure.runtime.process.stage", full)
    context = PlainContext(tmp_path)
    job.run(runtime_job(cases), context)
    assert {row.status for row in context.rows("wall")} == {"crashed"}
    assert "No space left" in context.rows("wall")[0].reason


def test_a_file_with_a_flipped_byte_costs_its_own_runs_alone(tmp_path, cases):
    damaged = cases / "2DBox_US_0001.npz"
    raw = bytearray(damaged.read_bytes())
    raw[200] ^= 0xFF  # inside the compressed image, behind its header
    damaged.write_bytes(raw)
    context = PlainContext(tmp_path)
    job.run(runtime_job(cases), context)
    first, second = context.rows("wall")
    assert (first.status, second.status) == ("crashed", "ok")
    assert first.reason


def test_any_exception_of_a_case_is_its_outcome_also_while_warming(tmp_path, cases, monkeypatch):
    def fail(*_):
        raise OutOfMemoryError("a.npz: its arrays need more memory than is free")

    monkeypatch.setattr("harness.measure.runtime.process.ProcessSandbox.run_case", fail)
    context = PlainContext(tmp_path)
    job.run(runtime_job(cases), context)
    assert [(row.status, row.reason) for row in context.rows("wall")] == [
        ("oom", "a.npz: its arrays need more memory than is free")
    ] * 2


def test_a_sandbox_that_goes_away_ends_the_job_and_keeps_what_is_finished(tmp_path, cases, monkeypatch):
    fine = Outcome("ok", None, 1.0, phases={"unaccounted": 1.0})
    outcomes = iter([fine, fine])

    def go_away(*_):
        outcome = next(outcomes, None)
        if outcome is None:
            raise UnavailableError("the engine is gone")
        return outcome

    monkeypatch.setattr("harness.measure.runtime.process.ProcessSandbox.run_case", go_away)
    context = PlainContext(tmp_path)
    with pytest.raises(UnavailableError, match="the engine is gone"):
        job.run(runtime_job(cases), context)
    assert list(context.journal) == ["0/2DBox_US_0001"]


def test_data_that_changed_since_the_plan_are_not_measured(tmp_path, cases):
    spec = runtime_job(cases).model_copy(update={"inputs": {"dataset": "0" * 64}})
    with pytest.raises(BenchError, match="changed since"):
        job.run(spec, PlainContext(tmp_path))


def test_without_an_engine_the_job_is_unavailable_and_nothing_is_journaled(tmp_path, cases, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    spec = runtime_job(cases, sandbox="docker")
    context = PlainContext(tmp_path)
    assert "start-docker.sh" in job.precheck(spec)
    with pytest.raises(UnavailableError, match=r"start-docker\.sh"):
        job.run(spec, context)
    assert not context.journal


def test_limits_that_cannot_be_had_are_unsupported(tmp_path, cases):
    context = PlainContext(tmp_path)
    job.run(runtime_job(cases, cpus=4096), context)
    assert {row.status for row in context.rows("wall")} == {"unsupported"}
    assert "4096 CPUs" in context.rows("wall")[0].reason


def test_the_process_sandbox_is_always_available_here():
    assert open_sandbox("process").unavailable() is None


def test_an_unknown_sandbox_is_one_sentence():
    with pytest.raises(BenchError, match="sandbox 'jail' is unknown; use `process`, `cgroup` or `docker`"):
        open_sandbox("jail")
