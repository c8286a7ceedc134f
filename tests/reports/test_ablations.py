"""What a run says of ablated variants: paired differences, intervals, adjusted tests, seed noise, verdicts."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path

import pytest
from rich.console import Console

from harness.schema import Record
from harness.stats import holm
from reports import ablations, html, tables, text
from reports.frame import Run, load_run
from tests.reports.synthetic import SyntheticRun

BAD = {"status": "crashed", "reason": "it broke"}
SETTINGS = {"metric": "dsc", "protocol": "strict"}


def values(gain: float = 0.0, cases: int = 30, seed: int = 0, noise: float = 0.01) -> list[Record]:
    """DSC of cases of two modalities: the same difficulty whatever the seed, a gain and noise on top."""
    hard, source = random.Random(1), random.Random(seed)
    records = []
    for number in range(cases):
        value = 0.6 + 0.3 * hard.random() + gain + source.gauss(0, noise)
        about = {"case": f"case {number}", "modality": "CT" if number % 3 else "US", "ndim": 2, "protocol": "strict"}
        records.append(Record("dsc", value, object=1, **about))
    return records


def rows_of(synthetic: SyntheticRun, base: list[Record], mine: list[Record]) -> dict[str, object]:
    synthetic.replace(synthetic.job("accuracy", "tiny", seed=0)["digest"], base)
    synthetic.replace(synthetic.job("accuracy", "tiny-depth2", seed=0)["digest"], mine)
    table = tables.ablations(load_run(*synthetic.write()))
    (row,) = table[(table["metric"] == "dsc")].to_dict("records")
    return {str(k): v for k, v in row.items()}


@pytest.mark.parametrize(("gain", "word"), [(0.02, "better"), (-0.02, "worse"), (0.0, "not separable")])
def test_a_row_says_in_words_what_its_cases_say(synthetic: SyntheticRun, gain: float, word: str) -> None:
    row = rows_of(synthetic, values(seed=1), values(gain, seed=2))
    assert row["verdict"] == word
    assert row["cases"] == 30
    assert row["paired_low"] < row["paired"] < row["paired_high"]  # type: ignore[operator]
    assert row["paired"] == pytest.approx(gain, abs=0.008)
    assert row["difference_low"] < row["difference"] < row["difference_high"]  # type: ignore[operator]


@pytest.mark.parametrize("seeds", [(0, 1, 2), (1, 2, 3)])
def test_a_base_from_a_file_is_compared_with_every_seed_of_a_row(
    synthetic: SyntheticRun, seeds: tuple[int, ...]
) -> None:
    jobs = synthetic.data["jobs"]
    jobs.remove(synthetic.job("train", "tiny"))
    synthetic.replace(synthetic.job("accuracy", "tiny")["digest"], values())
    first = synthetic.job("accuracy", "tiny-depth2")
    jobs.remove(first)
    for seed, gain in zip(seeds, (0.02, -0.05, -0.05), strict=True):
        jobs.append({**first, "seed": seed, "digest": f"{seed}" * 64})
        synthetic.replace(f"{seed}" * 64, values(gain))
    table = tables.ablations(load_run(*synthetic.write()))
    (row,) = table[table["metric"] == "dsc"].to_dict("records")
    assert (row["seeds"], row["cases"]) == (3, 30)
    assert row["paired"] == pytest.approx(-0.08 / 3)


def test_a_failed_case_counts_as_zero_in_the_paired_difference(synthetic: SyntheticRun) -> None:
    mine = values()
    lost = mine[4]
    about = {"case": lost.case, "modality": lost.modality, "ndim": 2, "protocol": "strict"}
    mine[4] = Record("dsc", None, **about, **BAD)
    row = rows_of(synthetic, values(), mine)
    assert row["cases"] == 30
    assert row["paired"] == pytest.approx(-(lost.value or 0.0) / 30)


def test_p_values_are_adjusted_over_the_whole_table(run: Run) -> None:
    table = tables.ablations(run)
    for name in ("p", "wilcoxon_p"):
        known = table[table[name].notna()]
        assert len(known) == 5, "four of accuracy, one of wall time"
        assert list(known[f"{name}_holm"]) == pytest.approx(holm(list(known[name])))
    assert (table["p_holm"].dropna() >= table["p"].dropna()).all()


def add_seed(synthetic: SyntheticRun, variant: str, seed: int, records: list[Record]) -> None:
    digest = f"{variant}-{seed}".ljust(64, "0")
    synthetic.data["jobs"].append({**synthetic.job("accuracy", variant, seed=0), "seed": seed, "digest": digest})
    synthetic.replace(digest, records)


def test_several_seeds_are_averaged_per_case_and_their_noise_stands_beside(synthetic: SyntheticRun) -> None:
    for seed, gain in ((1, 0.0), (2, 0.04)):
        add_seed(synthetic, "tiny", seed, values(seed=10 + seed))
        add_seed(synthetic, "tiny-depth2", seed, values(gain, seed=20 + seed))
    row = rows_of(synthetic, values(seed=1), values(0.02, seed=2))
    assert (row["cases"], row["seeds"]) == (30, 3)
    assert row["seed_sd"] == pytest.approx(0.02, abs=0.005)
    assert row["paired"] == pytest.approx(0.02, abs=0.005)
    assert (row["verdict"], row["verdict_reason"]) == ("not separable", "inside the noise of 3 training seeds")


def test_five_cases_are_too_few_for_a_verdict(synthetic: SyntheticRun) -> None:
    row = rows_of(synthetic, values(cases=5), values(0.1, cases=5))
    assert row["verdict_reason"] == "too few cases (5, 6 are needed)"


def test_counts_have_a_verdict_and_no_test(run: Run) -> None:
    table = tables.ablations(run).set_index("metric")
    assert table.loc["params", "verdict"] == "better"
    assert table.loc[["params", "flops"], ["p", "paired", "cases"]].isna().all(axis=None)


def test_wall_times_of_different_sessions_are_never_told_apart(synthetic: SyntheticRun) -> None:
    for variant, factor in (("tiny", 1.0), ("tiny-depth2", 2.0)):
        detail = json.dumps({"session": variant})
        walls = [
            Record("wall", factor * (1 + 0.1 * n), case=f"case {n}", repeat=0, protocol="strict", detail=detail)
            for n in range(12)
        ]
        synthetic.replace(synthetic.job("runtime", variant, sandbox="process")["digest"], walls)
    table = tables.ablations(load_run(*synthetic.write()))
    row = table[table["metric"] == "wall"].iloc[0]
    assert row["p_holm"] < 0.05
    assert (row["verdict"], row["verdict_reason"]) == ("not separable", "timed in different sessions")


def test_terminal_markdown_csv_and_json_show_the_same_rows(run: Run) -> None:
    found = ablations.rows(run)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(ablations.to_terminal(found))
    shown = console.export_text()
    for words in ("tiny-depth2 − tiny", "depth = 2 (base: default)", "under-trained, 120 steps", "not separable"):
        assert words in shown
        assert words.replace(" − ", " | ") in ablations.to_markdown(found)
    lines = list(csv.DictReader(io.StringIO(ablations.to_csv(found))))
    data = json.loads(ablations.to_json(found))
    assert len(lines) == len(data["rows"]) == len(found) == 7
    assert lines[0]["verdict"] == data["rows"][0]["verdict"] == found[0]["verdict"]
    assert "sign-flip" in data["caption"]


def test_eighty_columns_break_no_word_and_columns_that_say_nothing_are_left_out(run: Run) -> None:
    found = [{**row, "seed_sd": None} for row in ablations.rows(run)]
    assert any(row["cases"] is not None for row in found)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(ablations.to_terminal(found))
    shown = console.export_text()
    words = set(shown.split())
    assert {"Difference", "Wilcoxon", "Cases", "separable"} <= words
    assert "Seed" not in shown[: shown.index("Verdict")]


def test_the_terminal_names_the_data_set_and_says_why_equal_counts_tell_nothing(run: Run) -> None:
    found = ablations.rows(run)
    counted = next(row for row in found if row["cases"] is None)
    found.append({**counted, "difference": 0.0, "verdict": "not separable", "verdict_reason": "equal counts"})
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(ablations.to_terminal(found))
    shown = console.export_text()
    assert "not separable: equal counts" in shown
    assert {f"tiny · data set {row['dataset']}" in shown for row in found if row["dataset"]} == {True}


@pytest.mark.parametrize(
    ("metric", "title"), [("flops", "Multiply-adds"), ("params", "Parameters"), ("phase", "Phase, s"), ("dsc", "DSC")]
)
def test_a_title_has_its_unit_unless_it_says_it_already(metric: str, title: str) -> None:
    assert text.metric_title(metric) == title


def test_the_page_shows_every_verdict(page: str, run: Run) -> None:
    section = page[page.index('id="t-verdicts"') :]
    section = section[: section.index("</figure>")]
    table = tables.ablations(run)
    words = table.loc[table["cases"].notna(), "verdict"]
    assert len(words) == 5, "four of accuracy, one of wall time"
    for word, count in words.value_counts().items():
        assert section.count(f'data-sort="{word}"') == count
    assert "Wilcoxon" in section
    assert "Seed noise" in section


def test_every_mean_of_accuracy_has_its_interval(tmp_path: Path) -> None:
    run = load_run(*SyntheticRun(tmp_path, cases_per_modality=6).write())
    table = tables.accuracy_summary(run)
    scored = table[table["macro"].notna()]
    for mean in ("macro", "micro"):
        assert ((scored[f"{mean}_low"] < scored[mean]) & (scored[mean] < scored[f"{mean}_high"])).all()
    modal = tables.accuracy_by_modality(run)
    varied = modal[modal["failed"] == 0]
    assert ((varied["low"] < varied["value"]) & (varied["value"] < varied["high"])).all()
    all_failed = modal[(modal["failed"] == 6)]
    assert (all_failed[["low", "high"]] == 0).all(axis=None), "six failures are six zeros"
    page = html.render(run)
    first = scored.iloc[0]
    assert f"[{first['macro_low']:.3f}, {first['macro_high']:.3f}]" in page
    assert f"[{first['micro_low']:.3f}, {first['micro_high']:.3f}]" in page


def test_one_case_a_modality_leaves_macro_averages_without_interval_and_micro_ones_with(run: Run) -> None:
    table = tables.accuracy_summary(run)
    scored = table[table["macro"].notna()]
    assert scored[["macro_low", "macro_high"]].isna().all(axis=None)
    assert scored[["micro_low", "micro_high"]].notna().all(axis=None)
