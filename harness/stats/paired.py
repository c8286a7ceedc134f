"""Paired differences per case, and what may be said of them: better, worse or not separable.

Two tests stand side by side because they answer two questions.  **Wilcoxon's signed-rank test** asks whether the
differences lie symmetrically about 0: it sees a small gain on most cases, and rejects almost surely where many small
gains pay for few large losses although the mean is unchanged.  The **sign-flip test** asks about the mean, which is
what the tables rank by: if it does not matter which of the two variants a value came from, the sign of every difference
is a coin's toss, so that the test has its nominal size whatever the distribution (exact under exchangeability), and in
large samples for skewed differences of mean 0 as well (Romano, Annals of Statistics 17, 1989).

A verdict needs both statements about the mean to agree: the sign-flip p, adjusted by Holm for the rows of its table, is
under 5 %, and the BCa interval leaves out 0.  The second condition is what keeps the error near 5 % for differences so
skewed that flipping signs is no fair null; the simulation of the tests shows the rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.schema import METRICS
from harness.stats.bootstrap import FEWEST, SAMPLES, mean_interval
from harness.stats.signflip import FEWEST_PAIRS, sign_flips

Floats = NDArray[np.float64]
Word = Literal["better", "worse", "not separable"]

ALPHA = 0.05


@dataclass(frozen=True)
class PairedDifference:
    """Differences ``other - base`` of the cases that both have.

    Attributes:
        mean, low, high: mean difference, its BCa interval (NaN where there is none), in the metric's unit.
        n: number of cases; ``zeros`` of them do not differ.
        p: sign-flip test of the mean, two-sided; ``None`` for fewer than `FEWEST_PAIRS` differences.
        wilcoxon_p: Wilcoxon's signed-rank test, two-sided, differences of 0 dropped (Wilcoxon's own way); ``None`` as
            above.
        effect: matched-pairs rank-biserial correlation: share of the rank sum that speaks for ``other`` minus the share
            that speaks against it, -1 to 1, differences of 0 dropped (Kerby 2014); 0 if nothing differs, NaN if no
            case is left.
    """

    mean: float
    low: float
    high: float
    n: int
    zeros: int
    p: float | None
    wilcoxon_p: float | None
    effect: float


@dataclass(frozen=True)
class SeedNoise:
    """Spread of a mean difference over ``seeds`` trainings: ``sd`` between the seeds' means, ``reach`` of their mean.

    ``reach``: half the 95 % t-interval of the mean over the seeds, t·sd/√seeds.  A difference within it could be turned
    by another set of seeds.  Both NaN for one seed.
    """

    seeds: int
    sd: float
    reach: float


@dataclass(frozen=True)
class Verdict:
    """What may be said of a difference, and why not more."""

    word: Word
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.word}: {self.reason}" if self.reason else self.word


def paired_difference(
    base: ArrayLike, other: ArrayLike, confidence: float = 0.95, samples: int = SAMPLES, seed: int = 0
) -> PairedDifference:
    """Compare two variants on the same cases; ``base`` and ``other``: shape (cases,), one value a case.

    A case of which either value is missing (NaN) is left out.  A failed case is no missing one: it counts as 0 before
    it comes here (`reports.tables.accuracy`).

    Raises:
        ValueError: the two differ in length, or a value is infinite.
    """
    first, second = np.asarray(base, dtype=np.float64).ravel(), np.asarray(other, dtype=np.float64).ravel()
    if len(first) != len(second):
        raise ValueError(f"{len(first)} values of the base, but {len(second)} of the other; pair them case by case")
    if np.isinf(first).any() or np.isinf(second).any():
        raise ValueError("an infinite value has no difference")
    differences = second - first
    differences = differences[~np.isnan(differences)]
    interval = mean_interval(differences, None, confidence, samples, seed)
    moved = differences[differences != 0]
    return PairedDifference(
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        n=len(differences),
        zeros=len(differences) - len(moved),
        p=sign_flips(moved[:, None], seed)[0],
        wilcoxon_p=_wilcoxon_p(moved),
        effect=_rank_biserial(moved) if len(differences) else float("nan"),
    )


def _wilcoxon_p(moved: Floats) -> float | None:
    if len(moved) < FEWEST_PAIRS:
        return None
    from scipy.stats import wilcoxon

    return float(wilcoxon(moved, zero_method="wilcox").pvalue)


def _rank_biserial(moved: Floats) -> float:
    if not len(moved):
        return 0.0
    from scipy.stats import rankdata

    ranks = rankdata(np.abs(moved))
    return float((ranks * np.sign(moved)).sum() / ranks.sum())


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values adjusted for their number by Holm's step-down method (Scandinavian Journal of Statistics 6, 1979).

    Comparing them with 5 % keeps the probability of any false finding among all of them under 5 %.  ``None`` (no test
    was possible) stays ``None`` and does not count.

    Raises:
        ValueError: a value is no probability.
    """
    known = np.array([p for p in p_values if p is not None], dtype=np.float64)
    if not ((known >= 0) & (known <= 1)).all():
        raise ValueError(f"p values lie between 0 and 1, not {known.tolist()}")
    adjusted = iter(holm_rows(known).tolist())
    return [None if p is None else next(adjusted) for p in p_values]


def holm_rows(p_values: Floats) -> Floats:
    """`holm` for every row of a matrix at once: (..., comparisons), adjusted along the last axis."""
    count = p_values.shape[-1]
    order = np.argsort(p_values, axis=-1, kind="stable")
    scaled = np.take_along_axis(p_values, order, axis=-1) * (count - np.arange(count))
    adjusted = np.minimum(np.maximum.accumulate(scaled, axis=-1), 1.0)
    result = np.empty_like(adjusted)
    np.put_along_axis(result, order, adjusted, axis=-1)
    return result


def seed_noise(means: ArrayLike, confidence: float = 0.95) -> SeedNoise:
    """Spread of the seeds' mean differences; ``means``: shape (seeds,), the mean paired difference of each seed."""
    values = np.asarray(means, dtype=np.float64)
    if len(values) < 2:
        return SeedNoise(len(values), float("nan"), float("nan"))
    from scipy.special import stdtrit

    sd = float(values.std(ddof=1))
    reach = float(stdtrit(len(values) - 1, (1 + confidence) / 2)) * sd / sqrt(len(values))
    return SeedNoise(len(values), sd, reach)


def verdict(
    metric: str,
    found: PairedDifference,
    p: float | None = None,
    wilcoxon_p: float | None = None,
    noise: SeedNoise | None = None,
    alpha: float = ALPHA,
) -> Verdict:
    """``better``, ``worse`` or ``not separable`` from the base, by the rule of this module.

    Args:
        metric: a key of `harness.schema.METRICS`, which says which way is better.
        found: the difference to the base.
        p, wilcoxon_p: adjusted by `holm` over the table; ``None``: those of ``found``, for a table of one row.
        noise: of the trainings, where there are several seeds.

    Raises:
        ValueError: the metric has no better direction.
    """
    direction = METRICS[metric].direction
    if direction == "none":
        raise ValueError(f"{metric} has no better direction, so that no verdict can be given on it")
    p = found.p if p is None else p
    wilcoxon_p = found.wilcoxon_p if wilcoxon_p is None else wilcoxon_p
    if found.n < FEWEST:
        return Verdict("not separable", f"too few cases ({found.n}, {FEWEST} are needed)")
    if p is None:
        return Verdict("not separable", f"too few cases differ ({found.n - found.zeros} of {found.n})")
    if p >= alpha or found.low <= 0 <= found.high:
        return Verdict("not separable", _why_not(wilcoxon_p, found, alpha))
    if noise is not None and noise.seeds > 1 and abs(found.mean) <= noise.reach:
        return Verdict("not separable", f"inside the noise of {noise.seeds} training seeds")
    return Verdict("better" if (found.mean > 0) == (direction == "higher") else "worse")


def _why_not(wilcoxon_p: float | None, found: PairedDifference, alpha: float) -> str:
    """Where most cases differ one way and the mean does not follow, a reader would wonder."""
    if wilcoxon_p is not None and wilcoxon_p < alpha:
        return f"most cases are {'higher' if found.effect > 0 else 'lower'}, the mean is not"
    return ""
