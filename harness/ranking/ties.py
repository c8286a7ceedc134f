"""Tie groups: variants that the data cannot separate share a rank.

Rule: going down the scores, the best variant that is in no group yet leads the next one; every variant that the leader
does not beat joins it.  Where several variants lead with equal scores, all of them lead, and one of them beating a
variant is enough to keep it out.  The rank of a group is one more than the number of variants in the groups before.
Nothing in this depends on the order in which variants or cases are given.

A variant beats another if its mean score over the cases is better and the two-sided sign-flip test of the paired
differences says so at the rule's level, adjusted after Holm for all pairs (`harness.stats.paired`).  The test is of the
mean, as the scheme is: no variant beats another whose mean is better.  For the test-based scheme, equal shares of
beaten rivals are the groups.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from harness.ranking.rules import Rule
from harness.ranking.schemes import case_ranks, case_shares, costs_of
from harness.ranking.table import Matrix, Table
from harness.stats.paired import holm
from harness.stats.signflip import sign_flips

ELEMENTS = 1 << 21
"""Paired differences that are held at once: 16 MiB."""


def case_scores(table: Table, rule: Rule) -> Matrix:
    """(cases, variants), lower is better: what pairs of variants are compared by.

    One metric averaged as it is: its values; otherwise the ranks on the case.  Weighed so that their mean over cases is
    the mean over modalities where the rule asks for that.
    """
    weigh = case_shares(table, rule)[:, None] * table.cases
    if rule.scheme == "aggregate-then-rank" and len(rule.weights) == 1:
        metric = next(iter(rule.weights))
        costs = costs_of(table.values[metric], metric)
        if np.isfinite(costs).all():
            return costs * weigh
    return case_ranks(table, rule) * weigh


def beats(scores: Matrix, alpha: float = 0.05) -> NDArray[np.bool_]:
    """(variants, variants): ``[i, j]`` is true if i beats j; ``scores``: (cases, variants), lower is better."""
    variants = scores.shape[1]
    pairs = list(combinations(range(variants), 2))
    result = np.zeros((variants, variants), dtype=bool)
    if not pairs:
        return result
    at_once = max(1, ELEMENTS // len(scores))
    p_values: list[float | None] = []
    means: list[float] = []
    for first in range(0, len(pairs), at_once):
        batch = pairs[first : first + at_once]
        gaps = np.stack([scores[:, other] - scores[:, one] for one, other in batch], axis=1)
        p_values += sign_flips(gaps)
        means += gaps.mean(axis=0).tolist()
    for (one, other), mean, p in zip(pairs, means, holm(p_values), strict=True):
        if p is not None and p < alpha:
            better, worse = (one, other) if mean > 0 else (other, one)
            result[better, worse] = True
    return result


def groups(scores: NDArray[np.float64], beaten: NDArray[np.bool_]) -> list[list[int]]:
    """Tie groups in order of rank, each a list of variants in order of their scores.

    Args:
        scores: (variants,), lower is better.
        beaten: (variants, variants) of `beats`.
    """
    left = sorted(range(len(scores)), key=lambda v: scores[v])
    found: list[list[int]] = []
    while left:
        leaders = [v for v in left if scores[v] == scores[left[0]]]
        group = [v for v in left if v in leaders or not beaten[leaders, v].any()]
        found.append(group)
        left = [v for v in left if v not in group]
    return found
