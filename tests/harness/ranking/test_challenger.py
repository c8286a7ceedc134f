"""Figures of challengeR's unit tests (github.com/wiesenfa/challengeR, tests/testthat): inputs and expected ranks."""

from typing import Any

import numpy as np
import pytest

from harness.ranking.rank import rank
from harness.ranking.rules import Rule
from harness.ranking.table import Table

NA = float("nan")
SMALL, LARGE = "wall", "dsc"  # a metric of which smaller values are better, and one of which larger are
FOUR = [[0.2, 1.0]] * 4
TWO = [[0.6, 0.8]] * 2
GAP = [[NA, 1.0], *[[0.2, 1.0]] * 3]


def ranked(metric: str, cases: list[list[float]], scheme: str, **more: Any) -> list[tuple[float, int]]:
    """Score and rank by score of every algorithm, in the order of the columns."""
    names = tuple(f"A{number}" for number in range(1, len(cases[0]) + 1))
    by = Rule.model_validate({"name": "mine", "scheme": scheme, "weights": {metric: 1}, **more})
    found = rank(Table(names, {metric: np.array(cases)}), by)
    standings = {standing.variant: standing for standing in found.standings}
    return [(standings[name].score, standings[name].place) for name in names]


@pytest.mark.parametrize(
    ("metric", "cases", "mean_ranks", "ranks"),
    [
        (SMALL, [[0.6, 0.8]], [1, 2], [1, 2]),
        (SMALL, [[0.8, 0.6]], [2, 1], [2, 1]),
        (LARGE, [[0.6, 0.8]], [2, 1], [2, 1]),
        (LARGE, [[0.8, 0.6]], [1, 2], [1, 2]),
        (SMALL, [[0.6, 0.6]], [1, 1], [1, 1]),
        (SMALL, [[0.6, 0.8], [0.4, 1.0]], [1, 2], [1, 2]),
        (SMALL, [[0.6]], [1], [1]),
        (LARGE, [[NA, 0.8]], [2, 1], [2, 1]),
        (SMALL, [[0.5, 0.4]], [2, 1], [2, 1]),
        (SMALL, [[NA, 0.4]], [2, 1], [2, 1]),
    ],
)
def test_rank_then_aggregate(metric: str, cases: list[list[float]], mean_ranks: list[float], ranks: list[int]):
    found = ranked(metric, cases, "rank-then-aggregate", ties="min")
    assert found == list(zip(mean_ranks, ranks, strict=True))


@pytest.mark.parametrize("aggregate", ["mean", "median"])
@pytest.mark.parametrize(
    ("metric", "cases", "ranks"),
    [
        (SMALL, [[0.6, 0.8]], [1, 2]),
        (SMALL, [[0.8, 0.6]], [2, 1]),
        (LARGE, [[0.6, 0.8]], [2, 1]),
        (LARGE, [[0.8, 0.6]], [1, 2]),
        (SMALL, [[0.6, 0.6]], [1, 1]),
        (SMALL, [[0.6, 0.8], [0.4, 1.0]], [1, 2]),
        (SMALL, [[0.6]], [1]),
        (LARGE, [[NA, 0.8]], [2, 1]),  # missing values replaced by 0
        (SMALL, [[NA, 0.4]], [2, 1]),  # missing values replaced by 100
        (SMALL, [[0.5, 0.4]], [2, 1]),
    ],
)
def test_aggregate_then_rank(aggregate: str, metric: str, cases: list[list[float]], ranks: list[int]):
    found = ranked(metric, cases, "aggregate-then-rank", aggregate=aggregate, ties="min")
    assert [place for _, place in found] == ranks


@pytest.mark.parametrize(
    ("metric", "cases", "shares", "ranks"),
    [
        (SMALL, [[0.6, 0.8]], [0, 0], [1, 1]),
        (SMALL, FOUR, [1, 0], [1, 2]),
        (LARGE, FOUR, [0, 1], [2, 1]),
        (SMALL, TWO, [0, 0], [1, 1]),
        (SMALL, GAP, [0, 0], [1, 1]),  # missing values replaced by 100
        (SMALL, [[0.0, 1.0], *GAP[1:]], [1, 0], [1, 2]),  # missing values replaced by 0
        (SMALL, GAP[1:], [0, 0], [1, 1]),  # missing values removed
    ],
)
def test_test_then_rank(metric: str, cases: list[list[float]], shares: list[float], ranks: list[int]):
    found = ranked(metric, cases, "test-based", adjust="none")
    assert found == list(zip(shares, ranks, strict=True))
