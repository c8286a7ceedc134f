"""Statistics of medians and of paired times; standard library alone, SciPy only inside the tests that need it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import comb
from statistics import median


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Distribution-free confidence interval of the median: two order statistics.

    The interval from the k-th smallest to the k-th largest of n values covers the median with probability
    1 - 2 P(B < k), B binomial(n, 1/2); the largest k that reaches ``confidence`` is taken (Conover, Practical
    Nonparametric Statistics, section 3.2).

    Returns:
        Lower and upper end, or ``None`` if there are too few values (fewer than 6 for 95 %).
    """
    k = _rank(len(values), confidence)
    if k == 0:
        return None
    ordered = sorted(values)
    return ordered[k - 1], ordered[-k]


def relative_half_width(values: Sequence[float], confidence: float = 0.95) -> float | None:
    """Half the width of the median's interval as a share of the median; ``None`` if there is no interval."""
    interval = median_interval(values, confidence)
    middle = median(values) if values else 0.0
    return None if interval is None or middle <= 0 else (interval[1] - interval[0]) / 2 / middle


def paired_p(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test on the ratios of paired positive values (exact where SciPy is exact).

    Returns:
        ``None`` for fewer than six pairs, which no outcome could tell apart at 5 %.

    Raises:
        ValueError: the sequences differ in length, or a value is not positive.
    """
    from math import log

    ratios = [log(b / a) for a, b in zip(first, second, strict=True)]
    if len(ratios) < 6:
        return None
    if not any(ratios):
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(ratios).pvalue)


@cache
def _rank(count: int, confidence: float) -> int:
    """The largest k whose interval reaches the confidence; 0 if none does."""
    outside, k = 0.0, 0
    while 2 * k < count:
        outside += 2 * comb(count, k) / 2**count  # values beyond the (k+1)-th from either end
        if 1 - outside < confidence:
            break
        k += 1
    return k
