"""The sign-flip test of a mean of paired differences, for many comparisons at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FEWEST_PAIRS = 6
"""Differences other than 0 under which no outcome of a signed test reaches 5 %."""
ENUMERATED = 13
"""Up to this many differences all assignments of signs are counted; above it `FLIPS` random ones."""
FLIPS = 9_999
ASYMPTOTIC = 2_000
"""Above this many differences the flipped sums are normal to within what random flips could tell."""
BLOCK = 2**21
"""Signs held at once."""


def sign_flips(differences: Floats, seed: int = 0) -> list[float | None]:
    """Two-sided p of the mean of paired differences: share of the assignments of signs whose sum is as far from 0.

    Args:
        differences: shape (cases, comparisons), finite; 0 changes no sum.
        seed: of the random signs, which all comparisons share.

    Returns:
        A p-value for each comparison; ``None`` for fewer than `FEWEST_PAIRS` differences other than 0, which no outcome
        could tell apart at 5 %.
    """
    cases = len(differences)
    sums = np.abs(differences.sum(axis=0))
    if cases > ASYMPTOTIC:
        from scipy.special import ndtr

        spread = np.sqrt((differences**2).sum(axis=0))
        p_values = 2 * ndtr(-np.divide(sums, spread, out=np.zeros_like(sums), where=spread > 0))
    else:
        reached = sums * (1 - 1e-12)  # sums that differ by rounding alone are equal
        known = cases <= ENUMERATED
        hits, flips = (np.zeros(len(sums)), 0) if known else (np.ones(len(sums)), 1)
        for signs in _signs(cases, seed):
            hits += (np.abs(signs @ differences) >= reached).sum(axis=0)
            flips += len(signs)
        p_values = hits / flips
    enough = (differences != 0).sum(axis=0) >= FEWEST_PAIRS
    return [float(p) if some else None for p, some in zip(p_values, enough, strict=True)]


def _signs(cases: int, seed: int) -> Iterator[Floats]:
    """Blocks (assignments, cases) of 1 and -1: all there are, or `FLIPS` random ones."""
    if cases <= ENUMERATED:
        bits = np.arange(2**cases)[:, None] >> np.arange(cases) & 1
        yield bits.astype(np.float64) * 2 - 1
        return
    source = np.random.default_rng(seed)
    for rows in np.array_split(np.arange(FLIPS), max(1, FLIPS * cases // BLOCK)):
        drawn = source.integers(0, 256, (len(rows), -(-cases // 8)), dtype=np.uint8)
        yield np.unpackbits(drawn, axis=1)[:, :cases].astype(np.float64) * 2 - 1
