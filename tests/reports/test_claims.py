"""Measured ratios to LiteMedSAM stand beside the ratios that papers claim, where a run has the published workload."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from harness.errors import BenchError
from harness.schema import Record
from reports import claims, html, tables, views
from reports.frame import Run, load_run
from reports.tables.claims import CLAIM_COLUMNS, GEOMETRIC_MEAN, claims_of, difference
from tests.reports.synthetic import SyntheticRun

PLAIN = {"backend": "torch", "precision": "fp32", "threads": 2, "allocator": "system", "execution": "reference"}
DEPLOYMENTS = {
    "reference": PLAIN,
    "fused": PLAIN | {"fuse": True},
    "fast": PLAIN | {"backend": "onnxruntime", "execution": "sweep"},
}
SECONDS = {"3DBox_CT_0566": 100.0, "2DBox_US_0525": 2.0}


class WorkloadRun(SyntheticRun):
    """A made-up run that measured two cases of the published workload."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.data["resolved"] = {"deployments": DEPLOYMENTS}
        cases = {"digest": "0f" * 32, "kind": "workload", "cases": 14, "description": "small scale, seed 3"}
        self.data["provenance"]["datasets"]["published"] = cases
        defaults = {"set": {}, "summary": "", "source": "", "tiny": False, "base": None, "ablation": None}
        for name in ("rep_medsam", "swin_litemedsam"):
            self.data["variants"][name] = defaults | {"name": name, "family": name}
        self.timed("litemedsam", "reference", 1.0)
        self.timed("swiftmedsam_v2", "reference", 0.8)
        self.timed("swin_litemedsam", "reference", 0.7)
        self.timed("rep_medsam", "reference", 0.6)
        self.timed("rep_medsam", "fused", 0.5)

    def timed(
        self,
        variant: str,
        deployment: str | None,
        factor: float,
        sandbox: str = "process",
        start: float | None = None,
        **failing: str,
    ) -> None:
        """Three repeats of every case, the middle one ``factor`` × `SECONDS`; ``failing``: case → status.

        ``start``: seconds of starting the process, which are part of the wall time; without it no phase is recorded.
        """
        records = []
        for case, seconds in SECONDS.items():
            about: dict[str, Any] = {"case": case, "ndim": int(case[0]), "protocol": "strict"}
            if case in failing:
                why = {"status": failing[case], "reason": "killed at the memory limit"}
                records.append(Record("wall", None, repeat=0, **why, **about))
                continue
            for repeat, wobble in enumerate((0.9, 1.0, 7.0)):
                work = wobble * factor * seconds
                records.append(Record("wall", work + (start or 0), repeat=repeat, **about))
                shares = {"imports": start, "read": 0.1 * work, "encode": 0.9 * work} if start is not None else {}
                records += [Record("phase", value, phase=p, repeat=repeat, **about) for p, value in shares.items()]
        self.add(variant, deployment, records, sandbox)

    def add(
        self, variant: str, deployment: str | None, records: list[Record] | None, sandbox: str = "process", **more: Any
    ) -> None:
        """A job with these records, in place of one there was."""
        where = {"deployment": deployment, "dataset": "published", "sandbox": sandbox}
        digest = self._add("runtime", variant, records, settings={"protocol": "strict"}, **where, **more)
        jobs = self.data["jobs"]
        jobs[:] = [job for job in jobs[:-1] if job["digest"] != digest] + jobs[-1:]


@pytest.fixture
def workload(tmp_path: Path) -> WorkloadRun:
    return WorkloadRun(tmp_path)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load_run(*WorkloadRun(tmp_path_factory.mktemp("claims")).write())


def means(run: Run) -> pd.DataFrame:
    table = tables.claims(run)
    return table[table["case"] == GEOMETRIC_MEAN].set_index(["variant", "deployment"])


def test_claims_are_quotients_of_one_papers_own_figures() -> None:
    found = {(claim.variant, claim.fused): claim for claim in claims_of()}
    assert set(found) == {
        ("swiftmedsam_v1", False),
        ("swiftmedsam_v2", False),
        ("rep_medsam", False),
        ("rep_medsam", True),
        ("efficientvit_sam_l0", False),
    }
    assert all(len(claim.ratios) == 14 for claim in found.values())
    assert found["rep_medsam", True].ratios["3DBox_CT_0566"] == pytest.approx(194.22 / 436.97)
    assert found["rep_medsam", False].ratios["3DBox_CT_0566"] == pytest.approx(247.97 / 436.97)
    assert found["swiftmedsam_v2", False].ratios["2DBox_Microscope_0016"] == pytest.approx(267.1 / 257.5)
    assert found["efficientvit_sam_l0", False].ratios["2DBox_US_0525"] == pytest.approx(0.11 / 0.40)


def test_the_papers_geometric_means_come_out() -> None:
    """Over all 14 cases; Gray's Anatomy says "on average three times faster"."""
    expected = {"SwiftMedSAMv1": 0.75, "SwiftMedSAMv2": 0.71, "w/o": 0.65, "w/": 0.55, "Proposed": 0.37}
    for claim in claims_of():
        mean = math.prod(claim.ratios.values()) ** (1 / len(claim.ratios))
        assert round(mean, 2) == expected[claim.source.split("column ")[1].strip("'")]


def test_a_file_that_holds_no_published_runtimes_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "runtime.yaml"
    file.write_text("tables: [{source: a}]")
    with pytest.raises(BenchError, match=r"runtime\.yaml: cannot be read as published runtimes"):
        claims_of(file)


def test_a_ratio_is_of_medians_in_the_same_sandbox_and_deployment(measured: Run) -> None:
    table = tables.claims(measured)
    swift = table[table["variant"] == "swiftmedsam_v2"].set_index("case")
    assert swift.loc["3DBox_CT_0566", "wall"] == pytest.approx(80)
    assert swift.loc["3DBox_CT_0566", "baseline"] == pytest.approx(100)
    assert swift.loc["3DBox_CT_0566", "ratio"] == pytest.approx(0.8)
    assert swift.loc["3DBox_CT_0566", "claimed"] == pytest.approx(331.9 / 499.2)
    assert swift.loc["2DBox_US_0525", "claimed"] == pytest.approx(1.6 / 1.8)


def test_the_mean_is_geometric_and_the_claimed_one_over_the_same_cases(workload: WorkloadRun) -> None:
    workload.timed("swiftmedsam_v2", "reference", 0.4, **{"2DBox_US_0525": "oom"})
    row = means(load_run(*workload.write())).loc[("swiftmedsam_v2", "reference")]
    assert (row["cases"], row["status"]) == (1, "ok")
    assert row["ratio"] == pytest.approx(0.4)
    assert row["claimed"] == pytest.approx(331.9 / 499.2)
    assert row["reason"] == "1 of 2 cases missing: killed at the memory limit"


def test_both_cases_make_the_mean(measured: Run) -> None:
    row = means(measured).loc[("swiftmedsam_v2", "reference")]
    assert row["cases"] == 2
    assert row["ratio"] == pytest.approx(0.8)
    assert row["claimed"] == pytest.approx(math.sqrt(331.9 / 499.2 * 1.6 / 1.8))


def test_a_fused_row_is_held_against_the_claim_of_the_fused_model_and_litemedsam_as_it_is(measured: Run) -> None:
    row = means(measured).loc[("rep_medsam", "fused")]
    assert row["ratio"] == pytest.approx(0.5)
    assert row["claimed"] == pytest.approx(math.sqrt(194.22 / 436.97 * 0.37 / 0.88))
    assert row["baseline_deployment"] == "reference"
    unfused = means(measured).loc[("rep_medsam", "reference")]
    assert unfused["claimed"] == pytest.approx(math.sqrt(247.97 / 436.97 * 0.47 / 0.88))


def test_ratios_are_of_the_work_as_well_and_the_word_is_for_them(workload: WorkloadRun) -> None:
    """Ten seconds of starting draw the whole run of the short case to 1; the work is what a script's clock measures."""
    for variant, factor in (("litemedsam", 1.0), ("swiftmedsam_v2", 0.7)):
        workload.timed(variant, "reference", factor, start=10)
    run = load_run(*workload.write())
    short = tables.claims(run).set_index(["variant", "case"]).loc[("swiftmedsam_v2", "2DBox_US_0525")]
    assert (short["work"], short["baseline_work"]) == (pytest.approx(1.4), pytest.approx(2.0))
    assert short["work_ratio"] == pytest.approx(0.7)
    assert short["ratio"] == pytest.approx(11.4 / 12)
    mean = means(run).loc[("swiftmedsam_v2", "reference")]
    assert mean["work_ratio"] == pytest.approx(0.7)
    assert mean["difference"] == difference(0.7, mean["claimed"]) == "as claimed, within 10 %"
    assert mean["difference_of"] == "work"
    assert short["difference"] == "faster than claimed, by a factor of 1.27"
    assert difference(short["ratio"], short["claimed"]) == "as claimed, within 10 %"
    section = views.claim_table(tables.claims(run))
    cells = next(r for r in section.rows if r[0].text == "swiftmedsam_v2")
    assert [cell.text for cell in cells[2:4]] == ["×0.70", f"×{mean['ratio']:.2f}"]
    assert not any("swiftmedsam_v2" in said and "phases were not recorded" in said for said in section.remarks)


def test_where_phases_are_missing_the_word_is_for_the_whole_run_and_the_table_says_so(measured: Run) -> None:
    row = means(measured).loc[("swiftmedsam_v2", "reference")]
    assert math.isnan(row["work_ratio"])
    assert (row["difference"], row["difference_of"]) == (difference(0.8, row["claimed"]), "wall")
    remark = next(r for r in views.claim_table(tables.claims(measured)).remarks if "phases were not recorded" in r)
    assert "swiftmedsam_v2 · reference · process" in remark
    assert "swin_litemedsam" not in remark


@pytest.mark.parametrize(
    "changed",
    [
        {"backend": "onnxruntime"},
        {"precision": "bf16"},
        {"allocator": "keep-pages"},
        {"execution": "sweep"},
        {"delay": 0.1},
        {"channels_last": True},
        {"compile": True},
        {"fold_decoder": True},
        {"fuse": True},
    ],
)
def test_only_what_is_executed_as_the_authors_scripts_has_a_word(
    workload: WorkloadRun, changed: dict[str, Any]
) -> None:
    workload.data["resolved"]["deployments"] = {**DEPLOYMENTS, "other": PLAIN | changed}
    for variant, factor in (("litemedsam", 1.0), ("swiftmedsam_v2", 0.8)):
        workload.timed(variant, "other", factor)
    found = means(load_run(*workload.write()))
    row = found.loc[("swiftmedsam_v2", "other")]
    assert row["ratio"] == pytest.approx(0.8)
    assert row["claimed"] > 0
    assert (row["difference"], row["difference_of"]) == ("", "")
    assert found.loc[("swiftmedsam_v2", "reference"), "difference"]


def test_a_deployment_without_litemedsam_has_a_row_that_says_so(workload: WorkloadRun) -> None:
    workload.timed("swiftmedsam_v2", "fast", 0.1)
    table = tables.claims(load_run(*workload.write()))
    (row,) = table[table["deployment"] == "fast"].to_dict("records")
    assert (row["case"], row["cases"], row["status"]) == (GEOMETRIC_MEAN, 0, "skipped")
    assert row["reason"] == "LiteMedSAM was not measured under this deployment in this sandbox"
    assert math.isnan(row["ratio"])
    shown = next(r for r in views.claim_table(table).rows if r[0].small == "fast")
    assert (shown[2].status, shown[2].reason) == ("skipped", row["reason"])


@pytest.mark.parametrize(("variant", "told"), [("swiftmedsam_v2", ""), ("litemedsam", "LiteMedSAM: ")])
def test_a_job_that_measured_nothing_keeps_its_row(workload: WorkloadRun, variant: str, told: str) -> None:
    workload.timed("litemedsam", "fast", 1.0)
    workload.timed("swiftmedsam_v2", "fast", 0.1)
    workload.add(variant, "fast", None, state="failed", reason="the engine went away")
    jobs = [j for j in workload.data["jobs"] if (j["variant"], j["deployment"]) == (variant, "fast")]
    for job in jobs:
        workload.records.pop(job["digest"], None)
    row = means(load_run(*workload.write())).loc[("swiftmedsam_v2", "fast")]
    assert (row["status"], row["reason"]) == ("crashed", f"{told}the engine went away")


def test_an_image_that_is_not_ours_stands_beside_litemedsam_as_the_scripts_run_it_and_has_no_claim(
    workload: WorkloadRun,
) -> None:
    image = workload.data["variants"]["litemedsam"] | {"family": "image"}
    for label in ("theirs", "swiftmedsam_v1"):
        workload.data["variants"][label] = image | {"name": label}
        workload.timed(label, None, 0.25)
    workload.data["variants"]["litemedsam-image"] = image | {"name": "litemedsam"}
    workload.timed("litemedsam-image", None, 0.5)
    run = load_run(*workload.write())
    found = tables.claims(run)
    mean = found[found["case"] == GEOMETRIC_MEAN].set_index("variant")
    assert mean.loc["theirs", "ratio"] == pytest.approx(0.25)
    assert mean.loc["theirs", "baseline_deployment"] == "reference"
    assert (mean.loc["swiftmedsam_v1", "source"], mean.loc["swiftmedsam_v1", "difference"]) == ("", "")
    assert mean.loc["litemedsam-image", "ratio"] == pytest.approx(0.5)


def test_sandboxes_are_kept_apart(workload: WorkloadRun) -> None:
    workload.timed("litemedsam", "reference", 2.0, sandbox="docker")
    workload.timed("swiftmedsam_v2", "reference", 1.0, sandbox="docker")
    found = tables.claims(load_run(*workload.write()))
    mean = found[(found["case"] == GEOMETRIC_MEAN) & (found["variant"] == "swiftmedsam_v2")].set_index("sandbox")
    assert mean.loc["docker", "ratio"] == pytest.approx(0.5)
    assert mean.loc["process", "ratio"] == pytest.approx(0.8)


def test_a_case_that_failed_for_litemedsam_says_so(workload: WorkloadRun) -> None:
    workload.timed("litemedsam", "reference", 1.0, **{"3DBox_CT_0566": "timeout"})
    table = tables.claims(load_run(*workload.write()))
    row = table[(table["variant"] == "swiftmedsam_v2") & (table["case"] == "3DBox_CT_0566")].iloc[0]
    assert math.isnan(row["ratio"])
    assert (row["status"], row["reason"]) == ("timeout", "LiteMedSAM: killed at the memory limit")
    assert row["difference"] == ""


def test_a_variant_without_a_published_figure_has_a_ratio_and_no_claim(measured: Run) -> None:
    row = means(measured).loc[("swin_litemedsam", "reference")]
    assert row["ratio"] == pytest.approx(0.7)
    assert math.isnan(row["claimed"])
    assert (row["difference"], row["source"]) == ("", "")
    shown = next(r for r in views.claim_table(tables.claims(measured)).rows if r[0].text == "swin_litemedsam")
    assert [cell.text for cell in shown[2:6]] == ["–", "×0.70", "–", "–"]
    assert shown[-1].text == "no paper, of these cases"


@pytest.mark.parametrize(
    ("ratio", "claimed", "said"),
    [
        (0.55, 0.52, "as claimed, within 10 %"),
        (0.9, 0.6, "slower than claimed, by a factor of 1.50"),
        (0.3, 0.6, "faster than claimed, by a factor of 2.00"),
        (1.2, 0.6, "slower than claimed, by a factor of 2.00; claimed to be faster than LiteMedSAM and is not"),
        (0.5, 1.5, "faster than claimed, by a factor of 3.00; faster than LiteMedSAM, which is not claimed"),
        (float("nan"), 0.5, ""),
        (0.5, float("nan"), ""),
    ],
)
def test_the_difference_is_told_in_plain_words(ratio: float, claimed: float, said: str) -> None:
    assert difference(ratio, claimed) == said


def test_a_run_without_the_workload_shows_nothing_of_it(run: Run, page: str) -> None:
    assert tables.claims(run).empty
    assert "Beside what the papers claim" not in page
    assert claims.rows(run) == []


def test_the_page_shows_means_and_every_case(measured: Run) -> None:
    page = html.render(measured)
    assert "Beside what the papers claim" in page
    assert 'id="t-claims"' in page
    assert 'id="t-claim-cases"' in page
    assert "Rep-MedSAM paper, Table 6" in page
    table = views.claim_table(tables.claims(measured))
    assert len(table.rows) == 4
    assert table.remarks[0] == "Cases of published: small scale, seed 3"
    assert any("630.2 s" in remark for remark in table.remarks)
    assert len(views.claim_case_table(tables.claims(measured)).rows) == 8


def test_terminal_and_markdown_show_the_means(measured: Run) -> None:
    found = claims.rows(measured)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(claims.to_terminal(found))
    for shown in (console.export_text(), claims.to_markdown(found)):
        assert "swin_litemedsam" in shown
        assert "×0.80" in shown
        assert "within 10 %" in shown or "slower than claimed" in shown
        assert "below 1 is faster" in shown
        assert "Cases of published: small scale, seed 3" in shown


def test_terminal_and_markdown_show_the_warning_of_a_row_and_the_papers_remark(measured: Run) -> None:
    found = [row | {"flag": "mask agreement 0.9000, under 0.99"} for row in claims.rows(measured)]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(claims.to_terminal(found))
    for shown in (console.export_text(), claims.to_markdown(found)):
        assert "mask agreement 0.9000" in " ".join(shown.split())
        assert "Rep-MedSAM paper, Table 6: without and with structural re-parameterisation" in " ".join(shown.split())


def test_no_word_is_cut_off_on_a_narrow_terminal(measured: Run) -> None:
    for said in (difference(0.55, 0.52), difference(1.2, 0.6), difference(0.5, 1.5)):
        found = [row | {"difference": said} for row in claims.rows(measured)]
        console = Console(width=80, record=True, file=io.StringIO())
        console.print(claims.to_terminal(found))
        table = console.export_text().partition("Cases of published")[0]
        assert set(said.split()) <= set(table.split())


def test_csv_and_json_hold_every_case_unrounded(measured: Run) -> None:
    found = claims.rows(measured)
    read = list(csv.DictReader(io.StringIO(claims.to_csv(found))))
    assert tuple(read[0]) == CLAIM_COLUMNS
    assert len(read) == 4 * 3
    assert float(read[0]["claimed"]) == pytest.approx(331.9 / 499.2)
    assert json.loads(claims.to_json(found))["rows"][0]["case"] == "3DBox_CT_0566"
