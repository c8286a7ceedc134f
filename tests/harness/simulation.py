"""Made-up DSC of cases: skewed by their difficulty, noisier on hard cases, some failures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def difficulty(source: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """What a case allows: mostly near 0.9, a long tail of hard cases."""
    return source.beta(5.0, 1.2, shape)


def scores(source: np.random.Generator, allowed: Floats, failing: float = 0.0) -> Floats:
    """DSC of one variant on the cases; a share ``failing`` of them counts as 0."""
    noise = source.normal(0.0, 0.01 + 0.1 * (1 - allowed), allowed.shape)
    found = np.clip(allowed + noise, 0.0, 1.0)
    return np.where(source.random(allowed.shape) < failing, 0.0, found)
