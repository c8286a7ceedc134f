"""Decoder logits to masks of the original image, computed only where a mask can be positive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from variants import preprocess

WHOLE = 0.1
"""Share of the image from which on a region is cut out of the whole mask, which OpenCV resizes ten times as fast."""

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Region:
    """A mask that is false outside a rectangle: ``values`` (h,w) covers ``rows`` × ``columns`` of the image."""

    rows: slice
    columns: slice
    values: BoolArray

    def paint(self, labels: NDArray[np.unsignedinteger], label: int) -> None:
        """Write ``label`` into the label map (H,W), uint8 or uint16, where the mask is true, over what stands there."""
        part, inside = labels[self.rows, self.columns], self.values.view(np.uint8)
        # Without a branch a pixel: masks that are no blobs take indexing ten times as long.
        part *= 1 - inside
        part += inside * part.dtype.type(label)


def positive_region(
    logits: FloatArray,
    input_size: int,
    scale_hw: tuple[int, int],
    original_hw: tuple[int, int],
    sigmoid_first: bool = False,
    everywhere: bool = False,
) -> Region | None:
    """The mask of one object: padding cut off, logits resized bilinearly (half-pixel centres), > 0.

    An interpolated value is above the threshold only if one of the four around it is, so only the pixels next to
    positive logits are computed, unless they are much of the image.  The rule is ``variants.preprocess.logits_to_mask``
    on the whole image.

    Args:
        logits: (g,g) float32; the grid covers the network input.
        input_size: side of the network input in pixels.
        scale_hw: height and width in network pixels of the part that shows the image.
        original_hw: height and width of the image.
        sigmoid_first: resize probabilities and take those > 0.5, as MedSAM's teacher does, instead of logits > 0.
        everywhere: compute every pixel of the image, as the scripts do.

    Returns:
        The part of the mask that can be positive, or ``None`` if no pixel can.
    """
    if everywhere:
        mask = preprocess.whole_mask(logits, input_size, scale_hw, original_hw, sigmoid_first)
        return Region(slice(0, original_hw[0]), slice(0, original_hw[1]), mask) if mask.any() else None
    shown, threshold = preprocess.shown_logits(logits, input_size, scale_hw, sigmoid_first)
    positive = shown > threshold
    rows = _reach(np.asarray(positive.any(axis=1)), original_hw[0])
    columns = _reach(np.asarray(positive.any(axis=0)), original_hw[1])
    if rows is None or columns is None:
        return None
    if len(rows.low) * len(columns.low) > WHOLE * original_hw[0] * original_hw[1]:
        mask = preprocess.whole_mask(logits, input_size, scale_hw, original_hw, sigmoid_first)
        return Region(rows.out, columns.out, mask[rows.out, columns.out])
    values = _interpolate(_interpolate(shown, columns, axis=1), rows, axis=0)
    return Region(rows.out, columns.out, values > threshold)


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
