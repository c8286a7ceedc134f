"""Which steps from one array index to another stay within a distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Offsets = NDArray[np.int64]

ALIKE = 1e-9
"""Distances that differ by this share of the tolerance are the same but for rounding."""
MOST_OFFSETS = 5000
"""More steps than this are not tried one after the other."""


@dataclass(frozen=True)
class Ball:
    """Steps within a tolerance, in float64: ``sqrt((i·s0)² + (j·s1)² [+ (k·s2)²]) <= tolerance``.

    Where steps of mathematically equal length, the tolerance, fall on both sides of it by rounding (with a spacing of
    1.1 and a tolerance of 5.5, five steps along an axis are 5.5 and three with four across it a little more), the
    ones on either side are kept apart: for them alone it matters which element a distance transform calls the nearest.

    Attributes:
        inside: (n, ndim) steps within the tolerance, nearest first, without those of ``edge``.
        edge: steps of the tolerance's length that rounding leaves inside, if it leaves others outside.
        beyond: those that it leaves outside, if it leaves others inside.
        reach: largest step along each axis.
    """

    inside: Offsets
    edge: Offsets
    beyond: Offsets
    reach: tuple[int, ...]


def ball(spacing: Sequence[float], tolerance: float, shape: Sequence[int]) -> Ball | None:
    """The steps within ``tolerance`` between elements of masks of a shape; ``None`` if they are too many to try.

    Args:
        spacing: distance of neighbours along each axis.
        tolerance: in the unit of ``spacing``, finite, not negative.
        shape: of the masks; no step is longer than they are.
    """
    wide = tolerance * (1 + ALIKE)
    reach = [min(n, math.floor(min(wide / s, n))) for n, s in zip(shape, spacing, strict=True)]
    if math.prod(2 * r + 1 for r in reach) > 2 * MOST_OFFSETS:
        return None
    return _ball(tuple(float(s) for s in spacing), float(tolerance), tuple(reach))


@lru_cache(maxsize=256)
def _ball(spacing: tuple[float, ...], tolerance: float, reach: tuple[int, ...]) -> Ball:
    steps = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), axis=-1)
    steps = steps.reshape(-1, len(reach))
    distance = lengths(steps, spacing)
    order = np.argsort(distance, kind="stable")
    steps, distance = steps[order], distance[order]
    rim = np.abs(distance - tolerance) <= ALIKE * tolerance
    edge, beyond = steps[rim & (distance <= tolerance)], steps[rim & (distance > tolerance)]
    if len(edge) and len(beyond):
        return Ball(steps[(distance <= tolerance) & ~rim], edge, beyond, reach)
    none = steps[:0]
    return Ball(steps[distance <= tolerance], none, none, reach)


def lengths(steps: Offsets, spacing: Sequence[float]) -> NDArray[np.float64]:
    """Euclidean lengths of (n, ndim) steps, added up along the axes in their order as a distance transform does."""
    total = np.zeros(len(steps))
    for axis, s in enumerate(spacing):
        along = steps[:, axis] * float(s)
        total += along * along
    return np.sqrt(total)
