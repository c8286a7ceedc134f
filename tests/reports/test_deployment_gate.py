"""The gate on deployments: agreement, logits, time and size against those of a baseline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reports.frame import Run, load_run
from reports.verdict import BROKEN, NOTHING, OK, REGRESSION, GateResult, baseline_of, compare
from tests.reports.deployed import NO_FUSE, DeployedRun, comparison, unsupported

CELL = "tiny · ort-int8"


@pytest.fixture(scope="module")
def stored(deployed_run: Run) -> str:
    return json.dumps(baseline_of(deployed_run))


@pytest.fixture
def baseline(stored: str) -> dict[str, Any]:
    """Baseline of the made-up run with deployments as it is."""
    return json.loads(stored)


def gated(deployed: DeployedRun, baseline: dict[str, Any], **rule: Any) -> GateResult:
    """The run against the baseline by one gate, on the agreement unless another metric is named."""
    deployed.data["gates"] = [{"metric": "mask_agreement", "variants": ["*"], "protocol": None, **rule}]
    return compare(load_run(*deployed.write()), baseline)


def replaced(deployed: DeployedRun, *values: float, variant: str = "tiny") -> None:
    agreement, difference, ratio = values
    digest = deployed.job("deploy", variant, deployment="ort-int8")["digest"]
    deployed.replace(digest, comparison(agreement, agreement, difference, ratio, int8=True))


def verdict(result: GateResult, cell: str = CELL) -> str:
    found = [f.verdict for f in result.findings if f.cell == cell]
    assert len(found) == 1, [f.cell for f in result.findings]
    return found[0]


def test_the_same_agreement_passes_and_what_does_not_apply_is_not_compared(
    deployed: DeployedRun, baseline: dict[str, Any]
) -> None:
    result = gated(deployed, baseline, max_drop=0.001)
    assert result.exit_code == OK
    assert verdict(result) == "ok"
    assert verdict(result, "litemedsam · fused") == "not compared"
    assert result.compared == 5


@pytest.mark.parametrize(("agreement", "code"), [(0.9895, OK), (0.985, REGRESSION), (0.999, OK)])
def test_a_drop_of_the_agreement_beyond_the_limit_is_a_regression(
    deployed: DeployedRun, baseline: dict[str, Any], agreement: float, code: int
) -> None:
    replaced(deployed, agreement, 0.61, 0.98)
    result = gated(deployed, baseline, max_drop=0.001)
    assert result.exit_code == code
    assert verdict(result, "litemedsam · ort-int8") == "ok"


def test_the_agreement_is_compared_on_any_machine(deployed: DeployedRun, baseline: dict[str, Any]) -> None:
    replaced(deployed, 0.5, 0.61, 0.98)
    deployed.data["provenance"]["machine"]["fingerprint"] = "another"
    assert gated(deployed, baseline, max_drop=0.001).exit_code == REGRESSION


def test_a_ratio_of_times_is_compared_on_the_same_machine_alone(
    deployed: DeployedRun, baseline: dict[str, Any]
) -> None:
    replaced(deployed, 0.98996, 0.61, 9.8)
    rule = {"metric": "speed_ratio", "max_ratio": 1.5}
    assert gated(deployed, baseline, **rule).exit_code == REGRESSION
    deployed.data["provenance"]["machine"]["fingerprint"] = "another"
    result = gated(deployed, baseline, **rule)
    assert result.exit_code == NOTHING
    assert {f.verdict for f in result.findings} == {"not compared"}


def test_a_larger_logit_difference_is_a_regression(deployed: DeployedRun, baseline: dict[str, Any]) -> None:
    replaced(deployed, 0.98996, 6.1, 0.98)
    assert gated(deployed, baseline, metric="logit_difference", max_ratio=2).exit_code == REGRESSION


def test_a_larger_file_is_a_regression(deployed: DeployedRun, baseline: dict[str, Any]) -> None:
    digest = deployed.job("deploy", "tiny", deployment="ort-int8")["digest"]
    deployed.replace(digest, comparison(0.98996, 0.9, 0.61, 0.98, int8=False))
    assert gated(deployed, baseline, metric="file_size", max_ratio=1.1).exit_code == REGRESSION


@pytest.mark.parametrize("how", ["unsupported", "failed"])
def test_a_deployment_that_can_no_longer_be_had_is_broken(
    deployed: DeployedRun, baseline: dict[str, Any], how: str
) -> None:
    job = deployed.job("deploy", "tiny", deployment="ort-int8")
    if how == "failed":
        deployed.records.pop(job["digest"])
        job |= {"state": "failed", "reason": "the exporter froze"}
    else:
        deployed.replace(job["digest"], unsupported(NO_FUSE))
    result = gated(deployed, baseline, max_drop=0.001)
    assert result.exit_code == BROKEN
    assert verdict(result) == "broken"


def test_one_seed_that_drops_is_a_regression_of_the_whole(deployed: DeployedRun, baseline: dict[str, Any]) -> None:
    job = deployed.job("deploy", "tiny", deployment="ort-int8")
    deployed.data["jobs"].append({**job, "seed": 1, "digest": "6" * 64})
    deployed.replace("6" * 64, comparison(0.9, 0.8, 1.0, 1.0, int8=True))
    assert verdict(gated(deployed, baseline, max_drop=0.001)) == "regression"


def test_the_gate_names_the_warnings_that_apply(deployed: DeployedRun, baseline: dict[str, Any]) -> None:
    said = " ".join(gated(deployed, baseline, max_drop=0.001).remarks)
    assert "litemedsam · ort-int8 (mask agreement 0.9712, under 0.99; slower than eager torch, ×1.32)" in said


def test_an_older_baseline_without_warnings_is_read(
    deployed: DeployedRun, baseline: dict[str, Any], tmp_path: Path
) -> None:
    for cell in baseline["cells"]:
        del cell["flag"]
    assert gated(deployed, baseline, max_drop=0.001).exit_code == OK


def test_a_suite_may_gate_the_agreement() -> None:
    from harness.suite import GateRule

    assert GateRule(metric="mask_agreement", max_drop=0.001).variants == ("*",)
