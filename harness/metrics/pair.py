"""The two masks of one object, read in parts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.metrics.boxes import BLOCK_ELEMENTS, BoolArray, Box, mask_box, union


@dataclass(frozen=True)
class MaskPair:
    """The true and the predicted mask of one object, inside the box that holds both.

    Nothing is copied: a mask is compared with its label where it is read, some rows at a time.

    Attributes:
        gt, seg: views of the label maps inside the box, or of boolean masks.
        label: the object's label in the maps.
        gt_box, seg_box: bounding boxes in the whole maps, ``None`` of an empty mask.
    """

    gt: NDArray[Any]
    seg: NDArray[Any]
    label: int
    gt_box: Box | None
    seg_box: Box | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the box that holds both masks."""
        return self.gt.shape

    @property
    def empty(self) -> bool:
        """Whether neither mask has a pixel."""
        return self.gt_box is None and self.seg_box is None

    @property
    def one_empty(self) -> bool:
        """Whether one mask has pixels and the other has none."""
        return (self.gt_box is None) != (self.seg_box is None)

    def rows(self, start: int, stop: int) -> tuple[BoolArray, BoolArray]:
        """Both masks between two indices of the first axis."""
        return self.gt[start:stop] == self.label, self.seg[start:stop] == self.label

    def counts(self) -> tuple[int, int, int]:
        """Pixels of the true mask, of the predicted one, and of both."""
        first = second = both = 0
        for start, stop in self._parts():
            a, b = self.rows(start, stop)
            first += int(np.count_nonzero(a))
            second += int(np.count_nonzero(b))
            both += int(np.count_nonzero(a & b))
        return first, second, both

    def slab(self) -> MaskPair:
        """The same masks of an image as a volume (H,W,1)."""
        depth = (slice(0, 1),)
        boxes = [None if box is None else box + depth for box in (self.gt_box, self.seg_box)]
        return MaskPair(self.gt[..., None], self.seg[..., None], self.label, *boxes)

    def _parts(self) -> Iterator[tuple[int, int]]:
        height = max(1, BLOCK_ELEMENTS // max(1, math.prod(self.shape[1:])))
        for start in range(0, self.shape[0], height):
            yield start, min(self.shape[0], start + height)


def pair_of_masks(gt: NDArray[Any], seg: NDArray[Any]) -> MaskPair:
    """The pair of two masks of equal shape, boolean or anything whose truth says what is inside.

    Raises:
        ValueError: the shapes differ.
    """
    if gt.shape != seg.shape:
        raise ValueError(f"the masks differ in shape: ground truth {gt.shape}, prediction {seg.shape}")
    a, b = np.asarray(gt, dtype=bool), np.asarray(seg, dtype=bool)
    return pair_of_label(a.view(np.uint8), b.view(np.uint8), 1, mask_box(a), mask_box(b))


def pair_of_label(
    gts: NDArray[Any], segs: NDArray[Any], label: int, gt_box: Box | None, seg_box: Box | None
) -> MaskPair:
    """The pair of a label of two maps of equal shape, from the boxes of the label in each."""
    box = union(gt_box, seg_box) or (slice(0, 0),) * gts.ndim
    return MaskPair(gts[box], segs[box], label, gt_box, seg_box)
