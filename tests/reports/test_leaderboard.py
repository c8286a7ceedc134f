from __future__ import annotations

import csv
import io
import json

import pytest

from harness.schema import Record
from reports import leaderboard
from reports.frame import Run, load_run
from reports.leaderboard import LeaderboardRow
from tests.reports.synthetic import SyntheticRun

NOTE = "under-trained, 120 steps"


@pytest.fixture(scope="module")
def board(run: Run) -> list[LeaderboardRow]:
    return leaderboard.rows(run)


def scores(*values: float) -> list[Record]:
    return [
        Record("dsc", v, case=f"case{i}", modality="CT", ndim=3, object=1, protocol="strict")
        for i, v in enumerate(values)
    ]


def ranked(synthetic: SyntheticRun, **values: list[Record]) -> dict[str, int | None]:
    """Ranks of a run whose variants have weights from a file and these records."""
    for variant, records in values.items():
        job = synthetic.job("accuracy", variant, seed=0)
        job["needs"] = []
        synthetic.data["variants"][variant]["weights"] = "weights.safetensors"
        synthetic.replace(job["digest"], records)
    synthetic.job("accuracy", "dummy")["state"] = "skipped"
    synthetic.job("accuracy", "dummy")["reason"] = "left out"
    synthetic.records.pop(synthetic.job("accuracy", "dummy")["digest"])
    rows = leaderboard.rows(load_run(*synthetic.write()))
    return {row.variant: row.rank for row in rows if row.variant in values and row.deployment == "default"}


def test_every_variant_and_deployment_of_the_suite_has_a_row(board: list[LeaderboardRow]) -> None:
    assert {(row.variant, row.deployment) for row in board} == {
        ("dummy", "default"),
        ("litemedsam", "default"),
        ("litemedsam", "keep pages"),
        ("swiftmedsam_v1", "default"),
        ("swiftmedsam_v2", "default"),
        ("tiny", "default"),
        ("tiny-depth2", "default"),
    }


def test_a_row_with_a_training_note_never_has_a_rank(board: list[LeaderboardRow]) -> None:
    assert all(row.rank is None for row in board if row.note)
    assert "carry no rank" in leaderboard.CAPTION


def test_a_row_without_a_competitor_has_no_rank(board: list[LeaderboardRow]) -> None:
    assert [row.rank for row in board if row.variant == "dummy"] == [None]


def test_better_is_first_and_equal_values_share_a_rank(synthetic: SyntheticRun) -> None:
    ranks = ranked(
        synthetic,
        litemedsam=scores(*[0.5] * 12),
        swiftmedsam_v2=scores(*[0.9] * 12),
        tiny=scores(*[0.4, 0.6] * 6),
        **{"tiny-depth2": scores(*[0.1] * 12)},
    )
    assert ranks == {"swiftmedsam_v2": 1, "litemedsam": 2, "tiny": 2, "tiny-depth2": 4}
    assert next(iter(ranks)) == "swiftmedsam_v2"


def test_rows_that_two_cases_do_not_separate_share_a_rank(synthetic: SyntheticRun) -> None:
    ranks = ranked(synthetic, litemedsam=scores(0.5, 0.5), swiftmedsam_v2=scores(0.9, 0.9))
    assert ranks == {"swiftmedsam_v2": 1, "litemedsam": 1}


def test_a_row_measured_on_other_cases_has_no_rank(synthetic: SyntheticRun) -> None:
    good = {"litemedsam": scores(*[0.5] * 9), "swiftmedsam_v2": scores(*[0.9] * 9)}
    assert ranked(synthetic, **good, tiny=scores(0.99)) == {"swiftmedsam_v2": 1, "litemedsam": 2, "tiny": None}


def test_a_row_carries_both_protocols_cost_and_every_sandbox(board: list[LeaderboardRow]) -> None:
    lite = next(row for row in board if row.variant == "litemedsam" and row.deployment == "default")
    assert (lite.params, lite.flops) == (9_791_300, 39.6e9)
    assert None not in (lite.dsc, lite.nsd, lite.dsc_micro, lite.dsc_cvpr24, lite.nsd_cvpr24)
    process, docker = lite.timings
    assert (process.sandbox, process.failed, process.cases) == ("process", 1, 8)
    assert (docker.sandbox, docker.wall, docker.status) == ("docker", None, "skipped")


def test_a_variant_that_failed_says_why(board: list[LeaderboardRow]) -> None:
    lost = next(row for row in board if row.variant == "swiftmedsam_v1")
    assert (lost.status, lost.reason, lost.dsc, lost.weights) == (
        "skipped",
        "its training failed",
        None,
        "training did not finish",
    )
    partly = next(row for row in board if row.variant == "swiftmedsam_v2")
    assert leaderboard.problem(partly) == "1 of 11 cases failed: the decoder returned values that are not finite"


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_terminal_shows_every_note_and_reason_at_any_width(board: list[LeaderboardRow], width: int) -> None:
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=width).print(leaderboard.to_terminal(board))
    words = " ".join(out.getvalue().split())
    assert max(len(line) for line in out.getvalue().splitlines()) <= width
    assert words.count("under-trained") == 4
    for said in ("its training failed", "no Docker engine answers", "killed at the memory limit", "protocol strict"):
        assert said in words


def test_markdown_has_a_row_for_each_and_the_note_beside_the_number(board: list[LeaderboardRow]) -> None:
    lines = leaderboard.to_markdown(board).splitlines()
    rows = [line for line in lines if line.startswith("| –") or line.startswith("| 1")]
    assert len(rows) == len(board)
    tiny = next(line for line in rows if "| tiny" in line)
    assert NOTE in tiny
    assert "(tiny)" in tiny
    assert any("protocol strict" in line for line in lines)


def test_csv_is_unrounded_and_carries_note_and_status(board: list[LeaderboardRow]) -> None:
    rows = list(csv.DictReader(io.StringIO(leaderboard.to_csv(board))))
    assert len(rows) == len(board)
    for row, original in zip(rows, board, strict=True):
        assert row["note"] == original.note
        assert row["status"] == original.status
        if original.dsc is not None:
            assert float(row["dsc"]) == original.dsc
    assert rows[0]["status_docker"] == "skipped"


def test_json_carries_its_caption(board: list[LeaderboardRow]) -> None:
    data = json.loads(leaderboard.to_json(board))
    assert data["caption"] == leaderboard.CAPTION
    assert [row["note"] for row in data["rows"]] == [row.note for row in board]


def test_two_data_sets_are_two_tables_with_ranks_of_their_own(synthetic: SyntheticRun) -> None:
    synthetic.data["provenance"]["datasets"]["real"] = {"digest": "d" * 64, "kind": "npz", "cases": 2}
    for variant in ("litemedsam", "tiny"):
        synthetic.data["variants"][variant]["weights"] = "w.safetensors"
        for name, digit, value in (("phantoms", "a", 0.3), ("real", "b", 0.6)):
            job = {**synthetic.job("accuracy", variant, dataset="phantoms"), "needs": [], "dataset": name}
            job["digest"] = sha = f"{variant}{digit}"
            if name == "phantoms":
                synthetic.job("accuracy", variant, dataset="phantoms").update(job)
            else:
                synthetic.data["jobs"].append(job)
            synthetic.replace(sha, scores(*[value + (variant == "tiny") * 0.1] * 9))
    synthetic.records[synthetic.job("accuracy", "dummy")["digest"]] = scores(*[0.9] * 9)
    board = leaderboard.rows(load_run(*synthetic.write()))
    firsts = {(row.dataset, row.variant) for row in board if row.rank == 1}
    assert firsts == {("phantoms", "dummy"), ("real", "tiny")}
    assert leaderboard.to_markdown(board).count("**Data set") == 2


def with_cvpr24(synthetic: SyntheticRun, only: bool) -> list[LeaderboardRow]:
    """A board with times under the challenge's protocol in the sandbox docker; ``only``: under no other there."""
    for job in [j for j in synthetic.data["jobs"] if j["kind"] == "runtime" and j["sandbox"] == "docker"]:
        timed = {**job, "digest": f"c{job['digest'][1:]}", "settings": {"protocol": "cvpr24"}, "state": "done"}
        if only:
            synthetic.data["jobs"].remove(job)
        synthetic.data["jobs"].append(timed | {"reason": None})
        wall = Record("wall", 7.25, case="a", repeat=0, protocol="cvpr24")
        synthetic.replace(timed["digest"], [wall])
    return leaderboard.rows(load_run(*synthetic.write()))


@pytest.mark.parametrize(("only", "names"), [(True, ["docker cvpr24"]), (False, ["docker strict", "docker cvpr24"])])
def test_a_time_says_its_protocol_in_every_form(synthetic: SyntheticRun, only: bool, names: list[str]) -> None:
    from rich.console import Console

    from reports import figures, html

    board = with_cvpr24(synthetic, only)
    assert list(leaderboard.places(board).values()) == ["process", *names]
    head = leaderboard.to_markdown(board).splitlines()[2]
    out = io.StringIO()
    Console(file=out, width=120).print(leaderboard.to_terminal(board))
    page = html.render(load_run(*synthetic.write()))
    rows = list(csv.DictReader(io.StringIO(leaderboard.to_csv(board))))
    for name in names:
        assert f"| Wall {name} |" in head
        assert f'<span class="sub">{name}, s</span>' in page
        assert f"wall_{name.replace(' ', '_')}_s" in rows[0]
    assert "cvpr24" in out.getvalue()
    assert {row["wall_docker_cvpr24_s"] for row in rows if row["variant"] != "swiftmedsam_v1"} == {"7.25"}
    assert "wall_process_s" in rows[0]
    assert figures.accuracy_cost(board, "phantoms") is not None


def test_times_of_the_strict_protocol_alone_need_no_name(board: list[LeaderboardRow]) -> None:
    assert list(leaderboard.places(board).values()) == ["process", "docker"]
    head = leaderboard.to_csv(board).splitlines()[0].split(",")
    assert {"wall_docker_s", "peak_memory_docker_bytes", "ok_docker"} <= set(head)


def test_a_median_over_fewer_cases_says_how_many(board: list[LeaderboardRow], page: str) -> None:
    assert "(n = 7 of 8)" in leaderboard.to_markdown(board)
    table = page[page.index('id="t-leaderboard-1"') : page.index("</table>")]
    assert table.count('<span class="small">n = 7 of 8</span>') == 4, "wall and memory of two rows"


def test_a_row_that_lost_a_seed_says_so_and_has_no_rank(synthetic: SyntheticRun) -> None:
    lost = {**synthetic.job("accuracy", "tiny"), "seed": 1, "digest": "1" * 64, "state": "failed", "reason": "it broke"}
    synthetic.data["jobs"].append({**lost, "needs": []})
    nine = {"litemedsam": scores(*[0.5] * 9), "swiftmedsam_v2": scores(*[0.6] * 9), "tiny": scores(*[0.9] * 9)}
    ranks = ranked(synthetic, **nine)
    assert ranks == {"swiftmedsam_v2": 1, "litemedsam": 2, "tiny": None}
    row = next(r for r in leaderboard.rows(load_run(*synthetic.write())) if r.variant == "tiny")
    assert leaderboard.problem(row) == "1 of 2 seeds without a value: it broke"
