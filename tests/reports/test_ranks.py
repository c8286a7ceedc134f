"""Ranks on the leaderboard and the page: rules of the suite, tie groups, intervals, rows and modalities alone."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest

from harness.errors import BenchError
from harness.schema import Record
from reports import html, leaderboard
from reports.board import LeaderboardRow, modality_ranks
from reports.frame import Run, load_run
from reports.ranks import RowStanding
from reports.restrict import restrict
from reports.tables import case_values, runtime_cases
from tests.reports.synthetic import SyntheticRun

CASES = [(f"case{number:02}", "CT" if number < 14 else "MR") for number in range(28)]
LEVELS = {"litemedsam": 0.80, "swiftmedsam_v2": 0.79, "tiny": 0.50}
SECONDS = {"litemedsam": 4.0, "swiftmedsam_v2": 1.0, "tiny": 0.5}


def accuracy(level: float, seed: int, turned: bool = False) -> list[Record]:
    """DSC and NSD of all cases; ``turned``: worse by 0.3 on MR."""
    source = np.random.default_rng(seed)
    records = []
    for case, modality in CASES:
        about: dict[str, Any] = {"case": case, "modality": modality, "ndim": 3}
        value = level + source.normal(0, 0.03) - (0.4 if turned and modality == "MR" else 0.0)
        for metric in ("dsc", "nsd"):
            records.append(Record(metric, value, object=1, protocol="strict", **about))
            records.append(Record(metric, round(value, 4), protocol="cvpr24", **about))
    return records


def walls(seconds: float, cases: int = 12, fails: int | None = None) -> list[Record]:
    about: dict[str, Any] = {"modality": "CT", "ndim": 3, "protocol": "strict", "repeat": 0}
    return [
        Record("wall", None, case=CASES[n][0], status="oom", reason="no memory left", **about)
        if n == fails
        else Record("wall", seconds + 0.01 * n, case=CASES[n][0], **about)
        for n in range(cases)
    ]


def scored(synthetic: SyntheticRun, timed: bool = True, turned: str = "", fails: str = "") -> SyntheticRun:
    """Three rows with weights from a file: two near each other, one far behind; ``fails``: out of memory on a case."""
    names = [*LEVELS]
    jobs = synthetic.data["jobs"]
    for seed, (variant, level) in enumerate(LEVELS.items()):
        synthetic.data["variants"][variant]["weights"] = "weights.safetensors"
        job = synthetic.job("accuracy", variant)
        job["needs"] = []
        synthetic.replace(job["digest"], accuracy(level, seed, turned == variant))
        runtime = synthetic.job("runtime", variant, sandbox="process", deployment="default")
        runtime["needs"] = []
        synthetic.replace(runtime["digest"], walls(SECONDS[variant], fails=3 if fails == variant else None))
    kinds = ("accuracy", "runtime") if timed else ("accuracy",)
    synthetic.data["jobs"] = [
        j for j in jobs if j["variant"] in names and j["kind"] in kinds and j["deployment"] == "default"
    ]
    synthetic.data["variants"] = {name: synthetic.data["variants"][name] for name in names}
    return synthetic


def loaded(synthetic: SyntheticRun, ranking: list[Any] | None = None) -> Run:
    if ranking is not None:
        synthetic.data["resolved"] = {"ranking": ranking}
    return load_run(*synthetic.write())


def standings(board: list[LeaderboardRow], rule: str) -> dict[str, RowStanding]:
    return {row.variant: found for row in board for found in row.standings if found.rule == rule}


@pytest.fixture
def board(synthetic: SyntheticRun) -> list[LeaderboardRow]:
    return leaderboard.rows(loaded(scored(synthetic)))


def test_rows_that_the_data_do_not_separate_share_a_rank_and_the_row_far_behind_does_not(
    board: list[LeaderboardRow],
) -> None:
    found = {row.variant: (row.rank, row.standing.shares_with if row.standing else ()) for row in board}
    assert found["litemedsam"] == (1, ("swiftmedsam_v2",))
    assert found["swiftmedsam_v2"] == (1, ("litemedsam",))
    assert found["tiny"] == (3, ())


def test_the_default_rules_are_all_applied_where_accuracy_and_times_are_there(board: list[LeaderboardRow]) -> None:
    assert [found.rule for found in board[0].standings] == [
        "mean-then-rank",
        "accuracy-rank-then-aggregate",
        "test-based",
        "cvpr24-medsam-laptop",
    ]
    assert all(found.rank is not None for row in board for found in row.standings)
    challenge = standings(board, "cvpr24-medsam-laptop")["tiny"]
    assert (challenge.cases, challenge.left_out, challenge.timed_in) == (12, 16, "process")


def test_the_challenges_rule_counts_speed_and_takes_a_failed_run_for_the_slowest(synthetic: SyntheticRun) -> None:
    board = leaderboard.rows(loaded(scored(synthetic, fails="tiny"), ["cvpr24-medsam-laptop"]))
    found = standings(board, "cvpr24-medsam-laptop")
    # DSC and NSD: tiny is third on every case; wall: first on eleven cases, third where it failed.
    assert found["tiny"].score == pytest.approx((3 + 3 + 14 / 12) / 3)


def test_a_rule_whose_metric_was_not_measured_is_not_applied_and_says_why(synthetic: SyntheticRun) -> None:
    board = leaderboard.rows(loaded(scored(synthetic, timed=False), ["cvpr24-medsam-laptop", "test-based"]))
    assert [row.rank for row in board] == [found.rank for found in standings(board, "test-based").values()]
    lines = " ".join(leaderboard.rank_remarks(board))
    assert "cvpr24-medsam-laptop: not applied, there is no sandbox in which every row was timed." in lines


def test_rows_that_no_rule_can_rank_have_no_rank_and_say_why(synthetic: SyntheticRun) -> None:
    run = loaded(scored(synthetic, timed=False), ["cvpr24-medsam-laptop"])
    board = leaderboard.rows(run)
    assert [row.rank for row in board] == [None] * 3
    assert "not applied, there is no sandbox" in " ".join(leaderboard.rank_remarks(board))
    assert "not applied, there is no sandbox" in html.render(run)


def test_no_rule_no_rank(synthetic: SyntheticRun) -> None:
    board = leaderboard.rows(loaded(scored(synthetic), []))
    assert [(row.rank, row.standings) for row in board] == [(None, ())] * 3


def test_a_rule_written_out_in_the_suite_is_applied_under_its_name(synthetic: SyntheticRun) -> None:
    mine = {"name": "speed-alone", "scheme": "rank-then-aggregate", "weights": {"wall": 1}}
    board = leaderboard.rows(loaded(scored(synthetic), [mine]))
    assert [(row.variant, row.rank) for row in board] == [("tiny", 1), ("swiftmedsam_v2", 2), ("litemedsam", 3)]
    assert board[0].standings[0].rule == "speed-alone"


def test_rows_alone_are_ranked_as_if_there_were_no_others(synthetic: SyntheticRun) -> None:
    run = loaded(scored(synthetic))
    board = leaderboard.rows(restrict(run, ["tiny", "swift*"]))
    assert [(row.variant, row.rank) for row in board] == [("swiftmedsam_v2", 1), ("tiny", 2)]
    assert {found.score for found in standings(board, "accuracy-rank-then-aggregate").values()} == {1.0, 2.0}
    assert board[0].only == "rows tiny and swift*"
    assert "rows tiny and swift* alone" in leaderboard.to_markdown(board)


def test_modalities_alone_change_means_counts_and_ranks(synthetic: SyntheticRun) -> None:
    run = loaded(scored(synthetic, turned="litemedsam"))
    whole, part = leaderboard.rows(run), leaderboard.rows(restrict(run, modalities=["ct"]))
    assert next(r for r in whole if r.variant == "litemedsam").rank != 1
    lite = next(r for r in part if r.variant == "litemedsam")
    assert (lite.rank, lite.cases, lite.only) == (1, 14, "modality CT")
    assert lite.dsc == pytest.approx(0.8, abs=0.03)


def test_names_with_commas_and_lists_of_names_are_both_rows(synthetic: SyntheticRun) -> None:
    scored(synthetic)
    for job in synthetic.data["jobs"]:
        job["variant"] = job["variant"].replace("tiny", "tiny+a=[1],b=2")
    synthetic.data["variants"]["tiny+a=[1],b=2"] = synthetic.data["variants"].pop("tiny")
    run = loaded(synthetic)
    for rows in (["tiny+a=[1],b=2", "litemedsam"], ["litemedsam,tiny*"], ["litemedsam · default, tiny* · default"]):
        assert {row.variant for row in leaderboard.rows(restrict(run, rows))} == {"litemedsam", "tiny+a=[1],b=2"}


@pytest.mark.parametrize(
    ("rows", "modalities", "said"),
    [
        (["litemedsm"], [], "no row of the run .* is called 'litemedsm'; did you mean 'litemedsam'"),
        ([], ["PET"], "no case of the run .* is of the modality 'PET'; its modalities: CT, MR"),
    ],
)
def test_rows_and_modalities_that_are_not_there_are_told(
    synthetic: SyntheticRun, rows: list[str], modalities: list[str], said: str
) -> None:
    with pytest.raises(BenchError, match=said):
        restrict(loaded(scored(synthetic)), rows, modalities)


def test_ranks_per_modality_are_those_of_its_cases_alone(synthetic: SyntheticRun) -> None:
    run = loaded(scored(synthetic, turned="litemedsam"))
    board = leaderboard.rows(run)
    found = modality_ranks(run, board, case_values(run), runtime_cases(run))
    assert list(found) == ["CT", "MR"]
    for modality, ranks in found.items():
        alone = leaderboard.rows(restrict(run, modalities=[modality]))
        assert {key[0]: standing.rank for key, standing in ranks.items()} == {row.variant: row.rank for row in alone}
    assert found["CT"]["litemedsam", "default", "phantoms"].rank == 1
    assert found["MR"]["litemedsam", "default", "phantoms"].rank == 3


def test_the_terminal_names_rule_interval_tau_and_every_other_rank(board: list[LeaderboardRow]) -> None:
    from rich.console import Console

    for width in (80, 120):
        out = io.StringIO()
        Console(file=out, width=width).print(leaderboard.to_terminal(board))
        words = " ".join(out.getvalue().split())
        assert max(len(line) for line in out.getvalue().splitlines()) <= width
        assert "mean-then-rank: aggregate-then-rank over 28 cases; Kendall's tau to 1000 resamples" in words
        assert "1= (1–2)" in words
        assert "Rank by every rule" in words
        assert "the sign-flip test" in words


def test_markdown_csv_and_json_carry_every_standing(board: list[LeaderboardRow]) -> None:
    assert "| 1= (1–2) | litemedsam" in leaderboard.to_markdown(board)
    first = next(csv.DictReader(io.StringIO(leaderboard.to_csv(board))))
    assert first["rank"] == first["rank_mean-then-rank"] == "1"
    assert first["shares_with_mean-then-rank"] == board[0].standings[0].shares_with[0]
    assert 0 < float(first["tau_mean-then-rank"]) <= 1
    data = json.loads(leaderboard.to_json(board))
    assert data["rows"][0]["standings"][0]["scheme"] == "aggregate-then-rank"
    assert data["rows"][2]["standings"][0]["low"] == 3


def test_the_page_shows_ranks_by_every_rule_and_per_modality(synthetic: SyntheticRun) -> None:
    page = html.render(loaded(scored(synthetic)))
    assert '<span class="sub">mean-then-rank</span>' in page
    assert '1=<span class="small">1–2</span>' in page
    assert 'id="t-rankings-1"' in page
    table = page[page.index('id="t-modality-ranks-1"') :]
    assert '<span class="sub">n = 14</span>' in table[: table.index("</table>")]
    assert "2 of them share a rank, the data do not separate them" in page


def test_a_suite_by_the_challenge_s_protocol_alone_is_ranked_too(synthetic: SyntheticRun) -> None:
    made = scored(synthetic)
    for digest, records in made.records.items():
        made.records[digest] = [r for r in records if r.protocol == "cvpr24" or r.metric == "wall"]
    board = leaderboard.rows(loaded(made, ["cvpr24-medsam-laptop"]))
    assert [row.rank is not None for row in board] == [True] * 3
    assert all(row.dsc is None and row.dsc_cvpr24 is not None for row in board)


def test_what_a_shared_rank_means_follows_from_the_rule(synthetic: SyntheticRun) -> None:
    run = loaded(scored(synthetic), ["test-based"])
    assert "beat the same share of their rivals" in leaderboard.caption(leaderboard.rows(run))
    assert "sign-flip" not in leaderboard.caption(leaderboard.rows(run))


def test_means_carry_their_interval_on_the_page_in_markdown_and_in_csv(synthetic: SyntheticRun) -> None:
    run = loaded(scored(synthetic))
    board = leaderboard.rows(run)
    low, high = board[0].dsc_low, board[0].dsc_high
    assert low is not None
    assert high is not None
    assert low < (board[0].dsc or 0) < high
    said = f"[{low:.3f}, {high:.3f}]"
    assert said in leaderboard.to_markdown(board)
    assert said in html.render(run)
    (first, *_) = csv.DictReader(io.StringIO(leaderboard.to_csv(board)))
    assert float(first["dsc_low"]) == low


def test_a_run_without_ranks_shows_no_table_of_them(page: str) -> None:
    assert "t-rankings-1" not in page
    assert "t-modality-ranks-1" not in page
