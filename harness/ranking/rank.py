"""A ranking: the order by a rule, with tie groups and with how far it rests on its cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import BenchError
from harness.ranking.rules import Rule
from harness.ranking.schemes import final_ranks, scorer
from harness.ranking.stability import (
    FEWEST_CASES,
    Stability,
    affordable_samples,
    resample,
    sorted_by_stratum,
    strata_sizes,
)
from harness.ranking.table import Table
from harness.ranking.ties import beats, case_scores, groups


@dataclass(frozen=True)
class Standing:
    """Where one variant stands.

    Attributes:
        variant: its name.
        rank: that of its tie group.
        place: by the score alone; equal scores share it.
        score: mean rank (lower is better), or for ``test-based`` the share of rivals beaten (higher is better).
        low, high: 95 % interval of the place over resamples; ``None`` where there are too few cases.
        group: 1-based number of the tie group.
        shares_with: the others of the group.
        not_separable: variants of other groups that the data do not separate from it all the same.
    """

    variant: str
    rank: int
    place: int
    score: float
    low: int | None
    high: int | None
    group: int
    shares_with: tuple[str, ...]
    not_separable: tuple[str, ...]


@dataclass(frozen=True)
class Ranking:
    """Variants in order, by rank, then by score.

    Attributes:
        rule: by which rule.
        standings: one a variant.
        cases: how many cases it rests on; ``left_out``: how many lack a metric or have it undefined.
        samples: number of resamples, 0 where there are too few cases.
        tau: mean of Kendall's tau-b between the ranking and those of the resamples; ``None`` without resamples.
        tau_low, tau_high: its 2.5 and 97.5 % quantiles.
        same_order: share of the resamples with exactly this order.
    """

    rule: Rule
    standings: tuple[Standing, ...]
    cases: int
    left_out: int
    samples: int
    tau: float | None
    tau_low: float | None
    tau_high: float | None
    same_order: float | None


def rank(table: Table, rule: Rule, samples: int | None = None, seed: int = 0) -> Ranking:
    """Rank the variants of a table.

    Args:
        samples: number of resamples, `affordable_samples` if left out; 0: none.

    Raises:
        BenchError: no variant, no case, or a metric of the rule that the table lacks.
    """
    missing = [metric for metric in rule.weights if metric not in table.values]
    if missing or not table.variants or not table.cases:
        what = f"no values of {missing[0]!r}" if missing else "no variant" if not table.variants else "no case"
        raise BenchError(f"ranking {rule.name!r}: there is {what} to rank by; measure it or choose another rule.")
    table = sorted_by_stratum(table)
    score = scorer(table, rule)
    scores = score(np.ones((1, table.cases)))[0]
    samples = affordable_samples(table, rule) if samples is None else samples
    enough = table.cases >= FEWEST_CASES and samples > 0 and len(table.variants) > 1
    stability = resample(score, strata_sizes(table, rule), samples, seed) if enough else None
    return Ranking(
        rule,
        _standings(table, rule, scores, stability),
        table.cases,
        table.left_out,
        samples if stability else 0,
        *_agreement(stability),
    )


def _standings(
    table: Table, rule: Rule, scores: NDArray[np.float64], stability: Stability | None
) -> tuple[Standing, ...]:
    places = final_ranks(scores)
    tested = rule.scheme == "test-based"
    separated = scores[:, None] < scores[None, :] if tested else beats(case_scores(table, rule), rule.alpha)
    names, standings, before = table.variants, [], 0
    for number, members in enumerate(groups(scores, separated), 1):
        for v in members:
            unclear = [] if tested else np.flatnonzero(~separated[v] & ~separated[:, v]).tolist()
            standings.append(
                Standing(
                    variant=names[v],
                    rank=before + 1,
                    place=int(places[v]),
                    score=float(-scores[v] if tested else scores[v]) + 0.0,  # no negative zero
                    low=int(stability.low[v]) if stability else None,
                    high=int(stability.high[v]) if stability else None,
                    group=number,
                    shares_with=tuple(names[other] for other in members if other != v),
                    not_separable=tuple(names[other] for other in unclear if other not in members),
                )
            )
        before += len(members)
    return tuple(standings)


def _agreement(stability: Stability | None) -> tuple[float | None, float | None, float | None, float | None]:
    """Mean of tau, its quantiles, and the share of resamples with the same order."""
    if stability is None:
        return None, None, None, None
    known = stability.taus[~np.isnan(stability.taus)]
    if not len(known):
        return None, None, None, None
    low, high = np.quantile(known, (0.025, 0.975))
    return float(known.mean()), float(low), float(high), float((known > 1 - 1e-12).mean())
