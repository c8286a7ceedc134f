"""The three schemes of ranking, worked by hand: ties, missing values, failures, weights."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.errors import BenchError
from harness.ranking.rank import Ranking, rank
from harness.ranking.rules import PRESETS, Rule
from harness.ranking.schemes import ranks_of, weighted_medians
from harness.ranking.table import Table

FAILED = float("nan")
#            A       B       C    D
DSC = [
    [0.9, 0.9, 0.5, FAILED],  # ranks 1.5  1.5  3    4   (min: 1 1 3 4)
    [0.8, 0.6, 0.7, 0.7],  #          1    4    2.5  2.5 (min: 1 4 2 2)
    [FAILED, FAILED, 0.2, 0.4],  #    4    4    2    1
]
WALL = [
    [2.0, 1.0, 1.0, FAILED],  #       3    1.5  1.5  4
    [1.0, 1.0, 1.0, 1.0],  #          2.5  2.5  2.5  2.5
    [1.0, 2.0, 3.0, 4.0],  #          1    2    3    4
]


def table(**values: list[list[float]]) -> Table:
    variants = tuple("ABCDEFGH"[: len(next(iter(values.values()))[0])])
    return Table(variants, {metric: np.array(rows) for metric, rows in values.items()})


def rule(scheme: str, weights: dict[str, float], **more: Any) -> Rule:
    return Rule.model_validate({"name": "mine", "scheme": scheme, "weights": weights, **more})


def scores(ranking: Ranking) -> dict[str, float]:
    return {standing.variant: standing.score for standing in ranking.standings}


def places(ranking: Ranking) -> dict[str, int]:
    return {standing.variant: standing.place for standing in ranking.standings}


@pytest.mark.parametrize(
    ("ties", "sums"),
    [("average", {"A": 6.5, "B": 9.5, "C": 7.5, "D": 7.5}), ("min", {"A": 6.0, "B": 9.0, "C": 7.0, "D": 7.0})],
)
def test_rank_then_aggregate_gives_a_failed_case_the_worst_rank_and_equal_values_one_rank(
    ties: str, sums: dict[str, float]
):
    ranking = rank(table(dsc=DSC), rule("rank-then-aggregate", {"dsc": 1}, ties=ties))
    assert scores(ranking) == pytest.approx({name: total / 3 for name, total in sums.items()})
    assert places(ranking) == {"A": 1, "C": 2, "D": 2, "B": 4}


def test_rank_then_aggregate_averages_the_metrics_by_their_weights():
    ranking = rank(table(dsc=DSC, wall=WALL), rule("rank-then-aggregate", {"dsc": 2, "wall": 1}))
    ninths = {"A": 13 + 6.5, "B": 19 + 6, "C": 15 + 7, "D": 15 + 10.5}
    assert scores(ranking) == pytest.approx({name: total / 9 for name, total in ninths.items()})
    assert places(ranking) == {"A": 1, "C": 2, "B": 3, "D": 4}


def test_two_of_four_that_fail_both_take_the_fourth_rank():
    assert ranks_of(np.array([FAILED, 0.3, FAILED, 0.1])).tolist() == [4, 2, 4, 1]


def test_aggregate_then_rank_takes_0_for_a_failed_dsc():
    by_mean = rank(table(dsc=DSC), rule("aggregate-then-rank", {"dsc": 1}))
    assert scores(by_mean) == {"A": 1, "B": 2, "C": 3, "D": 4}  # means 1.7, 1.5, 1.4 and 1.1 thirds
    by_median = rank(table(dsc=DSC), rule("aggregate-then-rank", {"dsc": 1}, aggregate="median"))
    assert scores(by_median) == {"A": 1, "B": 2, "C": 3, "D": 4}  # 0.8, 0.6, 0.5, 0.4


def test_aggregate_then_rank_takes_endless_time_for_a_failed_run():
    both = table(dsc=DSC, wall=WALL)
    by_mean = rank(both, rule("aggregate-then-rank", {"dsc": 1, "wall": 1}))
    # walls: 4, 4 and 5 thirds, endless: ranks 1.5, 1.5, 3, 4
    assert scores(by_mean) == {"A": 1.25, "B": 1.75, "C": 3, "D": 4}
    by_median = rank(both, rule("aggregate-then-rank", {"wall": 1}, aggregate="median", ties="min"))
    assert scores(by_median) == {"A": 1, "B": 1, "C": 1, "D": 4}  # 1, 1, 1, 4 seconds


def test_a_mean_over_modalities_weighs_every_modality_the_same():
    values = {"dsc": np.array([[0.9, 0.6], [0.9, 0.6], [0.9, 0.6], [0.1, 0.5]])}
    both = Table(("A", "B"), values, ("CT", "CT", "CT", "MR"))
    assert places(rank(both, rule("aggregate-then-rank", {"dsc": 1}))) == {"A": 1, "B": 2}  # 0.7 and 0.575
    assert places(rank(both, PRESETS["mean-then-rank"])) == {"A": 2, "B": 1}  # 0.5 and 0.55


def in_steps(cases: int) -> Table:
    """Three variants, each better than the next by 0.01, 0.02, 0.03 ... on the cases."""
    step = 0.01 * np.arange(1, cases + 1)
    return Table(("A", "B", "C"), {"dsc": np.stack([0.5 + 2 * step, 0.5 + step, np.full(cases, 0.5)], axis=1)})


def test_test_based_ranking_counts_the_rivals_that_are_beaten():
    # Eight differences of one sign: p = 1/256 for each pair; six one-sided tests, the largest factor of Holm is 6.
    ranking = rank(in_steps(8), PRESETS["test-based"].model_copy(update={"weights": {"dsc": 1.0}}))
    assert scores(ranking) == {"A": 1.0, "B": 0.5, "C": 0.0}
    assert places(ranking) == {"A": 1, "B": 2, "C": 3}


def test_test_based_ranking_without_adjustment_needs_fewer_cases():
    # Six differences: p = 1/64, under 5 % alone, above it after Holm: 6/64.
    one = {"weights": {"dsc": 1.0}}
    adjusted = rank(in_steps(6), PRESETS["test-based"].model_copy(update=one))
    plain = rank(in_steps(6), PRESETS["test-based"].model_copy(update={**one, "adjust": "none"}))
    assert [standing.rank for standing in adjusted.standings] == [1, 1, 1]
    assert scores(plain) == {"A": 1.0, "B": 0.5, "C": 0.0}


def test_test_based_ranking_averages_the_shares_of_the_metrics_and_counts_failures():
    dsc = in_steps(8).values["dsc"].copy()
    wall = np.full((8, 3), 1.0) + 0.01 * np.arange(8)[:, None]
    wall[:, 2] = 0.1  # C is fast on every case, A and B take the same time
    both = Table(("A", "B", "C"), {"dsc": dsc, "wall": wall})
    by = rule("test-based", {"dsc": 3, "wall": 1}, adjust="none")
    assert scores(rank(both, by)) == {"A": 0.75, "B": 0.375, "C": 0.25}
    wall[:, 2] = FAILED
    assert scores(rank(both, by)) == {"A": 0.875, "B": 0.5, "C": 0.0}


def test_the_presets_are_what_their_names_say():
    assert {name: found.scheme for name, found in PRESETS.items()} == {
        "mean-then-rank": "aggregate-then-rank",
        "accuracy-rank-then-aggregate": "rank-then-aggregate",
        "test-based": "test-based",
        "cvpr24-medsam-laptop": "rank-then-aggregate",
    }
    challenge = PRESETS["cvpr24-medsam-laptop"]
    assert (challenge.protocol, challenge.weights) == ("cvpr24", {"dsc": 1, "nsd": 1, "wall": 1})


def test_a_weighted_median_is_that_of_the_repeated_values():
    source = np.random.default_rng(0)
    values, weights = source.integers(0, 9, 15).astype(float), source.multinomial(15, [1 / 15] * 15, size=50)
    found = weighted_medians(values, weights.astype(float))
    assert found.tolist() == [float(np.median(np.repeat(values, row))) for row in weights]


def tidy(rows: list[tuple[str, str, str, float, bool]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["variant", "case", "metric", "value", "failed"])
    return frame.assign(modality="CT")


def test_a_table_holds_the_cases_that_every_metric_has_and_where_none_is_undefined():
    rows = [(v, c, m, 0.5, False) for v in "AB" for c in ("1", "2", "3", "4") for m in ("dsc", "wall")]
    frame = tidy([row for row in rows if row[1:3] != ("4", "wall")])  # case 4 was timed for nobody
    frame.loc[(frame["case"] == "2") & (frame["variant"] == "A") & (frame["metric"] == "dsc"), "value"] = FAILED
    frame.loc[(frame["case"] == "3") & (frame["variant"] == "B") & (frame["metric"] == "wall"), "failed"] = True
    found = Table.of_frame(frame, ["dsc", "wall"], ["B", "A"])
    assert (found.cases, found.left_out, found.variants) == (2, 2, ("B", "A"))
    assert np.isnan(found.values["wall"]).tolist() == [[False, False], [True, False]], "case 3 failed for B"


def test_neither_the_order_of_cases_nor_that_of_variants_matters():
    source = np.random.default_rng(3)
    rows = [
        (v, f"c{c:02}", m, source.random(), bool(source.random() < 0.05))
        for v in "ABCDE"
        for c in range(30)
        for m in ("dsc", "nsd")
    ]
    frame = tidy(rows)
    for preset in ("accuracy-rank-then-aggregate", "mean-then-rank", "test-based"):
        one = rank(Table.of_frame(frame, ["dsc", "nsd"], list("ABCDE")), PRESETS[preset])
        other = rank(
            Table.of_frame(frame.sample(frac=1, random_state=0), ["dsc", "nsd"], list("DBAEC")), PRESETS[preset]
        )
        assert {s.variant: (s.rank, s.place, s.low, s.high) for s in one.standings} == {
            s.variant: (s.rank, s.place, s.low, s.high) for s in other.standings
        }
        assert one.tau == other.tau


def test_ranks_among_fewer_variants_know_nothing_of_the_others():
    whole = table(dsc=DSC)
    alone = rank(whole.of_variants(["D", "B"]), rule("rank-then-aggregate", {"dsc": 1}))
    # cases: B, D, D; a failure of two takes the second rank
    assert scores(alone) == pytest.approx({"D": 4 / 3, "B": 5 / 3})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"dsc": np.zeros((0, 2))}, "no case"),
        ({"nsd": np.zeros((3, 2))}, "no values of 'dsc'"),
    ],
)
def test_nothing_to_rank_by_is_an_error_that_says_what_is_missing(values: dict[str, Any], said: str):
    with pytest.raises(BenchError, match=said):
        rank(Table(("A", "B"), values), PRESETS["mean-then-rank"])


def test_columns_that_do_not_fit_and_metrics_without_direction_are_refused():
    with pytest.raises(BenchError, match="a column for each variant"):
        Table(("A", "B"), {"dsc": np.zeros((4, 3))})
    with pytest.raises(BenchError, match="no direction"):
        Table(("A",), {"encodes": np.zeros((4, 1))})
    with pytest.raises(BenchError, match="one a case"):
        Table(("A",), {"dsc": np.zeros((4, 1))}, ("CT",))
