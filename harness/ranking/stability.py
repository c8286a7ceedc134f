"""How far a ranking rests on its cases: ranks in bootstrap resamples of them, and their agreement with the ranking.

Source: Wiesenfarth et al., Methods and open-source toolkit for analyzing and visualizing challenge results (2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.ranking.rules import Rule
from harness.ranking.schemes import Scorer, final_ranks
from harness.ranking.table import Table
from harness.stats.weights import resampling_weights, stratified_weights

SAMPLES = 1000
FEWEST_CASES = 10
"""Cases below which resampling says less than it seems to; there is no interval then."""
FEWEST_IN_STRATUM = 5
"""Cases of a modality below which cases are resampled over all modalities instead: one case resampled never varies."""
INTERVAL = (0.025, 0.975)
FEWEST_SAMPLES = 100
TESTED_AT_MOST = 200_000_000
"""Differences that test-based ranking weighs in all resamples together, about five seconds; fewer resamples then."""


@dataclass(frozen=True)
class Stability:
    """Ranks in resamples of the cases.

    Attributes:
        ranks: (resamples, variants), by score alone.
        low, high: (variants,), the 2.5 and 97.5 % quantiles, widened to ranks that occurred.
        taus: (resamples,), Kendall's tau-b between the ranking and each resample's; NaN where all variants are equal.
    """

    ranks: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    taus: NDArray[np.float64]


def affordable_samples(table: Table, rule: Rule) -> int:
    """`SAMPLES`; for test-based ranking of many cases and variants fewer, at least `FEWEST_SAMPLES`."""
    if rule.scheme != "test-based":
        return SAMPLES
    variants = len(table.variants)
    weighed = max(1, len(rule.weights) * table.cases * variants * (variants - 1) // 2)
    return max(FEWEST_SAMPLES, min(SAMPLES, TESTED_AT_MOST // weighed))


def strata_sizes(table: Table, rule: Rule) -> list[int]:
    """Cases of every stratum that is resampled apart, in the order of `sorted_by_stratum`; of all cases as one."""
    if rule.within_modalities and table.strata:
        sizes = np.unique(np.array(table.strata, dtype=str), return_counts=True)[1]
        if sizes.min() >= FEWEST_IN_STRATUM:
            return [int(size) for size in sizes]
    return [table.cases]


def sorted_by_stratum(table: Table) -> Table:
    """The same table with the cases of a stratum side by side."""
    if not table.strata:
        return table
    strata = np.array(table.strata, dtype=str)
    order = np.argsort(strata, kind="stable")
    values = {metric: matrix[order] for metric, matrix in table.values.items()}
    return Table(table.variants, values, tuple(strata[order].tolist()), table.left_out)


def resample(score: Scorer, sizes: list[int], samples: int = SAMPLES, seed: int = 0) -> Stability:
    """Rank anew in resamples of the cases.

    Args:
        score: the scheme on a table whose cases are sorted by stratum.
        sizes: number of cases of every stratum; one for all: not stratified.
    """
    blocks = (
        resampling_weights(sizes[0], samples, seed) if len(sizes) == 1 else stratified_weights(sizes, samples, seed)
    )
    ranks = final_ranks(np.concatenate([score(block) for block in blocks]))
    full = final_ranks(score(np.ones((1, sum(sizes)))))[0]
    low = np.quantile(ranks, INTERVAL[0], axis=0, method="lower").astype(np.int64)
    high = np.quantile(ranks, INTERVAL[1], axis=0, method="higher").astype(np.int64)
    return Stability(ranks, low, high, kendall_taus(full, ranks))


def kendall_taus(reference: NDArray[np.int64], ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Kendall's tau-b between one ranking (variants,) and each of several (resamples, variants)."""
    first, second = np.triu_indices(len(reference), k=1)
    one = np.sign(reference[first] - reference[second])
    others = np.sign(ranks[:, first] - ranks[:, second])
    untied = np.sqrt(np.abs(one).sum() * np.abs(others).sum(axis=1).astype(np.float64))
    taus = np.full(len(ranks), np.nan)
    np.divide(others @ one, untied, out=taus, where=untied > 0)
    return taus
