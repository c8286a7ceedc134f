"""Normalised surface distance (surface Dice at a tolerance) and 95 % Hausdorff distance of two masks.

Neither needs a distance at every voxel.  For the surface Dice an element asks whether the other surface has an element
at one of the few steps that stay within the tolerance, the nearest first, and most are answered at once.  Where that is
no answer (a tolerance of very many voxels, or steps as long as the tolerance that rounding puts on both sides of it), a
Euclidean distance transform decides as in the definition's own implementation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from harness.metrics.ball import Ball, ball, lengths
from harness.metrics.borders import Block, Places, blocks_of
from harness.metrics.boxes import BoolArray
from harness.metrics.elements import element_sizes
from harness.metrics.pair import MaskPair, pair_of_masks

Counts = NDArray[np.int64]

AT_ONCE = 1 << 16
"""Looks at other elements that are done in one operation; more are done offset by offset, in less memory."""


def surface_dice(gt: NDArray[Any], seg: NDArray[Any], spacing: Sequence[float], tolerance: float) -> float:
    """Normalised surface distance: the share of both surfaces that lies within ``tolerance`` of the other surface.

    Surface elements, their sizes and positions are those of Nikolov et al. 2021, see ``harness.metrics.elements``; the
    distance of an element is the Euclidean distance to the nearest element of the other surface.  A (H,W,1) slab is a
    volume like any other: every pixel of it is surface.

    Args:
        gt: ground truth, boolean, 2D or 3D.
        seg: prediction, boolean, of the same shape.
        spacing: distance between pixel centres along each array axis (mm, or pixels if all 1).
        tolerance: largest accepted distance, in the unit of ``spacing``; one equal to it (in float64) is accepted.

    Returns:
        A value in [0, 1]; ``nan`` if both masks are empty (0/0: undefined), 0 if only one is.

    Raises:
        ValueError: shapes differ, not 2D or 3D, or a spacing of the wrong length or not positive.
    """
    return pair_surface_dice(pair_of_masks(gt, seg), spacing, tolerance)


def hd95(gt: NDArray[Any], seg: NDArray[Any], spacing: Sequence[float]) -> float:
    """95 % Hausdorff distance: 95 % of either surface is not farther than this from the other.

    As ``surface_dice`` it counts surface elements with their sizes: per direction the distance at which the sizes of
    the elements, sorted by distance, add up to 95 % of the surface; of the two directions the larger.

    Args:
        gt: ground truth, boolean, 2D or 3D.
        seg: prediction, boolean, of the same shape.
        spacing: distance between pixel centres along each array axis (mm, or pixels if all 1).

    Returns:
        A distance in the unit of ``spacing``; ``nan`` if both masks are empty, ``inf`` if only one is.

    Raises:
        ValueError: as ``surface_dice``.
    """
    return pair_hd95(pair_of_masks(gt, seg), spacing)


def pair_surface_dice(pair: MaskPair, spacing: Sequence[float], tolerance: float) -> float:
    """``surface_dice`` of a pair."""
    _check(pair, spacing)
    if pair.empty:
        return math.nan
    if pair.one_empty or not tolerance >= 0:
        return 0.0
    if tolerance == math.inf:
        return 1.0
    steps = ball(spacing, tolerance, pair.shape)
    counted = None if steps is None else _count(pair, steps)
    total, far = counted or _count_by_transform(pair, spacing, tolerance)
    sizes = element_sizes(spacing)
    return float((total - far) @ sizes) / float(total @ sizes)


def pair_hd95(pair: MaskPair, spacing: Sequence[float]) -> float:
    """``hd95`` of a pair."""
    _check(pair, spacing)
    if pair.empty:
        return math.nan
    if pair.one_empty:
        return math.inf
    a, b = _elements(pair)
    table = element_sizes(spacing)
    there = _percentile(_nearest(a.points, b.points, spacing), table[a.codes])
    return max(there, _percentile(_nearest(b.points, a.points, spacing), table[b.codes]))


def _check(pair: MaskPair, spacing: Sequence[float]) -> None:
    ndim = len(pair.shape)
    if ndim not in (2, 3):
        raise ValueError(f"surface distances take 2D or 3D masks, not {ndim}D")
    if len(spacing) != ndim:
        raise ValueError(f"spacing has {len(spacing)} values for a mask of {ndim} dimensions")
    if not all(s > 0 and math.isfinite(s) for s in spacing):
        raise ValueError(f"spacing must be positive, not {tuple(spacing)}")


def _count(pair: MaskPair, steps: Ball) -> tuple[Counts, Counts] | None:
    """How often every code occurs on both surfaces, and how often beyond the tolerance; ``None``: undecided.

    Elements of one code are alike, so whole numbers say everything about sizes, and no sum of them is rounded.
    """
    length = 16 if len(pair.shape) == 2 else 256
    total, far = np.zeros(length, np.int64), np.zeros(length, np.int64)
    for block in blocks_of(pair, steps.reach):
        beyond = _beyond(block, steps)
        if beyond is None:
            return None
        total += np.bincount(block.codes[block.places], minlength=length)
        far += np.bincount(block.codes[beyond], minlength=length)
    return total, far


def _beyond(block: Block, steps: Ball) -> Places | None:
    """The elements of either surface that have none of the other within the tolerance; ``None``: undecided."""
    places, mirrored = block.places, block.mirrored()
    offsets = steps.inside @ block.strides
    start, group = 0, 1 if len(places) * len(offsets) > AT_ONCE else len(offsets)
    while start < len(offsets) and places.size:
        left = ~_hit(block.border, mirrored, offsets[start : start + group])
        places, mirrored = places[left], mirrored[left]
        start, group = start + group, 2 * group + 2
    if not len(steps.edge) or not places.size:
        return places
    accepted = _hit(block.border, mirrored, steps.edge @ block.strides)
    if (accepted & _hit(block.border, mirrored, steps.beyond @ block.strides)).any():
        return None
    return places[~accepted]


def _hit(border: BoolArray, mirrored: Places, offsets: NDArray[np.int64]) -> BoolArray:
    """Whether there is an element at one of the offsets from each place."""
    if len(mirrored) * len(offsets) <= AT_ONCE:
        some: BoolArray = border[mirrored + offsets[:, None]].any(axis=0)
        return some
    hit = np.zeros(len(mirrored), bool)
    for offset in offsets.tolist():
        hit |= border[mirrored + offset]
    return hit


def _count_by_transform(pair: MaskPair, spacing: Sequence[float], tolerance: float) -> tuple[Counts, Counts]:
    """As ``_count``, by the distance transform that the definition's implementation takes."""
    length = 16 if len(pair.shape) == 2 else 256
    total, far = np.zeros(length, np.int64), np.zeros(length, np.int64)
    a, b = _elements(pair)
    for own, other in ((a, b), (b, a)):
        apart = np.ones(tuple(n + 1 for n in pair.shape), bool)
        apart[tuple(other.points.T)] = False
        distance = distance_transform_edt(apart, sampling=tuple(spacing))
        beyond = ~(distance[tuple(own.points.T)] <= tolerance)
        total += np.bincount(own.codes, minlength=length)
        far += np.bincount(own.codes[beyond], minlength=length)
    return total, far


@dataclass(frozen=True)
class _Elements:
    """Surface elements of one mask: array indices (n, ndim) and codes (n,)."""

    points: NDArray[np.int64]
    codes: NDArray[np.uint8]


def _elements(pair: MaskPair) -> tuple[_Elements, _Elements]:
    """All surface elements of the ground truth and of the prediction."""
    parts: tuple[list[_Elements], list[_Elements]] = ([], [])
    for block in blocks_of(pair, (0,) * len(pair.shape)):
        for places, found in zip(block.split(), parts, strict=True):
            found.append(_Elements(block.points(places), block.codes[places]))
    joined = [
        _Elements(np.concatenate([p.points for p in found]), np.concatenate([p.codes for p in found]))
        for found in parts
    ]
    return joined[0], joined[1]


def _nearest(points: NDArray[np.int64], others: NDArray[np.int64], spacing: Sequence[float]) -> NDArray[np.float64]:
    """Distance of every point to the nearest of the others, from their whole-number difference."""
    scale = np.asarray(spacing, dtype=np.float64)
    tree = cKDTree(others * scale, balanced_tree=False, compact_nodes=False)
    _, nearest = tree.query(points * scale)
    return lengths(points - others[nearest], spacing)


def _percentile(distances: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    order = np.lexsort((sizes, distances))
    shares = np.cumsum(sizes[order]) / np.sum(sizes[order])
    place = min(int(np.searchsorted(shares, 0.95)), len(order) - 1)
    return float(distances[order][place])
