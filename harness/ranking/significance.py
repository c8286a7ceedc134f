"""Which variant beats which: tests of paired differences over cases, for all pairs of variants at once.

**Wilcoxon's signed-rank test**, one-sided, is what test-based ranking is made of.  Differences of 0 are left out.  The
p-value is exact for fewer than 50 differences that are all different; otherwise it comes from the normal approximation
with corrections for ties and continuity, as in R's ``wilcox.test`` (Hollander and Wolfe, Nonparametric Statistical
Methods, section 3.1).
"""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.ranking.table import Matrix
from harness.stats.paired import holm_rows

EXACT_BELOW = 50


def signed_rank(differences: NDArray[np.float64]) -> tuple[float, float]:
    """One-sided p-values of paired differences: that they tend to be above 0, and below 0."""
    kept = differences[differences != 0]
    if not 0 < len(kept) < EXACT_BELOW or len(np.unique(np.abs(kept))) < len(kept):
        above, below = resampled_signed_rank(differences, np.ones((1, len(differences))))
        return float(above[0]), float(below[0])
    from scipy.stats import wilcoxon

    ranks = np.sign(kept) * (1 + np.argsort(np.argsort(np.abs(kept))))  # infinite differences are ranked last
    above_p, below_p = (wilcoxon(ranks, alternative=way, method="exact").pvalue for way in ("greater", "less"))
    return float(above_p), float(below_p)


def resampled_signed_rank(
    differences: NDArray[np.float64], weights: Matrix
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One-sided p-values by the normal approximation in every resample of the cases.

    Args:
        differences: (cases,).
        weights: (resamples, cases), how often each case was drawn.

    Returns:
        For each resample, that the differences tend to be above 0, and below 0; 1 where all of them are 0.
    """
    from scipy.special import ndtr

    used = np.flatnonzero(differences)
    if not len(used):
        return np.ones(len(weights)), np.ones(len(weights))
    order = used[np.argsort(np.abs(differences[used]), kind="stable")]
    size = np.abs(differences[order])
    first = np.flatnonzero(np.r_[True, size[1:] != size[:-1]])  # where a new size begins: equal sizes share a rank
    drawn = weights[:, order].astype(np.float64)
    tied = np.add.reduceat(drawn, first, axis=1)
    until = np.cumsum(tied, axis=1)
    ranks = until - (tied - 1) / 2
    positive = np.add.reduceat(drawn * (differences[order] > 0), first, axis=1)
    count = until[:, -1]
    excess = np.einsum("bg,bg->b", positive, ranks) - count * (count + 1) / 4
    variance = count * (count + 1) * (2 * count + 1) / 24 - (tied**3 - tied).sum(axis=1) / 48
    some = variance > 0
    deviation = np.sqrt(np.where(some, variance, 1))
    above: NDArray[np.float64] = np.where(some, ndtr(-(excess - 0.5) / deviation), 1.0)
    below: NDArray[np.float64] = np.where(some, ndtr((excess + 0.5) / deviation), 1.0)
    return above, below


def beaten(
    costs: Matrix, alpha: float = 0.05, adjust: Literal["holm", "none"] = "holm", weights: Matrix | None = None
) -> NDArray[np.bool_]:
    """Which variant beats which, over all ordered pairs.

    Args:
        costs: (cases, variants), lower is better; infinite where a case failed and there is no worst value.
        weights: (resamples, cases); the cases as they are if left out.

    Returns:
        (resamples, variants, variants): ``[b, i, j]`` is true if i beats j; one resample where no weights are given.
    """
    variants = costs.shape[1]
    samples = 1 if weights is None else len(weights)
    pairs = list(combinations(range(variants), 2))
    p_values = np.ones((samples, 2 * len(pairs)))
    for at, (one, other) in enumerate(pairs):
        with np.errstate(invalid="ignore"):
            differences = np.nan_to_num(costs[:, other] - costs[:, one], nan=0.0, posinf=np.inf, neginf=-np.inf)
        found = signed_rank(differences) if weights is None else resampled_signed_rank(differences, weights)
        p_values[:, 2 * at], p_values[:, 2 * at + 1] = found
    if adjust == "holm" and pairs:
        p_values = holm_rows(p_values)
    result = np.zeros((samples, variants, variants), dtype=bool)
    for at, (one, other) in enumerate(pairs):
        result[:, one, other] = p_values[:, 2 * at] < alpha
        result[:, other, one] = p_values[:, 2 * at + 1] < alpha
    return result
