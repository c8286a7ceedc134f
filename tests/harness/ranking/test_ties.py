"""Tie groups, and the tests they rest on."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from harness.ranking.rank import rank
from harness.ranking.rules import PRESETS, Rule
from harness.ranking.significance import EXACT_BELOW, beaten, resampled_signed_rank, signed_rank
from harness.ranking.table import Table
from harness.ranking.ties import beats, groups
from harness.stats import paired_difference
from harness.stats.signflip import sign_flips

SOURCE = np.random.default_rng(0)


def matrix(*pairs: tuple[int, int], variants: int = 4) -> NDArray[np.bool_]:
    found = np.zeros((variants, variants), dtype=bool)
    for winner, loser in pairs:
        found[winner, loser] = True
    return found


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], [[0, 1, 2, 3]]),
        ([(0, 1), (0, 2), (0, 3)], [[0], [1, 2, 3]]),
        ([(0, 2), (0, 3), (2, 3)], [[0, 1], [2], [3]]),
        ([(0, 2), (1, 3)], [[0, 1, 3], [2]]),  # the leader alone decides
    ],
)
def test_who_is_not_beaten_by_the_leader_shares_its_rank(pairs: list[tuple[int, int]], expected: list[list[int]]):
    assert groups(np.array([1.0, 2.0, 3.0, 4.0]), matrix(*pairs)) == expected


def test_of_leaders_with_equal_scores_one_that_beats_is_enough_whichever_stands_first():
    scores = np.array([1.0, 1.0, 2.0])
    for winner in (0, 1):
        assert groups(scores, matrix((winner, 2), variants=3)) == [[0, 1], [2]]


def test_the_rank_of_a_group_counts_all_who_stand_before_it():
    source = np.random.default_rng(1)
    level = np.array([0.9, 0.9, 0.5, 0.5])
    table = Table(("A", "B", "C", "D"), {"dsc": level + source.normal(0, 0.02, (40, 4))})
    ranking = rank(table, PRESETS["mean-then-rank"])
    assert {s.variant: (s.rank, s.shares_with) for s in ranking.standings} == {
        "A": (1, ("B",)),
        "B": (1, ("A",)),
        "C": (3, ("D",)),
        "D": (3, ("C",)),
    }


def test_rows_of_different_ranks_that_are_not_separated_say_so():
    # B lies between A and C: neither beats it nor is beaten by it, but A beats C.
    source = np.random.default_rng(2)
    noise = source.normal(0, 0.05, (30, 3))
    table = Table(("A", "B", "C"), {"dsc": np.array([0.72, 0.70, 0.68]) + noise - noise.mean(axis=0)})
    found = {s.variant: s for s in rank(table, PRESETS["mean-then-rank"]).standings}
    assert [found[name].rank for name in "ABC"] == [1, 1, 3]
    assert found["B"].not_separable == ("C",)
    assert found["C"].not_separable == ("B",)
    assert found["A"].not_separable == ()


def test_two_cases_separate_nothing():
    table = Table(("A", "B"), {"dsc": np.array([[0.9, 0.1], [0.9, 0.1]])})
    assert [s.rank for s in rank(table, PRESETS["mean-then-rank"]).standings] == [1, 1]


def test_no_variant_beats_one_whose_mean_is_better():
    # B is a little better on 38 cases and fails on two: most cases speak for B, the mean for A.
    values = np.full((40, 2), 0.70)
    values[:38, 1], values[38:, 1] = 0.71 + 0.0001 * np.arange(38), 0.0
    assert wilcoxon(values[:, 1] - values[:, 0]).pvalue < 0.001
    assert not beats(-values)[1, 0]
    assert rank(Table(("A", "B"), {"dsc": values}), PRESETS["mean-then-rank"]).standings[0].variant == "A"


def test_variants_of_one_quality_are_separated_in_at_most_five_percent_of_tables():
    source = np.random.default_rng(4)
    trials = 300
    wrong = sum(bool(beats(source.normal(size=(30, 4))).any()) for _ in range(trials))
    assert wrong / trials < 0.08, "5 % for the whole table, two standard errors are 2.5 %"


def test_sign_flips_of_many_pairs_at_once_are_those_of_each_pair():
    few = SOURCE.normal(0.3, 1, (10, 5))
    expected = [paired_difference(np.zeros(10), few[:, at], samples=50).p for at in range(5)]
    assert sign_flips(few) == pytest.approx(expected)
    for cases in (60, 3_000):
        many = SOURCE.normal(0.1, 1, (cases, 4))
        expected = [paired_difference(np.zeros(cases), many[:, at], samples=50).p for at in range(4)]
        assert sign_flips(many) == pytest.approx(expected, abs=0.02)
    assert sign_flips(np.array([[0.1, 0.0]] * 5 + [[0.0, 0.1]] * 2)) == [None, None]


@pytest.mark.parametrize("cases", [4, 12, 40, EXACT_BELOW, 200])
def test_signed_ranks_are_scipys_exact_for_few_different_values_else_with_continuity_correction(cases: int):
    differences = SOURCE.normal(0.2, 1, cases)
    method = "exact" if cases < EXACT_BELOW else "asymptotic"
    for at, way in enumerate(("greater", "less")):
        expected = wilcoxon(differences, alternative=way, method=method, correction=method == "asymptotic").pvalue
        assert signed_rank(differences)[at] == pytest.approx(expected)


def test_signed_ranks_with_ties_and_zeros_are_scipys_with_continuity_correction():
    differences = SOURCE.integers(-3, 5, 30).astype(float)
    for at, way in enumerate(("greater", "less")):
        expected = wilcoxon(differences, alternative=way, method="asymptotic", correction=True).pvalue
        assert signed_rank(differences)[at] == pytest.approx(expected)
    assert signed_rank(np.zeros(8)) == (1.0, 1.0)


def test_counts_of_cases_are_repeated_cases():
    differences = SOURCE.normal(0.2, 1, 25)
    counts = SOURCE.multinomial(25, [1 / 25] * 25, size=10)
    above, below = resampled_signed_rank(differences, counts.astype(float))
    for row, mine, other in zip(counts, above, below, strict=True):
        repeated = np.repeat(differences, row)
        assert mine == pytest.approx(
            wilcoxon(repeated, alternative="greater", method="asymptotic", correction=True).pvalue
        )
        assert other == pytest.approx(
            wilcoxon(repeated, alternative="less", method="asymptotic", correction=True).pvalue
        )


def test_two_failed_runs_are_equal_and_a_failed_one_is_beaten():
    costs = np.full((8, 3), np.inf)
    costs[:, 0] = np.arange(8)
    found = beaten(costs, adjust="none")[0]
    assert found.tolist() == matrix((0, 1), (0, 2), variants=3).tolist()


def test_test_based_groups_are_equal_shares():
    rule = Rule(name="mine", scheme="test-based", weights={"dsc": 1})
    table = Table(("A", "B", "C"), {"dsc": np.array([[0.9, 0.5, 0.5]] * 12) + 0.001 * np.arange(12)[:, None]})
    assert [(s.variant, s.rank, s.score) for s in rank(table, rule).standings] == [
        ("A", 1, 1.0),
        ("B", 2, 0.0),
        ("C", 2, 0.0),
    ]
