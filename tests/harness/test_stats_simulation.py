"""How often verdicts and intervals are right, on thousands of made-up data sets with fixed seeds."""

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.stats import holm, macro_intervals, mean_interval, mean_intervals, paired_difference, verdict
from tests.harness.simulation import Floats, difficulty, scores

SETS = 2000


def words(base: Floats, other: Floats, samples: int = 1000) -> list[str]:
    """The verdict on each row of two arrays of shape (data sets, cases)."""
    found = (paired_difference(b, o, samples=samples, seed=i) for i, (b, o) in enumerate(zip(base, other, strict=True)))
    return [verdict("dsc", one).word for one in found]


def exchangeable(cases: int, sets: int, failing: float, seed: int = 1) -> tuple[Floats, Floats]:
    """Two variants of equal quality: which of the two a value came from does not matter."""
    source = np.random.default_rng([seed, cases])
    allowed = difficulty(source, (sets, cases))
    return scores(source, allowed, failing), scores(source, allowed, failing)


def wrong(base: Floats, other: Floats) -> float:
    """Share of verdicts that tell equal variants apart."""
    said = words(base, other)
    return 1 - said.count("not separable") / len(said)


def coverage(values: Floats, truth: float, clusters: Floats | None = None) -> float:
    """Share of the columns whose interval holds the truth."""
    found = mean_intervals(values, clusters, samples=4000)
    return float(np.mean([one.low <= truth <= one.high for one in found]))


def test_three_hundred_equal_pairs_of_variants_are_seldom_told_apart():
    assert 0.02 <= wrong(*exchangeable(50, 300, failing=0.02)) <= 0.09


def test_the_interval_of_fifty_skewed_cases_covers_their_mean():
    values = difficulty(np.random.default_rng(2), (50, SETS))
    assert 0.93 <= coverage(values, 5.0 / 6.2) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("cases", [50, 200])
def test_equal_variants_are_told_apart_in_5_percent_of_2000_data_sets(cases: int):
    assert 0.03 <= wrong(*exchangeable(cases, SETS, failing=0.0)) <= 0.07


@pytest.mark.full
@pytest.mark.parametrize("cases", [50, 200])
def test_failures_of_either_variant_leave_that_rate_as_it_is(cases: int):
    assert 0.03 <= wrong(*exchangeable(cases, SETS, failing=0.05)) <= 0.07


@pytest.mark.slow
def test_many_small_gains_that_pay_for_few_large_losses_are_no_gain():
    source = np.random.default_rng(3)
    base = difficulty(source, (500, 200))
    lost = source.random(base.shape) < 0.1
    moved = np.where(lost, -0.09, 0.01) * source.uniform(0.5, 1.5, base.shape)
    found = [paired_difference(b, b + d, samples=1000) for b, d in zip(base, moved, strict=True)]
    by_ranks = np.mean([(one.wilcoxon_p or 0.0) < 0.05 for one in found])
    by_verdict = np.mean([verdict("dsc", one).word != "not separable" for one in found])
    assert by_ranks > 0.9, "Wilcoxon's test sees the many"
    assert by_verdict < 0.07, "the verdict is about the mean"


@pytest.mark.slow
@pytest.mark.parametrize(("cases", "power"), [(50, (0.25, 0.45)), (200, (0.75, 0.95))])
def test_power_for_one_point_of_dsc(cases: int, power: tuple[float, float]):
    base, other = exchangeable(cases, SETS, failing=0.0, seed=4)
    said = words(base, other + 0.01)
    assert power[0] <= said.count("better") / len(said) <= power[1]


@pytest.mark.slow
@pytest.mark.parametrize("cases", [50, 200])
def test_an_effect_is_not_told_the_wrong_way_round(cases: int):
    base, other = exchangeable(cases, 500, failing=0.0, seed=4)
    assert words(base, other + 0.01).count("worse") == 0


@pytest.mark.full
def test_holm_keeps_the_error_of_a_whole_table_under_5_percent():
    source = np.random.default_rng(5)
    any_wrong = 0
    for _ in range(400):
        allowed = difficulty(source, (50,))
        base = scores(source, allowed)
        found = [paired_difference(base, scores(source, allowed), samples=500) for _ in range(5)]
        adjusted = holm([one.p for one in found])
        any_wrong += any(verdict("dsc", f, p).word != "not separable" for f, p in zip(found, adjusted, strict=True))
    assert any_wrong / 400 <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize("cases", [50, 100, 200])
def test_intervals_of_skewed_values_cover_their_mean_in_95_percent_of_2000_data_sets(cases: int):
    source = np.random.default_rng([6, cases])
    assert 0.93 <= coverage(difficulty(source, (cases, SETS)), 5.0 / 6.2) <= 0.97
    failing = np.where(source.random((cases, SETS)) < 0.05, 0.0, difficulty(source, (cases, SETS)))
    assert 0.93 <= coverage(failing, 0.95 * 5.0 / 6.2) <= 0.97


def clustered(cases: int) -> tuple[Floats, NDArray[np.intp]]:
    """Values (objects, SETS): one to twelve objects a case, so that 50 cases weigh as much as about 30 alike."""
    source, most = np.random.default_rng([7, cases]), 12
    allowed = np.repeat(difficulty(source, (cases, SETS)), most, axis=0)
    values = allowed + source.normal(0, 0.03, allowed.shape)
    objects = np.minimum(source.geometric(0.25, (cases, SETS)), most)
    values[np.tile(np.arange(most), cases)[:, None] >= np.repeat(objects, most, axis=0)] = np.nan
    return values, np.repeat(np.arange(cases), most)


@pytest.mark.slow
@pytest.mark.parametrize("cases", [50, 200])
def test_intervals_of_objects_clustered_by_case_cover_their_mean(cases: int):
    values, clusters = clustered(cases)
    assert 0.93 <= coverage(values, 5.0 / 6.2, clusters) <= 0.97


@pytest.mark.slow
def test_intervals_that_take_objects_for_cases_do_not_cover_their_mean():
    values, _ = clustered(50)
    apart = [mean_interval(values[:, k], samples=1000) for k in range(200)]
    assert np.mean([one.low <= 5.0 / 6.2 <= one.high for one in apart]) < 0.85


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(10, 15, 25), (5,) * 11, (100, 60, 40)])
def test_intervals_of_the_macro_average_cover_it_even_over_small_modalities(sizes: tuple[int, ...]):
    source = np.random.default_rng(8)
    shapes = [(2.0 + 3 * k / len(sizes), 1.2) for k in range(len(sizes))]
    values = np.concatenate([source.beta(a, b, (n, SETS)) for n, (a, b) in zip(sizes, shapes, strict=True)])
    found = macro_intervals(values, np.repeat(np.arange(len(sizes)), sizes), samples=4000).macro
    truth = np.mean([a / (a + b) for a, b in shapes])
    assert 0.93 <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.97
