"""Paired differences, Holm's adjustment, seed noise and the words of a verdict."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from harness.schema import METRICS
from harness.stats import PairedDifference, holm, paired_difference, seed_noise, verdict
from tests.harness.simulation import difficulty

GAIN = PairedDifference(mean=0.02, low=0.01, high=0.03, n=40, zeros=0, p=0.001, wilcoxon_p=0.001, effect=0.6)


def test_a_paired_difference_is_that_of_the_cases_both_have():
    base = [0.1 * k for k in range(8)] + [math.nan, 0.5]
    other = [0.1 * k + 0.05 + 0.001 * k for k in range(8)] + [0.5, math.nan]
    found = paired_difference(base, other)
    assert (found.n, found.zeros, found.effect) == (8, 0, 1.0)
    assert found.mean == pytest.approx(0.0535)
    assert found.low < 0.0535 < found.high
    assert found.p == found.wilcoxon_p == 2 / 2**8


def test_the_tests_are_scipys():
    source = np.random.default_rng(0)
    base = difficulty(source, (12,))
    other = base + source.normal(0.02, 0.03, 12)
    found = paired_difference(base, other)
    flipped = stats.permutation_test((other - base,), np.mean, permutation_type="samples", n_resamples=2**12)
    assert found.p == pytest.approx(flipped.pvalue)
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(other - base).pvalue)


def test_random_flips_and_the_normal_limit_agree_with_each_other():
    source = np.random.default_rng(1)
    for cases in (40, 1900, 2100):
        differences = source.normal(0, 1, cases)
        differences += 2.2 / math.sqrt(cases) - differences.mean()
        found = paired_difference(np.zeros(cases), differences)
        assert found.p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.012)


def test_cases_without_a_difference_take_no_part_in_the_tests():
    moved = [0.01, 0.02, 0.03, -0.015, 0.05, 0.06, 0.07]
    with_zeros = paired_difference(np.zeros(12), [*moved, 0, 0, 0, 0, 0])
    alone = paired_difference(np.zeros(7), moved)
    assert (with_zeros.n, with_zeros.zeros) == (12, 5)
    assert (with_zeros.p, with_zeros.effect) == (alone.p, alone.effect)


def test_the_effect_is_the_share_of_ranks_for_minus_the_share_against():
    found = paired_difference(np.zeros(6), [0.1, 0.2, 0.3, -0.4, 0.5, 0.6])
    assert found.effect == pytest.approx((1 + 2 + 3 - 4 + 5 + 6) / 21)
    assert paired_difference([0.5] * 8, [0.5] * 8).effect == 0.0


def test_lists_of_different_length_are_told():
    with pytest.raises(ValueError, match="case by case"):
        paired_difference([0.1], [0.1, 0.2])
    with pytest.raises(ValueError, match="infinite"):
        paired_difference([0.1, math.inf], [0.1, math.inf])


def test_holm_multiplies_the_smallest_by_all_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, None, 0.7]) == [1.0, None, 1.0]
    assert holm([]) == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([1.2])


def test_holm_never_finds_more_than_bonferroni_misses():
    source = np.random.default_rng(2)
    for _ in range(50):
        values = list(source.random(6) ** 3)
        adjusted = holm(values)
        assert all(a >= p and a <= min(1.0, 6 * p) for a, p in zip(adjusted, values, strict=True))
        order = sorted(range(6), key=lambda k: values[k])
        assert all(adjusted[a] <= adjusted[b] for a, b in itertools.pairwise(order))


@pytest.mark.parametrize("metric", [m for m, about in METRICS.items() if about.direction != "none"])
def test_better_is_what_the_metric_says(metric: str):
    loss = replace(GAIN, mean=-0.02, low=-0.03, high=-0.01, effect=-0.6)
    higher = METRICS[metric].direction == "higher"
    assert verdict(metric, GAIN).word == ("better" if higher else "worse")
    assert verdict(metric, loss).word == ("worse" if higher else "better")


def test_a_metric_without_a_better_direction_has_no_verdict():
    with pytest.raises(ValueError, match="no better direction"):
        verdict("encodes", GAIN)


def test_what_is_not_under_5_percent_after_holm_is_not_separable():
    assert str(verdict("dsc", GAIN, p=0.051, wilcoxon_p=0.3)) == "not separable"
    said = verdict("dsc", GAIN, p=0.051, wilcoxon_p=0.001)
    assert str(said) == "not separable: most cases are higher, the mean is not"


def test_an_interval_that_holds_zero_is_not_separable_whatever_p_is():
    assert verdict("dsc", replace(GAIN, low=-0.001)).word == "not separable"


def test_too_few_cases_and_too_few_differences_are_said():
    assert verdict("dsc", replace(GAIN, n=5)).reason == "too few cases (5, 6 are needed)"
    assert verdict("dsc", replace(GAIN, p=None, zeros=36)).reason == "too few cases differ (4 of 40)"


def test_a_difference_inside_the_noise_of_the_seeds_is_not_separable():
    steady, shaky = seed_noise([0.019, 0.02, 0.021]), seed_noise([0.0, 0.02, 0.04])
    assert (shaky.seeds, shaky.sd) == (3, pytest.approx(0.02))
    assert shaky.reach == pytest.approx(4.3027 * 0.02 / math.sqrt(3), rel=1e-4)
    assert verdict("dsc", GAIN, noise=steady).word == "better"
    assert str(verdict("dsc", GAIN, noise=shaky)) == "not separable: inside the noise of 3 training seeds"


def test_one_seed_has_no_noise_to_hold_a_difference_against():
    alone = seed_noise([0.02])
    assert math.isnan(alone.sd)
    assert verdict("dsc", GAIN, noise=alone).word == "better"
