"""Volumes that a deployment was compared on: their column, their warning, and a gate on them."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from reports import deployments, html, tables
from reports.frame import Run, load_run
from reports.tables.fidelity import notes
from reports.verdict import OK, REGRESSION, baseline_of, compare
from tests.reports.deployed import DeployedRun
from tests.reports.test_deployments import row_of


def looped(deployed: DeployedRun, dsc: float) -> Run:
    deployed.on_volumes(dsc)
    return load_run(*deployed.write())


def test_volumes_have_a_column_of_their_own_where_they_were_compared(deployed: DeployedRun) -> None:
    assert "DSC of volumes: of" not in html.render(load_run(*deployed.write()))
    run = looped(deployed, 0.98765)
    row, table = row_of(run, "tiny", "ort-fp32"), tables.fidelity(run)
    assert (row["volume_dsc"], row["volume_worst"], row["volume_truth"]) == (0.98765, 0.97, 0.61)
    assert notes(run)["tiny", "ort-fp32"] == "DSC of volumes 0.9876, under 0.99"
    reference = table[table["reference"] & (table["variant"] == "tiny")].iloc[0]
    assert (reference["volume_dsc"], reference["volume_truth"]) == (1.0, 0.63)
    assert pd.isna(row_of(run, "litemedsam", "ort-int8")["volume_dsc"])
    page = html.render(run)
    for words in (
        "DSC of volumes: of",
        "DSC of volumes at least 0.99)",
        "0.9876",
        "tiny · ort-fp32 (DSC of volumes 0.9876)",
        "lowest 0.9700",
        "to truth 0.6100",
        "5 objects in 2 volumes",
    ):
        assert words in page


@pytest.mark.parametrize(("volumes", "said"), [(0.99, ""), (0.98996, "DSC of volumes 0.9899, under 0.99"), (None, "")])
def test_volumes_that_drift_apart_are_a_warning(volumes: float | None, said: str) -> None:
    assert deployments.flag(1.0, 1.0, volumes) == said


@pytest.mark.parametrize(("dsc", "code"), [(0.98, OK), (0.97, REGRESSION)])
def test_a_gate_holds_volumes_to_those_of_the_baseline(deployed: DeployedRun, dsc: float, code: int) -> None:
    baseline = json.loads(json.dumps(baseline_of(looped(deployed, 0.985))))
    deployed.data["gates"] = [{"metric": "volume_dsc", "variants": ["*"], "protocol": None, "max_drop": 0.01}]
    result = compare(looped(deployed, dsc), baseline)
    assert result.exit_code == code
    assert result.compared == 1
