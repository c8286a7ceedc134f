"""Latency in a plan: a job a number of threads, alone on the machine, the variants of a deployment side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.commands.listing import suite_schema
from harness.errors import BenchError
from harness.estimate import ROUGH_SECONDS, estimate
from harness.machine import this_machine
from harness.plan import Plan, PlannedJob, make_plan
from harness.results import Results
from harness.suitefile import read_suite
from harness.worker import load_runner
from tests.harness.small import write_suite

WARM = """\
name: warm
variants:
  litemedsam_tiny:
  rep_medsam_tiny: {deployments: [keep, fused]}
deployments:
  keep: {threads: 2, allocator: keep-pages}
  system: {threads: 2, allocator: system}
  fused: {threads: 2, fuse: true}
  compiled: {threads: 2, compile: true}
measure:
  latency: {deployments: [keep, system], repeats: 4, threads: [1, 2]}
"""


def plan_of(folder: Path, *overrides: str) -> Plan:
    suite, _ = read_suite(write_suite(folder, WARM), overrides)
    return make_plan(suite, Results(folder / "results"))


def latencies(plan: Plan) -> list[PlannedJob]:
    return [job for job in plan.jobs if job.spec.kind == "latency"]


def threads(job: PlannedJob) -> int:
    assert job.spec.deployment is not None
    return job.spec.deployment.threads


def test_every_number_of_threads_is_a_job_and_the_variants_of_a_deployment_follow_each_other(tmp_path: Path) -> None:
    jobs = latencies(plan_of(tmp_path))
    assert [(j.deployment, threads(j), j.row) for j in jobs] == [
        ("keep", 1, "litemedsam_tiny"),
        ("keep", 1, "rep_medsam_tiny"),
        ("keep", 2, "litemedsam_tiny"),
        ("keep", 2, "rep_medsam_tiny"),
        ("system", 1, "litemedsam_tiny"),
        ("system", 2, "litemedsam_tiny"),
        ("fused", 1, "rep_medsam_tiny"),
        ("fused", 2, "rep_medsam_tiny"),
    ]
    assert [j.spec.settings["threads"] for j in jobs] == [[threads(j)] for j in jobs]
    assert len({j.digest for j in jobs}) == len(jobs)
    assert jobs[0].title == "latency · litemedsam_tiny · keep · threads 1"


def test_latency_runs_alone_and_belongs_to_one_machine(tmp_path: Path) -> None:
    for job in latencies(plan_of(tmp_path)):
        assert job.spec.exclusive
        assert job.spec.machine == this_machine().fingerprint


def test_a_prepared_deployment_is_prepared_once_for_all_numbers_of_threads(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    (deploy,) = (job for job in plan.jobs if job.spec.kind == "deploy")
    fused = [job for job in latencies(plan) if job.deployment == "fused"]
    assert [job.needs for job in fused] == [(deploy.digest,)] * 2
    assert plan.jobs.index(deploy) < plan.jobs.index(fused[0])


def test_what_is_compiled_ahead_is_measured_with_the_threads_it_was_compiled_for(tmp_path: Path) -> None:
    jobs = latencies(plan_of(tmp_path, "measure.latency.deployments=[compiled]"))
    assert [threads(job) for job in jobs if job.deployment == "compiled"] == [2]


@pytest.mark.parametrize("change", ["deployments.keep.execution=reference", "deployments.keep.embedding_cache=1MiB"])
def test_how_a_pipeline_uses_the_model_does_not_change_a_single_encoding(change: str, tmp_path: Path) -> None:
    before, after = ([j.digest for j in latencies(plan_of(tmp_path, *o))] for o in ((), (change,)))
    assert before == after


def test_the_time_is_estimated_by_rounds(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    jobs = latencies(plan)
    assert {job.units for job in jobs} == {4}
    assert estimate(jobs, Results(tmp_path / "results")) == (8 * 4 * ROUGH_SECONDS["latency"], False)


def test_an_unknown_deployment_is_a_mistake_of_the_suite(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="there is no deployment 'kept'"):
        plan_of(tmp_path, "measure.latency.deployments=[kept]")


def test_the_runner_is_found_and_the_schema_knows_the_measurement() -> None:
    assert load_runner("latency").__module__ == "harness.measure.latency.job"
    schema: dict[str, Any] = suite_schema()
    assert {"deployments", "repeats", "threads"} <= set(schema["$defs"]["LatencyMeasure"]["properties"])
