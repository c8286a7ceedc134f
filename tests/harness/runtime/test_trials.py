"""The measurement finds a difference that is there and none that is not."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.config import RuntimeSettings
from harness.jobs import JobSpec
from harness.measure.runtime import job
from harness.plan import make_plan
from harness.results import Results
from harness.schema import Record
from harness.stats import paired_p
from harness.suitefile import read_suite
from harness.worker import perform
from tests.harness.runtime.support import PlainContext, need_engine
from tests.harness.small import write_suite

pytestmark = [pytest.mark.docker, pytest.mark.full]

TRIALS, REPEATS, ALPHA = 20, 10, 0.01
SUITE = """
include: [{parts}/deployments.yaml]
name: trials
variants: {{litemedsam: }}
datasets:
  test: {{kind: phantoms, seed: 1, per_modality: 1, modalities: [US]}}
measure:
  runtime:
    data: [test]
    deployments: [openvino-fp32-fast]
    sandboxes: [docker]
    timeout: 120
"""


@dataclass
class StoredContext(PlainContext):
    """A context in memory that finds the deployment of a results folder."""

    results: Results | None = field(default=None)

    def artifact(self, name: str) -> Path | None:
        assert self.results is not None
        return self.results.store.local(f"artifacts/{name}")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[JobSpec, Results]:
    """The runtime job of one cold image of LiteMedSAM, its deployment prepared."""
    need_engine()
    folder = tmp_path_factory.mktemp("trials")
    parts = Path(__file__).resolve().parents[3] / "suites" / "parts"
    results = Results(folder / "results")
    plan = make_plan(read_suite(write_suite(folder, SUITE.format(parts=parts)))[0], results)
    deploy, timed = plan.unique
    assert perform(deploy.spec, results, lambda f, m: None).state == "done"
    settings = RuntimeSettings.model_validate(timed.spec.settings | {"repeats": REPEATS}).model_dump(mode="json")
    return timed.spec.model_copy(update={"settings": settings}), results


def values(context: PlainContext, metric: str, phase: str | None = None) -> list[float]:
    rows: list[Record] = sorted(context.rows(metric), key=lambda row: row.repeat or 0)
    assert {row.status for row in rows} == {"ok"}
    return [row.value for row in rows if row.phase == phase and row.value is not None]


def trial(spec: JobSpec, results: Results, folder: Path) -> dict[str, float]:
    """p values of the same deployment against itself and against itself with encodings a tenth slower."""
    assert spec.deployment is not None
    slower = spec.model_copy(update={"deployment": spec.deployment.model_copy(update={"delay": 0.1})})
    jobs: list[tuple[JobSpec, Any]] = [
        (each, StoredContext(folder / str(number), results=results)) for number, each in enumerate((spec, spec, slower))
    ]
    assert job.run_together(jobs, lambda _: None) == [None] * 3
    first, second, delayed = (context for _, context in jobs)
    found = {}
    for metric, phase in (("phase", "encode"), ("wall", None)):
        base = values(first, metric, phase)
        assert len(base) == REPEATS
        found[f"same {phase or metric}"] = paired_p(base, values(second, metric, phase)) or 1.0
        found[f"delayed {phase or metric}"] = paired_p(base, values(delayed, metric, phase)) or 1.0
    return found


def test_twenty_trials_find_the_delay_and_nothing_else(prepared: tuple[JobSpec, Results], tmp_path: Path):
    trials = [trial(*prepared, tmp_path / str(number)) for number in range(TRIALS)]
    counts = {name: sum(found[name] < ALPHA for found in trials) for name in trials[0]}
    print(counts)  # noqa: T201
    assert counts["same encode"] <= 1
    assert counts["same wall"] <= 1
    assert counts["delayed encode"] >= 16
