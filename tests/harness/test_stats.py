"""Statistics that measurements and views share."""

import random
from statistics import median

import pytest

from harness.stats import median_interval, paired_p, relative_half_width


@pytest.mark.parametrize(("count", "rank"), [(6, 1), (8, 1), (9, 2), (15, 4), (30, 10)])
def test_the_interval_of_the_median_is_that_of_the_tables_for_95_percent(count: int, rank: int):
    values = [float(number) for number in range(1, count + 1)]
    random.Random(0).shuffle(values)
    assert median_interval(values) == (rank, count + 1 - rank)


def test_five_values_say_too_little_about_their_median():
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) is None
    assert relative_half_width([1.0] * 5) is None
    assert relative_half_width([]) is None


def test_the_interval_covers_the_median_as_often_as_it_says():
    source, hits, trials = random.Random(1), 0, 2000
    for _ in range(trials):
        low, high = median_interval([source.expovariate(1.0) for _ in range(12)]) or (0.0, 0.0)
        hits += low <= 0.6931 <= high
    assert 0.95 <= hits / trials <= 0.98


def test_the_half_width_is_a_share_of_the_median():
    values = [9.0, 10.0, 10.0, 10.0, 10.0, 12.0]
    assert relative_half_width(values) == pytest.approx(1.5 / median(values))


def test_ten_pairs_that_all_point_one_way_are_told_apart_and_equal_ones_are_not():
    first = [1.0 + 0.01 * number for number in range(10)]
    slower = [value * (1.05 + 0.01 * number) for number, value in enumerate(first)]
    assert paired_p(first, slower) == pytest.approx(2 / 2**10)
    assert paired_p(first, first) == 1.0
    mixed = [value * (1.01 if number % 2 else 0.99) for number, value in enumerate(first)]
    assert (paired_p(first, mixed) or 0.0) > 0.05


def test_five_pairs_are_too_few_for_a_verdict():
    assert paired_p([1.0] * 5, [2.0] * 5) is None
