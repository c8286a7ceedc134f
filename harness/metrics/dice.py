"""Dice similarity coefficient of two masks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]


def dice(gt: NDArray[Any], seg: NDArray[Any]) -> float:
    """Dice similarity coefficient 2|A∩B| / (|A|+|B|) of two masks of equal shape (Dice 1945).

    Args:
        gt: ground truth, boolean, any number of dimensions.
        seg: prediction, boolean, of the same shape.

    Returns:
        A value in [0, 1]; ``nan`` if both masks are empty (0/0: undefined), 0 if only one is.

    Raises:
        ValueError: the shapes differ.
    """
    a, b = as_masks(gt, seg)
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    if total == 0:
        return math.nan
    return 2 * int(np.count_nonzero(a & b)) / total


def as_masks(gt: NDArray[Any], seg: NDArray[Any]) -> tuple[BoolArray, BoolArray]:
    """Both arrays as boolean masks; a ``ValueError`` if their shapes differ."""
    if gt.shape != seg.shape:
        raise ValueError(f"the masks differ in shape: ground truth {gt.shape}, prediction {seg.shape}")
    return np.asarray(gt, dtype=bool), np.asarray(seg, dtype=bool)
