"""The three schemes as functions of weights on cases: a resample of the cases is a row of counts, see `harness.stats`.

What depends on a case alone (its ranks, its costs) is computed once; a resample is then a weighted sum of it.  Scores
are lower for better variants throughout; those that agree to nine decimals are equal.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from harness.ranking.rules import Rule
from harness.ranking.significance import beaten
from harness.ranking.table import Matrix, Table
from harness.schema import METRICS

Scorer = Callable[[Matrix], Matrix]
"""(resamples, cases) counts → (resamples, variants) scores."""
EQUAL_DECIMALS = 9


def ranks_of(costs: Matrix, ties: str = "average") -> Matrix:
    """Ranks along the last axis, 1 for the lowest cost.

    Args:
        costs: (..., variants); NaN or infinite: failed or missing, which takes the worst rank, the number of variants,
            however many there are.
        ties: rank of equal costs: ``average`` of the places they take, or ``min``, the first of them.
    """
    variants = costs.shape[-1]
    known = np.isfinite(costs)
    ranks = np.ones(costs.shape)
    for other in range(variants):
        rival = costs[..., other : other + 1]
        with np.errstate(invalid="ignore"):
            ranks += known[..., other : other + 1] & (rival < costs)
            if ties == "average":
                ranks += 0.5 * (rival == costs)
    if ties == "average":
        ranks -= 0.5  # every cost is equal to itself
    return np.where(known, ranks, float(variants))


def costs_of(values: Matrix, metric: str) -> Matrix:
    """Values as costs, lower is better; failed and missing ones have the worst there is: 0, or infinity."""
    higher = METRICS[metric].direction == "higher"
    costs: Matrix = np.where(np.isnan(values), 0.0 if higher else np.inf, -values if higher else values)
    return costs


def case_ranks(table: Table, rule: Rule) -> Matrix:
    """(cases, variants): ranks on every case, averaged over the metrics by their weights."""
    total = np.zeros((table.cases, len(table.variants)))
    for metric, weight in rule.weights.items():
        sign = -1.0 if METRICS[metric].direction == "higher" else 1.0
        total += weight * ranks_of(sign * table.values[metric], rule.ties)
    return _rounded(total / sum(rule.weights.values()))


def case_shares(table: Table, rule: Rule) -> NDArray[np.float64]:
    """(cases,): what each case contributes to a mean, sum 1; the same a case, or the same a modality."""
    if rule.average == "cases" or not table.strata:
        return np.full(table.cases, 1 / table.cases)
    _, codes, sizes = np.unique(np.array(table.strata, dtype=str), return_inverse=True, return_counts=True)
    shares: NDArray[np.float64] = 1 / (len(sizes) * sizes[codes])
    return shares


def scorer(table: Table, rule: Rule) -> Scorer:
    """The scheme of a rule on these values."""
    if rule.scheme == "rank-then-aggregate":
        contributions = case_ranks(table, rule) * case_shares(table, rule)[:, None]
        return lambda weights: _rounded(weights @ contributions)
    if rule.scheme == "aggregate-then-rank":
        return _aggregated(table, rule)
    return _tested(table, rule)


def final_ranks(scores: Matrix) -> NDArray[np.int64]:
    """Ranks of scores along the last axis; equal scores share the first of their places."""
    return ranks_of(scores, "min").astype(np.int64)


def _rounded(scores: Matrix) -> Matrix:
    """So that sums that differ in the order of their terms alone are equal."""
    return np.round(scores, EQUAL_DECIMALS)


def _weighted(per_metric: list[Matrix], rule: Rule) -> Matrix:
    parts = [weight * part for weight, part in zip(rule.weights.values(), per_metric, strict=True)]
    return _rounded(sum(parts[1:], parts[0]) / sum(rule.weights.values()))


def _aggregated(table: Table, rule: Rule) -> Scorer:
    costs = [costs_of(table.values[metric], metric) for metric in rule.weights]
    shares = case_shares(table, rule)
    groups = _groups(table) if rule.average == "modalities" else [np.arange(table.cases)]
    if rule.aggregate == "mean":
        aggregates = [_means(matrix, shares) for matrix in costs]
    else:
        aggregates = [_medians(matrix, groups) for matrix in costs]
    return lambda weights: _weighted([ranks_of(_rounded(a(weights)), rule.ties) for a in aggregates], rule)


def _groups(table: Table) -> list[NDArray[np.intp]]:
    if not table.strata:
        return [np.arange(table.cases)]
    strata = np.array(table.strata, dtype=str)
    return [np.flatnonzero(strata == name) for name in np.unique(strata)]


def _means(costs: Matrix, shares: NDArray[np.float64]) -> Scorer:
    endless = np.isinf(costs)
    contributions = np.where(endless, 0.0, costs) * shares[:, None]
    if not endless.any():
        return lambda weights: weights @ contributions
    return lambda weights: np.where(weights @ endless > 0, np.inf, weights @ contributions)


def _medians(costs: Matrix, groups: list[NDArray[np.intp]]) -> Scorer:
    """Mean over the groups of the median of the drawn cases; a group of which no case was drawn is left out."""

    def aggregate(weights: Matrix) -> Matrix:
        total, counted = np.zeros((len(weights), costs.shape[1])), np.zeros((len(weights), 1))
        for members in groups:
            drawn = weights[:, members]
            some = drawn.sum(axis=1) > 0
            columns = [weighted_medians(costs[members, v], drawn[some]) for v in range(costs.shape[1])]
            total[some] += np.stack(columns, axis=1)
            counted[some] += 1
        return total / counted

    return aggregate


def weighted_medians(values: NDArray[np.float64], weights: Matrix) -> NDArray[np.float64]:
    """Median of the values of each resample; ``weights`` (resamples, cases) whole numbers, at least one drawn each."""
    order = np.argsort(values, kind="stable")
    until = np.cumsum(weights[:, order], axis=1)
    count = until[:, -1:]
    lower = (until < np.floor((count + 1) / 2)).sum(axis=1)
    upper = (until < np.floor(count / 2) + 1).sum(axis=1)
    medians: NDArray[np.float64] = (values[order][lower] + values[order][upper]) / 2
    return medians


def _tested(table: Table, rule: Rule) -> Scorer:
    costs = [costs_of(table.values[metric], metric) for metric in rule.weights]
    rivals = max(1, len(table.variants) - 1)

    def score(weights: Matrix) -> Matrix:
        resamples = None if bool((weights == 1).all()) else weights
        found = [beaten(matrix, rule.alpha, rule.adjust, resamples).sum(axis=2) for matrix in costs]
        return _weighted([-wins / rivals for wins in found], rule)

    return score
