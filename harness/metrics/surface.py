"""Normalised surface distance (surface Dice at a tolerance) of two masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from harness.metrics.dice import BoolArray, as_masks
from harness.metrics.elements import element_sizes, neighbour_codes

BLOCK_ELEMENTS = 2_000_000
"""Elements worked on at once; bounds the memory of a distance transform to about 100 MB."""


def surface_dice(gt: NDArray[Any], seg: NDArray[Any], spacing: Sequence[float], tolerance: float) -> float:
    """Normalised surface distance: the share of both surfaces that lies within ``tolerance`` of the other surface.

    Surface elements, their sizes and positions are those of Nikolov et al. 2021, see ``harness.metrics.elements``; the
    distance of an element is the Euclidean distance to the nearest element of the other surface.  A (H,W,1) slab is a
    volume like any other: every pixel of it is surface.

    Args:
        gt: ground truth, boolean, 2D or 3D.
        seg: prediction, boolean, of the same shape.
        spacing: distance between pixel centres along each array axis (mm, or pixels if all 1).
        tolerance: largest accepted distance, in the unit of ``spacing``; a distance equal to it is accepted.

    Returns:
        A value in [0, 1]; ``nan`` if both masks are empty (0/0: undefined), 0 if only one is.

    Raises:
        ValueError: shapes differ, not 2D or 3D, or a spacing of the wrong length or not positive.
    """
    a, b = as_masks(gt, seg)
    _check(a.ndim, spacing)
    box = _bounding_box(a | b)
    if box is None:
        return math.nan
    a, b = a[box], b[box]
    if not a.any() or not b.any():
        return 0.0
    codes_a, codes_b = neighbour_codes(a), neighbour_codes(b)
    total = _count(codes_a) + _count(codes_b)
    near = np.zeros_like(total)
    for block, core in _blocks(codes_a.shape, float(spacing[0]), tolerance):
        near += _count_near(codes_a[block], codes_b[block], core, spacing, tolerance)
        near += _count_near(codes_b[block], codes_a[block], core, spacing, tolerance)
    sizes = element_sizes(spacing)
    return float(near @ sizes) / float(total @ sizes)


def _check(ndim: int, spacing: Sequence[float]) -> None:
    if ndim not in (2, 3):
        raise ValueError(f"surface_dice takes 2D or 3D masks, not {ndim}D")
    if len(spacing) != ndim:
        raise ValueError(f"spacing has {len(spacing)} values for a mask of {ndim} dimensions")
    if not all(s > 0 and math.isfinite(s) for s in spacing):
        raise ValueError(f"spacing must be positive, not {tuple(spacing)}")


def _bounding_box(mask: BoolArray) -> tuple[slice, ...] | None:
    box = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        hit = np.flatnonzero(mask.any(axis=others))
        if hit.size == 0:
            return None
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return tuple(box)


def _blocks(shape: tuple[int, ...], step: float, tolerance: float) -> list[tuple[slice, slice]]:
    """Blocks along the first axis: the rows to look at, and the rows among them whose elements are counted.

    Rows within the tolerance on either side are looked at as well, so the verdict "within the tolerance" is the same as
    without blocks.
    """
    rows = shape[0]
    halo = rows if not math.isfinite(tolerance) else min(rows, math.ceil(max(tolerance, 0.0) / step) + 1)
    height = max(1, BLOCK_ELEMENTS // max(1, math.prod(shape[1:])) - 2 * halo)
    blocks = []
    for start in range(0, rows, height):
        stop = min(rows, start + height)
        first, last = max(0, start - halo), min(rows, stop + halo)
        blocks.append((slice(first, last), slice(start - first, stop - first)))
    return blocks


def _is_border(codes: NDArray[np.uint8]) -> BoolArray:
    full = 15 if codes.ndim == 2 else 255
    border: BoolArray = (codes != 0) & (codes != full)
    return border


def _count(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often every code occurs: elements of one code are alike, so counts say everything about sizes."""
    counts = np.zeros(16 if codes.ndim == 2 else 256, dtype=np.int64)
    for row in codes:
        counts += np.bincount(row.ravel(), minlength=len(counts))
    return counts


def _count_near(
    codes: NDArray[np.uint8], other: NDArray[np.uint8], core: slice, spacing: Sequence[float], tolerance: float
) -> NDArray[np.int64]:
    """How often every border code occurs in the rows ``core`` within the tolerance of the border in ``other``."""
    length = 16 if codes.ndim == 2 else 256
    target, wanted = _is_border(other), _is_border(codes[core])
    if not target.any() or not wanted.any():
        return np.zeros(length, dtype=np.int64)
    distance = distance_transform_edt(~target, sampling=tuple(spacing))
    return np.bincount(codes[core][wanted & (distance[core] <= tolerance)], minlength=length)
