"""The surface elements of two masks, some rows at a time: neighbourhood codes in a flat buffer.

Both masks are written into one buffer of zeros, the prediction behind the ground truth, with margins, and the buffer
is then taken as one flat array.  Neighbours along any axis are a fixed step apart in it, and a step beyond the end of
a row lands in a margin.  A code is folded together axis by axis (pairs, squares, cubes), each a whole-array operation;
and whether an element of one mask has an element of the other at a given offset is one look at index + offset.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.metrics.boxes import BLOCK_ELEMENTS, BoolArray, true_places
from harness.metrics.pair import MaskPair

Codes = NDArray[np.uint8]
Places = NDArray[np.intp]


@dataclass(frozen=True)
class Block:
    """The elements of both masks in some rows, and in the rows within reach of them.

    Attributes:
        codes: flat, margins included, those of the prediction behind those of the ground truth; see
            ``harness.metrics.elements``.
        border: where there is a surface element, likewise.
        places: indices of the elements in the block's own rows, ascending.
        half: index of the first entry of the prediction.
        strides: what a step along each axis adds to an index.
        first: row of the pair that index 0 belongs to (negative in the margin).
    """

    codes: Codes
    border: BoolArray
    places: Places
    half: int
    strides: tuple[int, ...]
    first: int

    def split(self) -> tuple[Places, Places]:
        """The elements of the ground truth and of the prediction."""
        parts = np.split(self.places, [int(np.searchsorted(self.places, self.half))])
        return parts[0], parts[1]

    def mirrored(self) -> Places:
        """For every element the same place of the other mask."""
        return np.where(self.places < self.half, self.places + self.half, self.places - self.half)

    def points(self, places: Places) -> NDArray[np.int64]:
        """Array indices (n, ndim) of elements."""
        rest, columns = places % self.half, []
        for stride in self.strides:
            column, rest = np.divmod(rest, stride)
            columns.append(column)
        columns[0] += self.first
        return np.stack(columns, axis=1)


def blocks_of(pair: MaskPair, reach: Sequence[int]) -> Iterator[Block]:
    """Every surface element of a pair exactly once, in blocks along the first axis.

    Args:
        pair: two masks, 2D or 3D.
        reach: how far along each axis the other mask is looked at from an element.
    """
    rows = pair.shape[0] + 1  # of codes: an element lies between a row and the one before
    sides = [n + 1 + margin for n, margin in zip(pair.shape[1:], reach[1:], strict=True)]
    strides = tuple(math.prod(sides[axis:]) for axis in range(len(sides) + 1))
    margin = max(1, reach[0])
    height = max(1, 8 * margin, BLOCK_ELEMENTS // strides[0])
    for start in range(0, rows, height):
        yield _block(pair, start, min(rows, start + height), margin, sides, strides)


def _block(pair: MaskPair, start: int, stop: int, margin: int, sides: Sequence[int], strides: tuple[int, ...]) -> Block:
    first, rows = start - margin, stop - start + 2 * margin  # of codes; each looks at a row of the masks and the next
    low, high = max(0, first - 1), min(pair.shape[0], stop + margin)
    half = (rows + 1) * strides[0]
    values = np.zeros(2 * half + sum(strides[1:]), np.uint8)
    place = (slice(low - (first - 1), high - (first - 1)), *(slice(1, n + 1) for n in pair.shape[1:]))
    for which, mask in enumerate(pair.rows(low, high)):
        values[which * half : (which + 1) * half].reshape(rows + 1, *sides)[place] = mask
    codes = _folded(values, strides)
    border = _border(codes, len(strides))
    places = true_places(border)
    rest = places % half
    own = places[(rest >= margin * strides[0]) & (rest < (margin + stop - start) * strides[0])]
    return Block(codes, border, own, half, strides, first)


def _folded(values: NDArray[np.uint8], strides: tuple[int, ...]) -> Codes:
    """Codes of the neighbourhoods, by folding a flat buffer once along every axis."""
    for bits, step in zip((1, 2, 4), reversed(strides), strict=False):
        folded = values[:-step] << np.uint8(bits)
        folded |= values[step:]
        values = folded
    return values


def _border(codes: Codes, ndim: int) -> BoolArray:
    """Neighbourhoods that are neither empty (0) nor full (the largest code, after which comes 0 again)."""
    following = codes + np.uint8(1)
    if ndim == 2:
        following &= np.uint8(15)
    border: BoolArray = following > 1
    return border
