"""Decoder logits to masks of the original image, computed only where a mask can be positive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Region:
    """A mask that is false outside a rectangle: ``values`` (h,w) covers ``rows`` × ``columns`` of the image."""

    rows: slice
    columns: slice
    values: BoolArray

    def paint(self, labels: NDArray[np.unsignedinteger], label: int) -> None:
        """Write ``label`` into the label map (H,W) where the mask is true, over what stands there."""
        labels[self.rows, self.columns][self.values] = label


def positive_region(
    logits: FloatArray, input_size: int, scale_hw: tuple[int, int], original_hw: tuple[int, int]
) -> Region | None:
    """The mask of one object: padding cut off, logits resized bilinearly (half-pixel centres), > 0.

    An interpolated value is positive only if one of the four logits around it is, so only the pixels next to positive
    logits are computed.  Same rule as ``variants.preprocess.logits_to_mask`` on the whole image.

    Args:
        logits: (g,g) float32; the grid covers the network input.
        input_size: side of the network input in pixels.
        scale_hw: height and width in network pixels of the part that shows the image.
        original_hw: height and width of the image.

    Returns:
        The part of the mask that can be positive, or ``None`` if no pixel can.
    """
    grid = logits.shape[0] / input_size
    height, width = (max(1, round(side * grid)) for side in scale_hw)
    shown = logits[:height, :width]
    positive = shown > 0
    rows = _reach(np.asarray(positive.any(axis=1)), original_hw[0])
    columns = _reach(np.asarray(positive.any(axis=0)), original_hw[1])
    if rows is None or columns is None:
        return None
    values = _interpolate(_interpolate(shown, columns, axis=1), rows, axis=0)
    return Region(rows.out, columns.out, values > 0)


@dataclass(frozen=True)
class _Reach:
    """Output positions ``out`` along one axis, their lower source index, upper source index and upper weight."""

    out: slice
    low: NDArray[np.intp]
    high: NDArray[np.intp]
    weight: FloatArray


def _reach(positive: BoolArray, size: int) -> _Reach | None:
    """The span of output positions whose two source positions include a positive one."""
    length = len(positive)
    source = ((np.arange(size) + 0.5) * (length / size) - 0.5).astype(np.float32)
    source = np.clip(source, 0, length - 1)
    low = np.floor(source).astype(np.intp)
    high = np.minimum(low + 1, length - 1)
    hit = np.flatnonzero(positive[low] | positive[high])
    if hit.size == 0:
        return None
    out = slice(int(hit[0]), int(hit[-1]) + 1)
    return _Reach(out, low[out], high[out], (source - low).astype(np.float32)[out])


def _interpolate(values: FloatArray, reach: _Reach, axis: int) -> FloatArray:
    """Linear interpolation of a 2D array along one axis."""
    weight = np.expand_dims(reach.weight, 1 - axis)
    result: FloatArray = values.take(reach.low, axis=axis)
    result *= 1 - weight
    upper = values.take(reach.high, axis=axis)
    upper *= weight
    result += upper
    return result
