"""Warm latency in reports: percentiles where n allows them, ratios, and orders that the allocator decides."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.commands.views import show_leaderboard
from harness.errors import BenchError
from harness.schema import Record
from reports import html, official, order, speed, tables, views
from reports import warm as reports_warm
from reports.frame import Run, load_run
from reports.leaderboard import rows as leaderboard_rows
from reports.tables.latency import COLUMNS, order_changes, ratios, reference_of
from reports.views.latency import order_words
from tests.reports.synthetic import SyntheticRun

DEPLOYMENTS: dict[str, dict[str, Any]] = {
    "keep": {"backend": "torch", "precision": "fp32", "allocator": "keep-pages"},
    "system": {"backend": "torch", "precision": "fp32", "allocator": "system"},
    "fused": {"backend": "torch", "precision": "fp32", "allocator": "keep-pages", "fuse": True},
}
# seconds of an encoding by deployment
SECONDS = {
    "litemedsam": {"keep": 0.72, "system": 1.20},
    "swin_litemedsam": {"keep": 0.74, "system": 0.80},
    "rep_medsam": {"keep": 0.56, "system": 0.64, "fused": 0.48},
}
WORK = 37_800_000_000


def rounds(seconds: float, n: int, threads: int = 2, gemm: float = 98e9, spread: float = 0.01) -> list[Record]:
    """The records of n rounds around a time; ``gemm``: speed of the matrix product, by which times scale as well."""
    records = []
    for i in range(n):
        taken = seconds * (1 + spread * (i / max(1, n - 1) - 0.5)) * 98e9 / gemm
        about: dict[str, Any] = {"threads": threads, "load": 1.0}
        for phase, value in (("encode", taken), ("decode", taken / 10)):
            records.append(Record("latency", value, phase=phase, repeat=i, detail=json.dumps(about)))
        about |= {"precision": "fp32", "library": "numpy 2.4.6", "size": 1536}
        records.append(Record("gemm_peak", gemm, repeat=i, detail=json.dumps(about)))
        share = WORK / (taken * gemm)
        records.append(Record("gemm_share", share, phase="encode", repeat=i, detail=json.dumps(about)))
        if i % 5 == 0:
            detail = json.dumps({"threads": threads, "images": min(5, n - i)})
            records.append(Record("throughput", 1 / taken, phase="encode", repeat=i, detail=detail))
    return records


class WarmRun(SyntheticRun):
    """A made-up run that measures warm latency and nothing else."""

    def __init__(self, root: Path, n: int = 8, seconds: dict[str, dict[str, float]] | None = None) -> None:
        super().__init__(root)
        self.data["jobs"], self.records = [], {}
        families = {"litemedsam": "litemedsam", "swin_litemedsam": "swin_litemedsam", "rep_medsam": "rep_medsam"}
        template = self.data["variants"]["litemedsam"]
        self.data["variants"] = {k: {**template, "name": k, "family": f} for k, f in families.items()}
        self.data["resolved"] = {"deployments": DEPLOYMENTS}
        for variant, times in (seconds or SECONDS).items():
            for deployment, taken in times.items():
                self.timed(variant, deployment, rounds(taken, n))

    def timed(self, variant: str, deployment: str, records: list[Record] | None, threads: int = 2, **more: Any) -> None:
        """Add a latency job."""
        self._add(
            "latency", variant, None, deployment=deployment, settings={"repeats": 8, "threads": [threads]}, **more
        )
        job = self.data["jobs"][-1]
        job["digest"] = f"{job['digest'][:-1]}{threads}"
        if records is not None:
            self.records[job["digest"]] = records


def loaded(warm: WarmRun) -> Run:
    return load_run(*warm.write())


def section_of(run: Run) -> views.LatencySection:
    section = views.latency_section(run, tables.latency(run))
    assert section is not None
    return section


@pytest.fixture
def warm(tmp_path: Path) -> WarmRun:
    return WarmRun(tmp_path)


@pytest.mark.parametrize(("share", "needed"), [(0.9, 100), (0.95, 200), (0.99, 1000)])
def test_a_percentile_needs_ten_observations_beyond_it(share: float, needed: int) -> None:
    assert order.needed(share) == needed
    assert order.percentile(range(needed - 1), share) is None
    assert order.percentile(range(needed), share) == round(share * needed) - 1


def test_one_time_is_shorter_than_another_only_if_their_intervals_are_apart() -> None:
    assert order.faster((1, 2), (3, 4)) == -1
    assert order.faster((3, 4), (1, 2)) == 1
    assert order.faster((1, 3), (2, 4)) == 0
    assert order.faster((1, 2), None) is None


def test_a_row_has_medians_throughput_and_the_share_of_the_machines_limit(warm: WarmRun) -> None:
    table = tables.latency(loaded(warm)).set_index(["variant", "deployment"])
    row = table.loc[("litemedsam", "keep")]
    assert (row["n"], row["threads"], row["status"]) == (8, 2, "ok")
    assert row["encode"] == pytest.approx(0.72)
    assert row["decode"] == pytest.approx(0.072)
    assert row["throughput"] == pytest.approx(1 / 0.72, rel=0.01)
    assert row["gemm"] == 98e9
    assert row["gemm_by"] == "numpy 2.4.6"
    assert row["share"] == pytest.approx(WORK / (0.72 * 98e9), rel=1e-4)
    assert row["in_gemm"] == pytest.approx(0.72 * 98e9)
    assert row["in_gemm_low"] < row["in_gemm"] < row["in_gemm_high"]


def test_percentiles_that_n_does_not_allow_say_so_instead_of_a_number(warm: WarmRun) -> None:
    warm.timed("rep_medsam", "keep", rounds(0.56, 120, threads=1), threads=1)
    section = section_of(loaded(warm))
    by_n = {row[2].text: row[3].small for row in section.times.rows}
    assert by_n["8"] == "p90, p95, p99: n too small"
    assert by_n["120"].startswith("p90 0.56")
    assert by_n["120"].endswith("p95, p99: n too small")


def test_where_no_n_allows_a_percentile_one_remark_says_so(warm: WarmRun) -> None:
    section = section_of(loaded(warm))
    assert {row[3].small for row in section.times.rows} == {""}
    assert section.times.remarks[0].startswith("Percentiles: n too small.")


def test_a_variant_that_is_no_network_has_times_and_no_ratio(warm: WarmRun) -> None:
    warm.data["variants"]["dummy"] = {"name": "dummy", "family": "reference"}
    warm.timed("dummy", "keep", rounds(1e-5, 8))
    run = loaded(warm)
    assert "dummy" in set(tables.latency(run)["variant"])
    assert "dummy" not in set(ratios(run)["variant"])


def test_ratios_are_made_under_the_same_deployment_and_a_fused_variant_stands_beside_the_unfused(warm: WarmRun) -> None:
    table = ratios(loaded(warm)).set_index(["variant", "fused", "column"])
    assert table.loc[("rep_medsam", False, "keep"), "ratio"] == pytest.approx(0.56 / 0.72)
    assert table.loc[("rep_medsam", True, "keep"), "ratio"] == pytest.approx(0.48 / 0.72)
    assert table.loc[("rep_medsam", False, "system"), "ratio"] == pytest.approx(0.64 / 1.2)
    assert set(table["reference"]) == {"litemedsam"}
    assert table.loc[("swin_litemedsam", False, "keep"), "official"] == 0.98
    assert table.loc[("swin_litemedsam", False, "system"), "official"] == 0.67
    assert table.loc[("rep_medsam", True, "keep"), "official"] == 0.66


def test_rounds_of_a_disturbed_machine_are_marked(warm: WarmRun) -> None:
    assert all(row[2].note == "" for row in section_of(loaded(warm)).times.rows)
    job = next(j for j in warm.data["jobs"] if (j["variant"], j["deployment"]) == ("rep_medsam", "system"))
    for i, record in enumerate(records := warm.records[job["digest"]]):
        if record.repeat in (2, 3):
            said = json.loads(record.detail or "{}") | {"disturbed": ["the CPU was throttled 3 times for heat"]}
            records[i] = replace(record, detail=json.dumps(said))
    run = loaded(warm)
    assert tables.latency(run)["disturbed"].max() == 2
    notes = {(row[0].text, row[0].small): row[2].note for row in section_of(run).times.rows}
    assert notes["rep_medsam", "system"] == "2 disturbed"
    assert notes["rep_medsam", "keep"] == ""


def test_in_units_of_the_matrix_product_a_slow_minute_of_the_machine_cancels(warm: WarmRun) -> None:
    for job in warm.data["jobs"]:
        if job["variant"] == "rep_medsam" and job["deployment"] == "keep":
            warm.records[job["digest"]] = rounds(0.56, 8, gemm=98e9 / 1.5)
    row = ratios(loaded(warm)).set_index(["variant", "fused", "column"]).loc[("rep_medsam", False, "keep")]
    assert row["ratio"] == pytest.approx(1.5 * 0.56 / 0.72)
    assert row["ratio_in_gemm"] == pytest.approx(0.56 / 0.72)


def test_an_order_that_the_allocator_turns_round_is_told_in_words(warm: WarmRun) -> None:
    said = order_words(run := loaded(warm), ratios(run))
    assert said == [
        "The allocator decides the order: litemedsam is faster than swin_litemedsam under keep (allocator keep-pages) "
        "(×1.00 against ×1.03 in units of the matrix product) and slower under system (allocator system) "
        "(×1.00 against ×0.67); 2 threads."
    ]


def test_a_pair_that_changes_places_with_every_number_of_threads_is_told_once(warm: WarmRun) -> None:
    for variant in ("litemedsam", "swin_litemedsam"):
        for deployment in ("keep", "system"):
            warm.timed(variant, deployment, rounds(2 * SECONDS[variant][deployment], 8, threads=1), threads=1)
    run = loaded(warm)
    (said,) = order_words(run, ratios(run))
    assert said.endswith("1 and 2 threads, ratios of 2 threads.")


def test_an_order_that_is_clear_under_one_allocator_alone_is_told_apart_from_a_reversed_one(tmp_path: Path) -> None:
    close = SECONDS | {"swin_litemedsam": {"keep": 0.721, "system": 0.80}}
    run = loaded(WarmRun(tmp_path, seconds=close))
    assert list(order_changes(run, ratios(run))["change"]) == ["only other"]
    assert order_words(run, ratios(run)) == [
        "Told apart under system (allocator system), not under keep (allocator keep-pages): litemedsam and "
        "swin_litemedsam; 2 threads."
    ]


def test_an_order_that_stays_and_one_that_cannot_be_known_are_told_as_well(tmp_path: Path) -> None:
    same = {"litemedsam": {"keep": 1.0, "system": 2.0}, "rep_medsam": {"keep": 0.5, "system": 1.0}}
    run = loaded(WarmRun(tmp_path / "same", seconds=same))
    assert order_words(run, ratios(run)) == [
        "The allocator does not change the order of the variants, 2 threads: keep and system."
    ]
    run = loaded(WarmRun(tmp_path / "few", n=5))
    assert set(order_changes(run, ratios(run))["change"]) == {"unknown"}
    (said,) = order_words(run, ratios(run))
    assert said.startswith("Whether an order depends on the allocator cannot be told, 2 threads")


def test_an_order_of_fewer_than_two_names_under_both_allocators_is_not_claimed(tmp_path: Path) -> None:
    apart = {"litemedsam": {"keep": 1.0, "system": 2.0}, "rep_medsam": {"keep": 0.5}}
    run = loaded(WarmRun(tmp_path, seconds=apart))
    assert order_words(run, ratios(run)) == []


def test_a_reason_of_a_row_that_is_ok_is_shown_as_it_is(warm: WarmRun) -> None:
    why = "the encoder cannot be counted"
    detail = json.dumps({"threads": 2})
    uncounted = [r for r in rounds(0.56, 8) if r.metric != "gemm_share"]
    uncounted.append(Record("gemm_share", phase="encode", status="unsupported", reason=why, detail=detail))
    job = next(j for j in warm.data["jobs"] if (j["variant"], j["deployment"]) == ("rep_medsam", "keep"))
    warm.records[job["digest"]] = uncounted
    run = loaded(warm)
    said = f"rep_medsam · keep: {why}"
    assert said in section_of(run).times.remarks
    assert said in reports_warm.latencies(run).remarks


def test_an_image_that_is_called_litemedsam_is_no_reference(warm: WarmRun) -> None:
    image = warm.data["variants"]["litemedsam"] | {"name": "litemedsam", "family": "image"}
    warm.data["variants"] = {"image": image, **warm.data["variants"]}
    assert reference_of(loaded(warm)) == "litemedsam"


def test_counts_stay_in_the_leaderboard_of_a_run_that_measures_latency_beside(warm: WarmRun) -> None:
    warm._add("complexity", "litemedsam", [Record("params", 9_791_300.0), Record("flops", 39.6e9)])
    (row,) = leaderboard_rows(loaded(warm))
    assert (row.variant, row.params, row.flops) == ("litemedsam", 9_791_300, 39.6e9)


def test_the_csv_of_a_run_of_latencies_alone_is_their_table(warm: WarmRun, capsys: pytest.CaptureFixture[str]) -> None:
    show_leaderboard(run := loaded(warm), "csv")
    read = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert tuple(read[0]) == COLUMNS
    assert len(read) == len(tables.latency(run))
    assert float(read[0]["encode"]) == pytest.approx(0.72)


def test_unsupported_and_failed_rows_keep_their_place_with_the_reason(warm: WarmRun) -> None:
    why = "variant 'swin_litemedsam' has nothing to fuse"
    missing = [Record("latency", phase=p, status="unsupported", reason=why) for p in ("encode", "decode")]
    warm.timed("swin_litemedsam", "fused", missing)
    warm.timed("litemedsam", "fused", None, state="failed", reason="the worker process was killed")
    section = section_of(run := loaded(warm))
    cells = {(row[0].text, row[0].small): row[3] for row in section.times.rows}
    assert (cells["swin_litemedsam", "fused"].status, cells["swin_litemedsam", "fused"].reason) == ("unsupported", why)
    assert cells["litemedsam", "fused"].status == "crashed"
    assert f"swin_litemedsam · fused: unsupported: {why}" in section.times.remarks
    assert set(tables.problems(run)["reason"]) >= {why, "the worker process was killed"}


def test_the_figure_shows_throughput_where_there_are_several_numbers_of_threads(warm: WarmRun) -> None:
    assert speed.throughput(tables.latency(loaded(warm)), several=True) is None
    for variant in ("litemedsam", "rep_medsam"):
        warm.timed(variant, "keep", rounds(SECONDS[variant]["keep"] * 1.9, 8, threads=1), threads=1)
    figure = speed.throughput(tables.latency(loaded(warm)), several=True, main="keep")
    assert figure is not None
    assert "litemedsam · keep and rep_medsam · keep" in figure.alt


def test_a_run_of_latencies_alone_has_its_section_and_no_leaderboard(warm: WarmRun, page: str) -> None:
    run = loaded(warm)
    shown = html.render(run)
    assert 'id="t-latency"' in shown
    assert 'id="t-latency-ratios"' in shown
    assert 'href="#latency"' in shown
    assert 'id="leaderboard"' not in shown
    assert leaderboard_rows(run) == []
    assert 'id="t-latency"' not in page


def test_times_of_a_run_that_does_not_state_its_machine_are_not_shown(warm: WarmRun) -> None:
    warm.data["provenance"]["machine"] = None
    run = loaded(warm)
    assert tables.latency(run)["encode"].isna().all()
    assert any("machine" in gap for gap in run.withheld)


def test_the_official_ratios_are_read_from_their_file_and_a_wrong_file_names_its_field(tmp_path: Path) -> None:
    known = official.official()
    assert known.ratio("rep_medsam", True, "system") == 0.46
    assert known.ratio("medsam_vit_b", False, "system") is None
    for encoder in known.encoders:
        base = next(e for e in known.encoders if e.variant == known.reference)
        assert encoder.ratio["system"] == pytest.approx(encoder.system / base.system, abs=0.01)
        assert encoder.ratio["keep-pages"] == pytest.approx(encoder.keep_pages / base.keep_pages, abs=0.015)
    wrong = tmp_path / "latency.yaml"
    wrong.write_text("what: nothing\nreference: litemedsam\nthreads: two\nencoders: []\n")
    with pytest.raises(BenchError, match=r"latency\.yaml: threads: "):
        official.read(wrong)


def test_terminal_and_markdown_show_the_rows_and_the_orders(warm: WarmRun) -> None:
    from rich.console import Console

    warm.timed("litemedsam", "fused", None, state="failed", reason="the worker process was killed")
    found = reports_warm.latencies(loaded(warm))
    console = Console(width=80, record=True)
    console.print(reports_warm.to_terminal(found))
    for shown in (console.export_text(), reports_warm.to_markdown(found)):
        assert "swin_litemedsam" in shown
        assert "The allocator decides the order" in " ".join(shown.split())
        assert "crashed" in shown
    assert reports_warm.latencies(load_run(*SyntheticRun(warm.store.parent / "cold").write())).rows == []
