"""How far deployments are from eager torch, and where a reader is warned of it."""

from __future__ import annotations

import csv
import io
import json
from itertools import product
from typing import Any

import pandas as pd
import pytest

from harness.schema import Record
from reports import board, deployments, fidelity, html, leaderboard, tables
from reports.frame import Run, load_run
from reports.runfile import DeploymentInfo
from reports.tables.fidelity import notes
from tests.reports.deployed import FROZEN, NO_FUSE, NO_GRAPH, WEIGHTS, DeployedRun, comparison, unsupported

UNDER = "mask agreement 0.9712, under 0.99"
SLOWER = "slower than eager torch, ×1.32"
BOTH = f"{UNDER}; {SLOWER}"


def row_of(run: Run, variant: str, deployment: str) -> dict[str, Any]:
    table = tables.fidelity(run)
    mine = table[(table["variant"] == variant) & (table["deployment"] == deployment)]
    assert len(mine) == 1
    return dict(mine.iloc[0])


def compared(deployed: DeployedRun, agreement: float, ratio: float) -> str:
    """The warning of one deployment with these values."""
    digest = deployed.job("deploy", "tiny", deployment="ort-fp32")["digest"]
    deployed.replace(digest, comparison(agreement, agreement, 0.1, ratio, int8=False))
    return notes(load_run(*deployed.write())).get(("tiny", "ort-fp32"), "")


def test_a_row_says_agreement_logits_time_files_and_weights(deployed_run: Run) -> None:
    row = row_of(deployed_run, "litemedsam", "ort-int8")
    assert (row["agreement"], row["worst"], row["difference"]) == (0.97124, 0.8123, 1.84)
    assert (row["ratio"], row["ratio_encode"], row["ratio_decode"]) == (1.32, 1.32, 0.66)
    assert (row["backend"], row["settings"], row["threads"]) == ("onnxruntime", "dynamic int8", 2)
    assert (row["images"], row["objects"], row["file_size"]) == (11, 24, 39.4e6 / 3.6)
    assert (row["weights"], row["training"]) == (WEIGHTS["litemedsam"], "trained here, 12 steps")
    assert (row["note"], row["status"]) == ("under-trained, 12 steps", "ok")


def test_a_quantisation_says_what_it_reached_part_by_part(deployed_run: Run) -> None:
    row = row_of(deployed_run, "litemedsam", "ort-int8")
    assert (row["layers"], row["layers_of"], row["share"]) == (87, 120, 0.362)
    assert row["layers_by_part"] == "image encoder 40, prompt encoder 0, mask decoder 47"
    assert row["share_by_part"] == "image encoder 34 %, prompt encoder 0 %, mask decoder 91 %"
    assert pd.isna(row_of(deployed_run, "litemedsam", "ort-fp32")["layers"])


def test_the_reference_is_the_first_row_of_a_variant_that_was_compared(deployed_run: Run) -> None:
    table = tables.fidelity(deployed_run)
    references = table[table["reference"]]
    assert list(references["variant"]) == ["litemedsam", "tiny", "tiny-depth2"]
    first = table.groupby("variant", sort=False).first()
    assert first.loc["litemedsam", "deployment"] == "default, keep pages"
    assert set(references["agreement"]) == {1.0}
    assert set(references["ratio"]) == {1.0}
    assert not first.loc["dummy", "reference"], "nothing was compared with it"


@pytest.mark.parametrize(
    ("variant", "deployment", "status", "reason"),
    [
        ("dummy", "ort-int8", "unsupported", NO_GRAPH),
        ("litemedsam", "fused", "unsupported", NO_FUSE),
        ("swiftmedsam_v2", "ort-fp32", "crashed", FROZEN),
    ],
)
def test_what_does_not_apply_or_failed_stays_with_its_reason(
    deployed_run: Run, variant: str, deployment: str, status: str, reason: str
) -> None:
    row = row_of(deployed_run, variant, deployment)
    assert (row["status"], row["reason"]) == (status, reason)
    assert pd.isna(row["agreement"])


@pytest.mark.parametrize(
    ("agreement", "ratio", "said"),
    [
        (0.99, 1.05, ""),
        (0.98996, 1.0, "mask agreement 0.9899, under 0.99"),
        (1.0, 1.0501, "slower than eager torch, ×1.05"),
        (0.5, 12.04, "mask agreement 0.5000, under 0.99; slower than eager torch, ×12.0"),
    ],
)
def test_the_rule_is_one_agreement_and_one_time(agreement: float, ratio: float, said: str) -> None:
    assert deployments.flag(agreement, ratio) == said


def test_what_was_not_measured_is_no_warning_of_the_rule() -> None:
    assert deployments.flag(None, None) == deployments.flag(float("nan"), float("nan")) == ""


def test_notes_name_every_deployment_with_a_warning_and_no_other(deployed_run: Run) -> None:
    assert notes(deployed_run) == {
        ("litemedsam", "ort-int8"): BOTH,
        ("tiny", "ort-fp32"): "slower than eager torch, ×1.41",
        ("tiny", "ort-int8"): "mask agreement 0.9899, under 0.99",
    }


@pytest.mark.parametrize(
    ("agreement", "ratio", "said"), [(0.991, 0.9, ""), (0.9, 0.9, "mask agreement 0.9000, under 0.99")]
)
def test_a_warning_follows_the_records(deployed: DeployedRun, agreement: float, ratio: float, said: str) -> None:
    assert compared(deployed, agreement, ratio) == said


def test_of_several_seeds_the_worst_decides(deployed: DeployedRun) -> None:
    job = deployed.job("deploy", "tiny", deployment="ort-fp32")
    deployed.data["jobs"].append({**job, "seed": 1, "digest": "5" * 64})
    deployed.replace("5" * 64, comparison(0.9, 0.8, 1.0, 1.2, int8=False))
    run = load_run(*deployed.write())
    said = notes(run)["tiny", "ort-fp32"]
    assert said == "mask agreement 0.9000, under 0.99; slower than eager torch, ×1.41"
    table = tables.fidelity(run)
    assert list(table.loc[table["deployment"] == "ort-fp32", "seed"][table["variant"] == "tiny"]) == [0, 1]


def test_a_deployment_that_is_measured_and_compared_with_nothing_says_so(deployed: DeployedRun) -> None:
    digest = deployed.job("deploy", "tiny", deployment="ort-fp32")["digest"]
    deployed.data["jobs"] = [j for j in deployed.data["jobs"] if j["digest"] != digest]
    run = load_run(*deployed.write())
    row = row_of(run, "tiny", "ort-fp32")
    assert (row["status"], row["reason"]) == ("skipped", deployments.NOT_COMPARED)
    assert notes(run)["tiny", "ort-fp32"] == "mask agreement not measured"


def test_an_eager_deployment_with_other_memory_settings_needs_no_comparison(deployed_run: Run) -> None:
    table = tables.fidelity(deployed_run)
    assert "keep pages" not in set(table.loc[~table["reference"], "deployment"])


@pytest.mark.parametrize(
    ("table", "rows"),
    [("accuracy_summary", 4), ("accuracy_by_modality", 44), ("runtime_summary", 1), ("runtime_cases", 8)],
)
def test_every_table_of_numbers_carries_the_warning_in_every_row(deployed_run: Run, table: str, rows: int) -> None:
    found = getattr(tables, table)(deployed_run)
    mine = found[(found["variant"] == "litemedsam") & (found["deployment"] == "ort-int8")]
    assert list(mine["flag"]) == [BOTH] * rows
    plain = found[(found["variant"] == "litemedsam") & (found["deployment"] == "default")]
    assert set(plain["flag"]) == {""}


def test_phases_ablations_and_problems_carry_it_too(deployed_run: Run) -> None:
    phases = tables.phases(deployed_run)
    assert set(phases.loc[phases["deployment"] == "ort-int8", "flag"]) == {
        BOTH,
        "mask agreement 0.9899, under 0.99",
        "",
    }
    ablations = tables.ablations(deployed_run)
    int8 = ablations[ablations["deployment"] == "ort-int8"]
    assert set(int8["flag"]) == {""}
    assert set(int8["base_flag"]) == {"mask agreement 0.9899, under 0.99"}
    problems = tables.problems(deployed_run)
    lost = problems[(problems["variant"] == "litemedsam") & (problems["deployment"] == "ort-int8")]
    assert set(lost["flag"]) == {BOTH}


def test_an_impossible_measurement_is_told_once_as_unsupported(deployed_run: Run) -> None:
    """The accuracy job says so case by case; the runtime job was left out and says something else."""
    frame = deployed_run.frame
    mine = frame[(frame["variant"] == "litemedsam") & (frame["deployment"] == "fused") & (frame["kind"] != "deploy")]
    assert set(mine["kind"]) == {"accuracy", "runtime"}
    assert set(zip(mine["status"], mine["reason"], strict=True)) == {("unsupported", NO_FUSE)}
    assert mine["case"].isna().all()


def test_an_impossible_row_has_no_score_and_no_rank(deployed_run: Run) -> None:
    row = next(r for r in board.rows(deployed_run) if r.deployment == "fused")
    assert (row.status, row.dsc, row.rank, row.failed) == ("unsupported", None, None, 0)
    assert board.problem(row) == f"unsupported: {NO_FUSE}"


def test_cases_that_are_unsupported_beside_others_still_count_as_failed(deployed: DeployedRun) -> None:
    job = deployed.job("accuracy", "tiny", deployment="ort-fp32")
    about: dict[str, Any] = {"modality": "CT", "ndim": 3, "protocol": "strict", "object": 1}
    lost = Record("dsc", case="b", status="unsupported", reason="3D is not supported", **about)
    deployed.replace(job["digest"], [Record("dsc", 0.8, case="a", **about), lost])
    row = next(r for r in board.rows(load_run(*deployed.write())) if (r.variant, r.deployment) == ("tiny", "ort-fp32"))
    assert (row.dsc, row.failed) == (0.4, 1)


def test_times_of_an_unknown_machine_are_withheld_and_agreement_is_not(deployed: DeployedRun) -> None:
    deployed.data["provenance"]["machine"] = None
    run = load_run(*deployed.write())
    row = row_of(run, "litemedsam", "ort-int8")
    assert row["agreement"] == 0.97124
    assert pd.isna(row["ratio"])
    assert "does not state the machine" in row["reason"]
    assert notes(run)["litemedsam", "ort-int8"] == UNDER


def test_a_deploy_job_without_records_is_a_row_for_every_metric(deployed: DeployedRun) -> None:
    job = deployed.job("deploy", "tiny", deployment="ort-fp32")
    deployed.records.pop(job["digest"])
    job |= {"state": "pending"}
    run = load_run(*deployed.write())
    rows = run.frame[run.frame["job"] == job["digest"]]
    assert list(rows["metric"]) == ["mask_agreement", "logit_difference", "speed_ratio", "file_size"]
    assert set(rows["reason"]) == {"the run has not reached this job"}


def test_details_that_are_not_what_is_expected_are_left_out(deployed: DeployedRun) -> None:
    digest = deployed.job("deploy", "tiny", deployment="ort-fp32")["digest"]
    odd = [Record("quantised_layers", 3.0, detail=d) for d in ("no json", "[1]", '{"of": "many", "by_part": [1]}')]
    deployed.replace(digest, [Record("mask_agreement", 1.0, detail="also none"), *odd])
    row = row_of(load_run(*deployed.write()), "tiny", "ort-fp32")
    assert (row["agreement"], row["layers"], row["layers_by_part"], row["weights"]) == (1.0, 3, "", "")
    assert pd.isna(row["layers_of"])


def test_a_run_that_does_not_describe_its_deployments_still_compares_them(deployed: DeployedRun) -> None:
    del deployed.data["resolved"]
    run = load_run(*deployed.write())
    row = row_of(run, "litemedsam", "ort-int8")
    assert (row["backend"], row["settings"], row["flag"]) == ("", "", BOTH)
    table = tables.fidelity(run)
    assert table.loc[table["reference"], "deployment"].isna().all()


def test_the_reference_is_the_one_the_suite_means() -> None:
    from pydantic import ValidationError

    from harness.config import Deployment

    fields: dict[str, tuple[Any, ...]] = {
        "backend": ("torch", "onnxruntime", "openvino"),
        "precision": ("fp32", "bf16", "int8"),
        **dict.fromkeys(("fuse", "compile", "channels_last"), (False, True)),
    }
    tried = 0
    for values in product(*fields.values()):
        try:
            suite = Deployment(**dict(zip(fields, values, strict=True)))
        except ValidationError:
            continue
        tried += 1
        assert DeploymentInfo.model_validate(suite.model_dump(mode="json")).plain == suite.plain
    assert tried > 20


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "fp32"),
        ({"precision": "int8"}, "dynamic int8"),
        ({"precision": "int8", "quantisation": "static"}, "static int8"),
        ({"precision": "bf16", "channels_last": True, "compile": True}, "bf16, compiled ahead, channels last"),
        ({"fuse": True}, "fp32, fused"),
    ],
)
def test_a_deployment_is_described_in_words(fields: dict[str, Any], words: str) -> None:
    assert DeploymentInfo(**fields).words == words


def test_the_leaderboard_carries_the_warning_in_every_form(deployed_run: Run) -> None:
    from rich.console import Console

    rows = board.rows(deployed_run)
    flagged = [(r.variant, r.deployment) for r in rows if r.flag]
    assert flagged == [("litemedsam", "ort-int8"), ("tiny", "ort-fp32"), ("tiny", "ort-int8")]
    markdown = leaderboard.to_markdown(rows)
    line = next(part for part in markdown.splitlines() if "litemedsam · ort-int8 |" in part)
    assert f"under-trained, 12 steps; {BOTH}" in line
    assert BOTH in {r["flag"] for r in csv.DictReader(io.StringIO(leaderboard.to_csv(rows)))}
    assert BOTH in {r["flag"] for r in json.loads(leaderboard.to_json(rows))["rows"]}
    out = io.StringIO()
    Console(file=out, width=80).print(leaderboard.to_terminal(rows))
    words = " ".join(out.getvalue().split())
    for part in ("mask agreement 0.9712,", "slower than eager", "torch, ×1.32", deployments.RULE):
        assert part in words


def test_the_rule_stands_below_a_leaderboard_only_where_it_is_used(run: Run, deployed_run: Run) -> None:
    assert leaderboard.caption(board.rows(run)) == leaderboard.CAPTION
    assert leaderboard.caption(board.rows(deployed_run)).endswith(deployments.RULE)


def test_rows_that_miss_the_same_share_a_line(deployed: DeployedRun) -> None:
    for name in ("ort-x", "ort-y"):
        deployed.data["resolved"]["deployments"][name] = {"backend": "onnxruntime"}
        deployed.impossible("litemedsam", name, deployed.deploy("litemedsam", name, unsupported(NO_FUSE)))
    lines = board.problem_lines(board.rows(load_run(*deployed.write())))
    said = "litemedsam · fused, litemedsam · ort-x and litemedsam · ort-y: unsupported: " + NO_FUSE
    assert said in lines


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_every_deployment_its_warning_and_its_reason(deployed_run: Run, width: int) -> None:
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=width).print(fidelity.to_terminal(fidelity.rows(deployed_run)))
    assert max(len(line) for line in out.getvalue().splitlines()) <= width
    words = " ".join(out.getvalue().split())
    for said in ("reference", "lowest 0.8123", "×1.32", "87 of 120", "36 %", FROZEN[:30], NO_FUSE, NO_GRAPH[:30]):
        assert said in words
    assert words.count("unsupported") >= 3


def test_markdown_csv_and_json_hold_every_row(deployed_run: Run) -> None:
    rows = fidelity.rows(deployed_run)
    lines = [line for line in fidelity.to_markdown(rows).splitlines() if line.startswith("| ")]
    assert len(lines) == len(rows) + 1
    int8 = next(line for line in lines if line.startswith("| litemedsam | ort-int8"))
    weights = WEIGHTS["litemedsam"][:12]
    for said in ("onnxruntime dynamic int8", "87 of 120 layers, 36 %", f"{weights} (trained here, 12 steps)", BOTH):
        assert said in int8
    read = list(csv.DictReader(io.StringIO(fidelity.to_csv(rows))))
    assert [float(r["agreement"]) for r in read if r["agreement"]] == [
        r["agreement"] for r in rows if r["agreement"] is not None
    ]
    assert {r["reason"] for r in read} >= {NO_FUSE, NO_GRAPH, FROZEN}
    assert {r["threads"] for r in read} == {"2"}
    data = json.loads(fidelity.to_json(rows))
    assert data["caption"] == fidelity.CAPTION
    assert data["rows"] == rows


def test_the_command_prints_leaderboard_and_deployments(deployed_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    from harness.commands.views import show_deployments, show_leaderboard

    show_leaderboard(deployed_run, "json")
    data = json.loads(capsys.readouterr().out)
    assert {row["status"] for row in data["deployments"]} == {"ok", "unsupported", "crashed"}
    show_leaderboard(deployed_run, "markdown")
    assert capsys.readouterr().out.count("**Deployments**") == 1
    show_leaderboard(deployed_run, "csv")
    assert len(list(csv.reader(io.StringIO(capsys.readouterr().out)))) == len(board.rows(deployed_run)) + 1
    show_deployments(deployed_run, "csv")
    assert capsys.readouterr().out.startswith("variant,deployment,seed,")


def test_a_run_without_other_deployments_has_no_such_table(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    from harness.commands.views import show_leaderboard

    assert tables.fidelity(run).empty
    show_leaderboard(run, "json")
    assert "deployments" not in json.loads(capsys.readouterr().out)


def test_a_run_that_only_compares_deployments_has_no_leaderboard(
    deployed: DeployedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    from harness.commands.views import show_leaderboard

    deployed.data["jobs"] = [j for j in deployed.data["jobs"] if j["kind"] in ("deploy", "train")]
    run = load_run(*deployed.write())
    assert board.rows(run) == []
    show_leaderboard(run, "markdown")
    assert capsys.readouterr().out.startswith("**Deployments**")
    show_leaderboard(run, "csv")
    assert capsys.readouterr().out.startswith("variant,deployment,seed,")
    show_leaderboard(run, "table")
    assert capsys.readouterr().out.startswith("Deployments")
    page = html.render(run)
    assert 'id="leaderboard"' not in page
    assert 'href="#leaderboard"' not in page
    assert 'id="deployments"' in page


def test_a_run_that_only_trains_has_no_leaderboard(deployed: DeployedRun, capsys: pytest.CaptureFixture[str]) -> None:
    from harness.commands.views import show_leaderboard

    deployed.data["jobs"] = [j for j in deployed.data["jobs"] if j["kind"] == "train"]
    run = load_run(*deployed.write())
    assert board.rows(run) == []
    show_leaderboard(run, "table")
    assert capsys.readouterr().out.startswith("No accuracy, complexity, runtime or latency was measured")
    assert 'href="#leaderboard"' not in html.render(run)


def test_a_variant_that_is_only_compared_beside_measured_ones_is_no_row_of_the_leaderboard(
    deployed: DeployedRun,
) -> None:
    only = ("deploy",)
    deployed.data["jobs"] = [j for j in deployed.data["jobs"] if j["variant"] != "tiny" or j["kind"] in only]
    run = load_run(*deployed.write())
    assert "tiny" not in {row.variant for row in board.rows(run)}
    assert "tiny" in set(tables.fidelity(run)["variant"])


def test_counts_stay_in_the_leaderboard_of_a_run_that_compares_deployments_beside(deployed: DeployedRun) -> None:
    deployed.data["jobs"] = [j for j in deployed.data["jobs"] if j["kind"] in ("deploy", "train", "complexity")]
    rows = board.rows(load_run(*deployed.write()))
    assert all(row.params and row.flops for row in rows if row.variant != "dummy")
    assert {row.variant for row in rows} >= {"litemedsam", "dummy"}
