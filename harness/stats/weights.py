"""Resampling as weights: how often each case is drawn, so that a resampled mean is one row of a matrix product.

Drawing n cases out of n with replacement and counting them gives multinomial counts, exactly (no Poisson weights).  The
same weights serve all columns of a matrix of cases × variants: their resampled means are then paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

ELEMENTS = 1 << 21
"""Weights in a block: 16 MiB of float64, with what makes them 50 MiB."""


def resampling_weights(clusters: int, samples: int, seed: int = 0) -> Iterator[NDArray[np.float64]]:
    """Multinomial counts of ``samples`` resamplings of ``clusters`` units with replacement, block by block.

    Yields:
        Blocks of shape (block, clusters), together ``samples`` rows; every row is whole numbers that sum to
        ``clusters``.  A block holds at most `ELEMENTS` weights (one row at least).  The same arguments give the same
        weights.

    Raises:
        ValueError: no units or no samples.
    """
    return stratified_weights([clusters], samples, seed)


def stratified_weights(sizes: Sequence[int], samples: int, seed: int = 0) -> Iterator[NDArray[np.float64]]:
    """As `resampling_weights`, drawn within strata: units are in order of their stratum, ``sizes`` units in each.

    The weights of every stratum sum to its size in every row.
    """
    if min(sizes, default=0) < 1 or samples < 1:
        raise ValueError("resampling needs at least one unit in every stratum and one sample")
    return _blocks(list(sizes), samples, np.random.default_rng(seed))


def _blocks(sizes: list[int], samples: int, source: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    units = sum(sizes)
    starts = np.cumsum([0, *sizes[:-1]])
    most = max(1, ELEMENTS // units)
    for done in range(0, samples, most):
        rows = min(most, samples - done)
        drawn = np.empty((rows, units), dtype=np.int64)
        for start, size in zip(starts, sizes, strict=True):
            drawn[:, start : start + size] = source.integers(start, start + size, size=(rows, size))
        drawn += np.arange(rows, dtype=np.int64)[:, None] * units
        yield np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float64)
