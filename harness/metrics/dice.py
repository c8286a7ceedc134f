"""Overlap of two masks: Dice similarity coefficient, relative volume error, IoU of the bounding boxes."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from harness.metrics.boxes import BoolArray, Box
from harness.metrics.pair import MaskPair, pair_of_masks

__all__ = ["BoolArray", "box_iou", "dice", "pair_box_iou", "pair_dice", "pair_volume_error", "volume_error"]


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
    return pair_dice(pair_of_masks(gt, seg))


def volume_error(gt: NDArray[Any], seg: NDArray[Any]) -> float:
    """Relative volume error (|B|-|A|) / |A|: positive if the prediction is too large, -1 if it is empty.

    Args:
        gt: ground truth A, boolean, any number of dimensions; in 2D the volume is an area.
        seg: prediction B, boolean, of the same shape.

    Returns:
        A value from -1; ``nan`` if the ground truth is empty, since no volume is a share of nothing.

    Raises:
        ValueError: the shapes differ.
    """
    return pair_volume_error(pair_of_masks(gt, seg))


def box_iou(gt: NDArray[Any], seg: NDArray[Any]) -> float:
    """Intersection over union of the bounding boxes of two masks, pixels counted whole.

    Args:
        gt: ground truth, boolean, any number of dimensions.
        seg: prediction, boolean, of the same shape.

    Returns:
        A value in [0, 1]; ``nan`` if both masks are empty, 0 if only one is.

    Raises:
        ValueError: the shapes differ.
    """
    return pair_box_iou(pair_of_masks(gt, seg))


def pair_dice(pair: MaskPair) -> float:
    """``dice`` of a pair."""
    if pair.empty:
        return math.nan
    gt, seg, both = pair.counts()
    return 2 * both / (gt + seg)


def pair_volume_error(pair: MaskPair) -> float:
    """``volume_error`` of a pair."""
    if pair.gt_box is None:
        return math.nan
    gt, seg, _ = pair.counts()
    return (seg - gt) / gt


def pair_box_iou(pair: MaskPair) -> float:
    """``box_iou`` of a pair."""
    a, b = pair.gt_box, pair.seg_box
    if a is None or b is None:
        return math.nan if pair.empty else 0.0
    sides = [(max(p.start, q.start), min(p.stop, q.stop)) for p, q in zip(a, b, strict=True)]
    common = math.prod(max(0, stop - start) for start, stop in sides)
    return float(common / (_size(a) + _size(b) - common))


def _size(box: Box) -> int:
    return math.prod(side.stop - side.start for side in box)
