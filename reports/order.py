"""Statistics of warm times: percentiles where n allows them, and which of two is faster."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from statistics import median

PERCENTILES: tuple[float, ...] = (0.9, 0.95, 0.99)
BEYOND = 10
"""Observations expected beyond a percentile, below which it is the accident of a few."""
FEWEST = 6
"""Observations from which on a median has an interval, see `harness.stats.median_interval`."""

Interval = tuple[float, float]


def needed(share: float) -> int:
    """Observations that a percentile needs: ``BEYOND / (1 - share)``; 100 for p90, 200 for p95, 1000 for p99."""
    return round(BEYOND / (1 - share))


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least ``share`` of all reach or stay below; ``None`` if there are too few."""
    if len(values) < needed(share):
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -floor(-share * len(ordered)) - 1))]


def faster(one: Interval | None, other: Interval | None) -> int | None:
    """−1 if the first takes clearly less, 1 if it takes clearly more, 0 if the intervals overlap, ``None``: unknown."""
    if one is None or other is None:
        return None
    return -1 if one[1] < other[0] else int(one[0] > other[1])


def middle(values: Sequence[float]) -> float | None:
    """The median; ``None`` of nothing."""
    return median(values) if values else None
