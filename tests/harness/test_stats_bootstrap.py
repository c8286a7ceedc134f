"""Intervals of means: SciPy's BCa without its cost, whole clusters, modalities, and what happens where data are few."""

import math

import numpy as np
import pytest
from scipy import stats

from harness.stats import (
    FEWEST,
    Interval,
    macro_intervals,
    mean_interval,
    mean_intervals,
    resampling_weights,
    stratified_weights,
)
from tests.harness.simulation import difficulty


def close(found: Interval, low: float, high: float, share: float = 0.05) -> bool:
    """Whether both ends agree within a share of the width, which is what two resamplings differ by."""
    return max(abs(found.low - low), abs(found.high - high)) <= share * (high - low)


@pytest.mark.parametrize("cases", [10, 50, 300, 2000])
def test_the_plain_interval_is_scipys_bca(cases: int):
    values = difficulty(np.random.default_rng(cases), (cases,))
    theirs = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=5000, random_state=1, batch=200)
    ours = mean_interval(values, samples=5000, expanded=False)
    assert close(ours, *theirs.confidence_interval)
    assert ours.mean == pytest.approx(values.mean())


def test_other_confidences_are_scipys_too():
    values = difficulty(np.random.default_rng(1), (80,))
    theirs = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=9000, confidence_level=0.8, random_state=1)
    assert close(mean_interval(values, confidence=0.8, samples=9000, expanded=False), *theirs.confidence_interval)


def test_the_plain_interval_of_a_macro_average_is_scipys_of_several_samples():
    source = np.random.default_rng(2)
    first, second = source.beta(5, 1, 40), source.beta(2, 2, 90)
    theirs = stats.bootstrap(
        (first, second),
        lambda a, b, axis: (a.mean(axis) + b.mean(axis)) / 2,
        method="BCa",
        n_resamples=9000,
        random_state=1,
    )
    values, modalities = np.concatenate([first, second])[:, None], ["CT"] * 40 + ["US"] * 90
    found = macro_intervals(values, modalities, samples=9000, expanded=False)
    assert close(found.macro[0], *theirs.confidence_interval)
    assert found.macro[0].mean == pytest.approx((first.mean() + second.mean()) / 2)
    assert found.strata["CT"][0].mean == pytest.approx(first.mean())


def test_the_expanded_interval_is_wider_and_the_more_so_the_fewer_the_cases():
    widths = []
    for cases in (8, 50, 1000):
        values = difficulty(np.random.default_rng(3), (cases,))
        plain, wide = (mean_interval(values, expanded=expanded) for expanded in (False, True))
        widths.append((wide.high - wide.low) / (plain.high - plain.low))
    assert widths[0] > 1.15 > 1.08 > widths[1] > 1.01 > widths[2] > 0.999


def test_two_hundred_nuclei_of_one_image_are_not_two_hundred_patients():
    source = np.random.default_rng(4)
    images = np.repeat(np.arange(12), 200)
    values = np.repeat(source.beta(5, 1.2, 12), 200) + source.normal(0, 0.02, 2400)
    whole, apart = mean_interval(values, images), mean_interval(values)
    assert (whole.n, whole.clusters, apart.clusters) == (2400, 12, 2400)
    assert whole.mean == pytest.approx(apart.mean)
    assert whole.high - whole.low > 5 * (apart.high - apart.low)


def test_a_clustered_mean_is_that_of_all_values_and_its_interval_that_of_the_ratio():
    source = np.random.default_rng(5)
    sizes = source.integers(1, 9, 60)
    values = np.repeat(source.beta(5, 1.2, 60), sizes)
    sums, counts = np.split(np.stack([np.bincount(np.repeat(np.arange(60), sizes), w) for w in (values, None)]), 2)

    def ratio(s: np.ndarray, c: np.ndarray, axis: int) -> np.ndarray:
        return s.sum(axis) / c.sum(axis)

    theirs = stats.bootstrap(
        (sums[0], counts[0]), ratio, method="BCa", n_resamples=9000, paired=True, vectorized=True, random_state=1
    )
    names = [f"image {k}" for k in np.repeat(np.arange(60), sizes)]
    ours = mean_interval(values, names, samples=9000, expanded=False)
    assert close(ours, *theirs.confidence_interval)
    assert ours.mean == pytest.approx(values.mean())


def test_a_missing_value_is_left_out_and_the_others_counted():
    values = difficulty(np.random.default_rng(6), (30,))
    holes = np.concatenate([values, [math.nan] * 5])
    assert mean_interval(holes) == mean_interval(values)
    assert mean_interval(holes).n == 30
    together = mean_intervals(np.stack([holes, np.ones(35)], axis=1))
    assert together[0].n == 30
    assert close(together[0], mean_interval(values).low, mean_interval(values).high, 0.15)


def test_too_few_cases_have_a_mean_and_no_interval():
    found = mean_interval([0.5] * (FEWEST - 1))
    assert found.mean == 0.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert not math.isnan(mean_interval([0.1 * k for k in range(FEWEST)]).low)
    for nothing in ([], [math.nan]):
        assert math.isnan(mean_interval(nothing).mean)
        assert mean_interval(nothing).n == 0


def test_equal_values_are_their_own_interval():
    assert mean_interval([0.1] * 9)[:3] == pytest.approx((0.1, 0.1, 0.1))


def test_a_modality_with_a_single_case_leaves_the_macro_average_without_an_interval():
    values = difficulty(np.random.default_rng(7), (21, 1))
    found = macro_intervals(values, ["CT"] * 20 + ["US"])
    assert found.macro[0].mean == pytest.approx((values[:20].mean() + values[20, 0]) / 2)
    assert math.isnan(found.macro[0].low)
    assert not math.isnan(found.strata["CT"][0].low)


def test_a_modality_without_a_value_is_no_part_of_the_macro_average():
    values = difficulty(np.random.default_rng(8), (30, 2))
    values[20:, 0] = math.nan
    found = macro_intervals(values, ["CT"] * 20 + ["US"] * 10).macro
    assert found[0].mean == pytest.approx(values[:20, 0].mean())
    assert found[1].mean == pytest.approx((values[:20, 1].mean() + values[20:, 1].mean()) / 2)


def test_what_cannot_be_averaged_is_told():
    with pytest.raises(ValueError, match="infinite"):
        mean_interval([0.1, math.inf])
    with pytest.raises(ValueError, match="labels"):
        mean_interval([0.1, 0.2], clusters=["a"])
    with pytest.raises(ValueError, match="at least one unit"):
        next(resampling_weights(0, 10))


def test_weights_count_draws_with_replacement():
    weights = np.concatenate(list(resampling_weights(300, 9000, seed=3)))
    assert weights.shape == (9000, 300)
    assert (weights.sum(axis=1) == 300).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(300), abs=0.06)
    # Multinomial: variance n·(1/n)·(1 − 1/n), as drawing has it.
    assert weights.var() == pytest.approx(1 - 1 / 300, rel=0.01)


def test_weights_within_strata_keep_their_sizes_and_blocks_are_bounded():
    blocks = list(stratified_weights([100_000, 50_000], 40))
    assert sum(len(block) for block in blocks) == 40
    assert max(block.size for block in blocks) <= 1 << 21
    assert all((block[:, :100_000].sum(axis=1) == 100_000).all() for block in blocks)
