from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import BenchError
from harness.schema import GATEABLE
from reports import gate
from reports.cells import cells
from reports.frame import load_run
from reports.verdict import BROKEN, NOTHING, OK, REGRESSION, GateResult, Verdict, baseline_of, compare
from tests.reports.deployed import DeployedRun
from tests.reports.synthetic import OOM, SyntheticRun

BASELINES: dict[str, dict[str, Any]] = {}


@pytest.fixture
def baseline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Baseline of the made-up run as it is."""
    if not BASELINES:
        run = load_run(*SyntheticRun(tmp_path_factory.mktemp("baseline")).write())
        BASELINES["it"] = baseline_of(run)
    return json.loads(json.dumps(BASELINES["it"]))


def checked(synthetic: SyntheticRun, baseline: dict[str, Any]) -> GateResult:
    return compare(load_run(*synthetic.write()), baseline)


def verdict(result: GateResult, metric: str, cell: str) -> tuple[Verdict, str]:
    found = [f for f in result.findings if f.metric == metric and f.cell == cell]
    assert len(found) == 1, [f.cell for f in result.findings]
    return found[0].verdict, found[0].reason


def test_the_same_run_passes(synthetic: SyntheticRun, baseline: dict[str, Any]) -> None:
    result = checked(synthetic, baseline)
    assert result.exit_code == OK
    assert result.compared > 0
    assert {f.verdict for f in result.findings} == {"ok", "not compared"}


def test_a_drop_beyond_the_limit_is_a_regression(synthetic: SyntheticRun, baseline: dict[str, Any]) -> None:
    synthetic.scale("accuracy", "tiny", "dsc", 0.9)
    result = checked(synthetic, baseline)
    assert result.exit_code == REGRESSION
    assert verdict(result, "dsc", "tiny · default · phantoms")[0] == "regression"
    assert verdict(result, "dsc", "dummy · default · phantoms")[0] == "ok"


def test_a_drop_within_the_limit_passes(synthetic: SyntheticRun, baseline: dict[str, Any]) -> None:
    synthetic.scale("accuracy", "tiny", "dsc", 0.99)
    assert checked(synthetic, baseline).exit_code == OK


def test_a_gain_is_reported_and_passes(synthetic: SyntheticRun, baseline: dict[str, Any]) -> None:
    synthetic.scale("accuracy", "litemedsam", "dsc", 1.3)
    result = checked(synthetic, baseline)
    assert result.exit_code == OK
    assert verdict(result, "dsc", "litemedsam · default · phantoms")[0] == "improved"
    assert "1 improved" in result.summary


@pytest.mark.parametrize(("factor", "code"), [(1.1, OK), (1.5, REGRESSION), (0.5, OK)])
def test_slower_beyond_the_ratio_is_a_regression(
    synthetic: SyntheticRun, baseline: dict[str, Any], factor: float, code: int
) -> None:
    synthetic.scale("runtime", "tiny", "wall", factor, sandbox="process")
    assert checked(synthetic, baseline).exit_code == code


def test_times_of_another_machine_are_never_compared(synthetic: SyntheticRun, baseline: dict[str, Any]) -> None:
    synthetic.scale("runtime", "tiny", "wall", 100, sandbox="process")
    synthetic.data["provenance"]["machine"]["fingerprint"] = "another"
    result = checked(synthetic, baseline)
    assert result.exit_code == OK
    assert all(f.verdict == "not compared" for f in result.findings if f.metric == "wall")
    assert any("another machine" in remark for remark in result.remarks)


def test_an_out_of_memory_on_another_machine_is_broken_all_the_same(
    synthetic: SyntheticRun, baseline: dict[str, Any]
) -> None:
    synthetic.data["provenance"]["machine"]["fingerprint"] = "another"
    fail_runtime(synthetic, "tiny")
    assert checked(synthetic, baseline).exit_code == BROKEN


def fail_runtime(synthetic: SyntheticRun, variant: str) -> None:
    from dataclasses import replace

    digest = synthetic.job("runtime", variant, sandbox="process")["digest"]
    records = synthetic.records[digest]
    lost = [r for r in records if r.metric != "phase"]
    synthetic.replace(digest, [replace(r, value=None, status="oom", reason=OOM) if r.case else r for r in lost])


def test_other_data_is_never_compared(synthetic: SyntheticRun, baseline: dict[str, Any]) -> None:
    synthetic.data["provenance"]["datasets"]["phantoms"]["digest"] = "f" * 64
    result = checked(synthetic, baseline)
    assert result.exit_code == NOTHING
    assert result.compared == 0
    assert any("phantoms is not the baseline's" in remark for remark in result.remarks)


def test_a_cell_that_fails_now_is_broken(synthetic: SyntheticRun, baseline: dict[str, Any]) -> None:
    fail_runtime(synthetic, "tiny")
    result = checked(synthetic, baseline)
    assert result.exit_code == BROKEN
    assert "oom" in verdict(result, "wall", "tiny · default · phantoms · process")[1]


def test_one_more_failed_case_is_broken_even_if_the_mean_moves_little(
    synthetic: SyntheticRun, baseline: dict[str, Any]
) -> None:
    from dataclasses import replace

    digest = synthetic.job("accuracy", "tiny")["digest"]
    name = synthetic.cases[0][0]
    synthetic.replace(
        digest,
        [
            replace(r, value=None, status="crashed", reason="it broke") if r.case == name else r
            for r in synthetic.records[digest]
        ],
    )
    result = checked(synthetic, baseline)
    assert result.exit_code == BROKEN
    assert "1 failed, 0 in the baseline" in verdict(result, "dsc", "tiny · default · phantoms")[1]


def test_a_cell_that_is_gone_is_broken(synthetic: SyntheticRun, baseline: dict[str, Any]) -> None:
    synthetic.data["jobs"] = [j for j in synthetic.data["jobs"] if j["variant"] != "tiny-depth2"]
    assert checked(synthetic, baseline).exit_code == BROKEN


def test_a_job_that_was_skipped_this_time_is_broken(synthetic: SyntheticRun, baseline: dict[str, Any]) -> None:
    job = synthetic.job("runtime", "tiny", sandbox="process")
    job |= {"state": "skipped", "reason": "left out"}
    del synthetic.records[job["digest"]]
    assert checked(synthetic, baseline).exit_code == BROKEN


def test_broken_outweighs_regression(synthetic: SyntheticRun, baseline: dict[str, Any]) -> None:
    synthetic.scale("accuracy", "tiny", "dsc", 0.5)
    fail_runtime(synthetic, "tiny")
    assert checked(synthetic, baseline).exit_code == BROKEN


def test_a_gate_that_matches_no_cell_cannot_pass(synthetic: SyntheticRun, baseline: dict[str, Any]) -> None:
    synthetic.data["gates"].append({"metric": "dsc", "variants": ["no-such-*"], "max_drop": 0.1})
    result = checked(synthetic, baseline)
    assert result.exit_code == NOTHING
    assert any("guards nothing" in remark for remark in result.remarks)


def test_a_baseline_older_than_a_metric_is_to_be_stored_again(
    synthetic: SyntheticRun, baseline: dict[str, Any]
) -> None:
    synthetic.data["gates"].append({"metric": "peak_anonymous", "max_ratio": 1.2})
    baseline["cells"] = [cell for cell in baseline["cells"] if cell["metric"] != "peak_anonymous"]
    result = checked(synthetic, baseline)
    assert result.exit_code == NOTHING
    (remark,) = [remark for remark in result.remarks if "guards nothing" in remark]
    assert "peak_anonymous of * matches no cell of the baseline, but cells of this run" in remark
    assert "store the baseline again with `bench gate --save FILE`" in remark


def test_a_gate_that_names_nothing_of_the_run_either_asks_for_no_new_baseline(
    synthetic: SyntheticRun, baseline: dict[str, Any]
) -> None:
    synthetic.data["gates"].append({"metric": "dsc", "variants": ["no-such-*"], "max_drop": 0.1})
    assert not any("again" in remark for remark in checked(synthetic, baseline).remarks)


def test_cells_are_made_of_exactly_the_metrics_that_a_gate_may_name(deployed: DeployedRun) -> None:
    deployed.on_volumes(0.99)
    further = {"hd95", "box_iou"}  # of suites that ask for them, see test_further_metrics
    assert {cell.metric for cell in cells(load_run(*deployed.write()))} == set(GATEABLE) - further
    assert len(set(GATEABLE)) == len(GATEABLE)


def test_a_suite_without_gates_cannot_pass(synthetic: SyntheticRun, baseline: dict[str, Any]) -> None:
    synthetic.data["gates"] = []
    assert checked(synthetic, baseline).exit_code == NOTHING


def test_an_empty_baseline_cannot_pass(synthetic: SyntheticRun, baseline: dict[str, Any]) -> None:
    assert checked(synthetic, baseline | {"cells": []}).exit_code == NOTHING


def test_other_cases_of_the_same_data_are_not_compared(synthetic: SyntheticRun, baseline: dict[str, Any]) -> None:
    for cell in baseline["cells"]:
        if cell["metric"] == "dsc":
            cell["case_set"] = "other"
    synthetic.data["gates"] = synthetic.data["gates"][:1]
    result = checked(synthetic, baseline)
    assert result.exit_code == NOTHING
    assert {f.reason for f in result.findings if f.before is not None} == {"measured on other cases"}


def test_a_gate_names_its_variants_and_protocol(synthetic: SyntheticRun, baseline: dict[str, Any]) -> None:
    synthetic.data["gates"] = [{"metric": "dsc", "variants": ["tiny*"], "protocol": "cvpr24", "max_drop": 0.02}]
    result = checked(synthetic, baseline)
    assert {(f.cell.split(" ·")[0], f.protocol) for f in result.findings} == {
        ("tiny", "cvpr24"),
        ("tiny-depth2", "cvpr24"),
    }


def test_more_parameters_are_a_regression_without_any_data(synthetic: SyntheticRun, baseline: dict[str, Any]) -> None:
    synthetic.data["gates"] = [{"metric": "params", "max_drop": 0}]
    assert checked(synthetic, baseline).exit_code == OK
    synthetic.scale("complexity", "tiny", "params", 1.001)
    assert checked(synthetic, baseline).exit_code == REGRESSION


def test_the_training_note_is_said_with_the_result(synthetic: SyntheticRun, baseline: dict[str, Any]) -> None:
    assert any("under-trained, 120 steps" in remark for remark in checked(synthetic, baseline).remarks)


def test_changed_versions_are_said(synthetic: SyntheticRun, baseline: dict[str, Any]) -> None:
    synthetic.data["provenance"]["versions"]["torch"] = "2.14.0"
    assert any("torch 2.13.0 → 2.14.0" in remark for remark in checked(synthetic, baseline).remarks)


def test_an_unfinished_run_makes_no_baseline(synthetic: SyntheticRun) -> None:
    synthetic.data["status"] = "interrupted"
    with pytest.raises(BenchError, match="interrupted"):
        gate.save_baseline(*synthetic.write())


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", '{"format": 9}', '{"format": 1}', '{"format": 1, "cells": [1]}']
)
def test_an_unreadable_baseline_is_exit_code_two(synthetic: SyntheticRun, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "baseline.json"
    if content is not None:
        path.write_text(content)
    folder, store = synthetic.write()
    with pytest.raises(BenchError, match=r"baseline\.json") as error:
        gate.check(folder, store, path)
    assert error.value.exit_code == BROKEN


def test_a_baseline_survives_its_file(synthetic: SyntheticRun, tmp_path: Path) -> None:
    folder, store = synthetic.write()
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps(gate.save_baseline(folder, store)))
    assert gate.check(folder, store, path).exit_code == OK


def test_a_baseline_cell_says_all_that_makes_it_comparable(baseline: dict[str, Any]) -> None:
    cell = next(c for c in baseline["cells"] if c["metric"] == "wall" and c["variant"] == "tiny")
    for name in (
        "value",
        "unit",
        "direction",
        "aggregate",
        "ok",
        "failed",
        "skipped",
        "case_set",
        "data_digest",
        "sandbox",
    ):
        assert cell[name] is not None, name
    assert (baseline["machine"], baseline["versions"]["torch"]) == ("b3c1a0ffeedd0011", "2.13.0")


def test_every_form_of_the_result_says_the_same(synthetic: SyntheticRun, baseline: dict[str, Any]) -> None:
    from rich.console import Console

    synthetic.scale("accuracy", "tiny", "dsc", 0.5)
    result = checked(synthetic, baseline)
    out = io.StringIO()
    Console(file=out, width=160).print(gate.to_terminal(result))
    for shown in (gate.to_text(result), gate.to_markdown(result), out.getvalue()):
        assert "regression (exit 1)" in shown
        assert "tiny · default · phantoms" in shown
        assert "under-trained, 120 steps" in shown
    data = json.loads(gate.to_json(result))
    assert (data["exit_code"], data["compared"]) == (1, result.compared)
    assert {f["verdict"] for f in data["findings"]} == {"regression", "ok", "not compared"}


def crash_one_case(synthetic: SyntheticRun, variant: str, every: bool = False) -> None:
    from dataclasses import replace

    digest = synthetic.job("accuracy", variant)["digest"]
    name = synthetic.cases[0][0]
    synthetic.records[digest] = [
        replace(r, value=None, status="crashed", reason="it broke") if every or r.case == name else r
        for r in synthetic.records[digest]
    ]


@pytest.mark.parametrize("every", [False, True])
def test_a_model_that_breaks_is_broken_on_other_data_too(
    synthetic: SyntheticRun, baseline: dict[str, Any], every: bool
) -> None:
    synthetic.data["provenance"]["datasets"]["phantoms"]["digest"] = "f" * 64
    crash_one_case(synthetic, "tiny", every)
    result = checked(synthetic, baseline)
    assert result.exit_code == BROKEN
    assert verdict(result, "dsc", "tiny · default · phantoms")[0] == "broken"
    assert verdict(result, "dsc", "dummy · default · phantoms")[0] == "not compared"


def test_a_job_that_crashes_on_other_data_is_broken(synthetic: SyntheticRun, baseline: dict[str, Any]) -> None:
    synthetic.data["provenance"]["datasets"]["phantoms"]["digest"] = "f" * 64
    job = synthetic.job("accuracy", "tiny")
    job |= {"state": "failed", "reason": "it broke"}
    del synthetic.records[job["digest"]]
    assert checked(synthetic, baseline).exit_code == BROKEN


def test_a_gate_that_compares_nothing_cannot_pass_beside_one_that_does(
    synthetic: SyntheticRun, baseline: dict[str, Any]
) -> None:
    synthetic.data["provenance"]["datasets"]["phantoms"]["digest"] = "f" * 64
    synthetic.data["gates"] = [synthetic.data["gates"][0], {"metric": "params", "max_drop": 0}]
    result = checked(synthetic, baseline)
    assert result.compared > 0
    assert result.exit_code == NOTHING
    assert any("dsc (strict) of * compares nothing (measured on other data" in r for r in result.remarks)


def test_a_gate_whose_baseline_holds_no_value_cannot_pass(synthetic: SyntheticRun, baseline: dict[str, Any]) -> None:
    synthetic.data["gates"].append({"metric": "dsc", "variants": ["swiftmedsam_v1"], "max_drop": 0.1})
    result = checked(synthetic, baseline)
    assert result.exit_code == NOTHING
    assert any("the baseline has no value" in remark for remark in result.remarks)


def test_a_lost_seed_is_broken_though_the_mean_stays(synthetic: SyntheticRun) -> None:
    job = synthetic.job("accuracy", "tiny")
    second = {**job, "seed": 1, "digest": "1" * 64}
    synthetic.data["jobs"].append(second)
    synthetic.replace("1" * 64, synthetic.records[job["digest"]])
    before = baseline_of(load_run(*synthetic.write()))
    second |= {"state": "failed", "reason": "it broke", "digest": "2" * 64}
    result = compare(load_run(*synthetic.write()), before)
    assert result.exit_code == BROKEN
    assert (
        verdict(result, "dsc", "tiny · default · phantoms")[1]
        == "seeds without a value: 1, in the baseline 0: it broke"
    )
