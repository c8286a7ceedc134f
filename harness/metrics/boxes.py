"""Bounding boxes of all labels of a map, found in one pass."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, ...]
BoolArray = NDArray[np.bool_]

BLOCK_ELEMENTS = 1_000_000
"""Elements worked on at once: what this takes beside the map stays small, and fits a processor's cache."""

SEARCHED_AT_ONCE = 1 << 19
FEW = 1 << 12
"""Elements of which all places are listed in one operation, which is quicker than to look for the ends of them."""


def label_boxes(labels: NDArray[Any]) -> dict[int, Box]:
    """Label → smallest box that holds it, for every label present.

    A row along the last axis is a sequence of runs of equal labels; a box is spanned by the first and the last pixels
    of the runs alone, so the other pixels are compared with their neighbours and never looked at again.

    Args:
        labels: label map or mask of any number of dimensions, integers (0 is background) or boolean.

    Returns:
        The boxes as slices along each axis, by ascending label.

    Raises:
        ValueError: the labels are not integers, or one is negative.
    """
    if labels.dtype == np.bool_:
        box = mask_box(labels)
        return {} if box is None else {1: box}
    values = as_integers(labels)
    largest = int(values.max(initial=0))
    if values.dtype.kind == "i" and int(values.min(initial=0)) < 0:
        raise ValueError(f"label maps hold labels from 0, not {int(values.min())}")
    if largest == 0:
        return {}
    lowest = np.full((largest + 1, values.ndim), np.iinfo(np.int64).max)
    highest = np.full((largest + 1, values.ndim), -1)
    for first, block in _blocks(values):
        ends = _run_ends(block)
        of = block.ravel()[ends].astype(np.intp)
        for axis, places in enumerate(np.unravel_index(ends, block.shape)):
            places = places + first if axis == 0 else places
            np.minimum.at(lowest[:, axis], of, places)
            np.maximum.at(highest[:, axis], of, places)
    present = np.flatnonzero(highest[1:, 0] >= 0) + 1
    return {
        int(label): tuple(slice(int(a), int(b) + 1) for a, b in zip(lowest[label], highest[label], strict=True))
        for label in present
    }


def union(a: Box | None, b: Box | None) -> Box | None:
    """The smallest box that holds both; ``None`` is an empty one."""
    if a is None or b is None:
        return a or b
    return tuple(slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in zip(a, b, strict=True))


def as_integers(labels: NDArray[Any]) -> NDArray[Any]:
    """A label map as integers without a copy; a ``ValueError`` if it holds anything else."""
    if labels.dtype == np.bool_:
        return labels.view(np.uint8)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"label maps hold integers, not {labels.dtype}")
    return labels


def mask_box(mask: BoolArray) -> Box | None:
    """The smallest box that holds a mask, ``None`` of an empty one."""
    flat = np.ascontiguousarray(mask).ravel()
    ends = _ends(flat)
    if ends is None:
        return None
    stride = flat.size // len(mask)
    rows = slice(ends[0] // stride, ends[1] // stride + 1)
    if mask.ndim == 1:
        return (rows,)
    rest = mask_box(np.bitwise_or.reduce(mask[rows], axis=0))
    assert rest is not None
    return (rows, *rest)


def _ends(flat: BoolArray) -> tuple[int, int] | None:
    """Indices of the first and the last true entry of a flat array, ``None`` if it has none."""
    if flat.size <= FEW:
        places = flat.nonzero()[0]
        return (int(places[0]), int(places[-1])) if places.size else None
    first = int(flat.argmax())
    return (first, _last(flat)) if flat[first] else None


def _last(flat: BoolArray) -> int:
    """Index of the last true entry of a flat array that has one: searched from behind, some at a time, then halved."""
    stop = flat.size
    while not _any(flat[max(0, stop - SEARCHED_AT_ONCE) : stop]):
        stop -= SEARCHED_AT_ONCE
    start = max(0, stop - SEARCHED_AT_ONCE)
    while stop - start > FEW:
        middle = (start + stop) // 2
        start, stop = (middle, stop) if _any(flat[middle:stop]) else (start, middle)
    return start + int(flat[start:stop].nonzero()[0][-1])


def _any(flags: BoolArray) -> bool:
    return bool(flags[flags.argmax()])  # of all ways to ask whether one is true the fastest


def true_places(flags: BoolArray) -> NDArray[np.intp]:
    """Indices of the true entries of a flat array; eight are looked at together, since few are true."""
    whole = flags.size - flags.size % 8
    groups = np.flatnonzero(flags[:whole].view(np.uint64) != 0)
    if groups.size * 32 > whole:  # not so few
        return np.flatnonzero(flags)
    row, column = np.nonzero(flags[:whole].reshape(-1, 8)[groups])
    places: NDArray[np.intp] = groups[row] * 8 + column
    return places if whole == flags.size else np.concatenate([places, np.flatnonzero(flags[whole:]) + whole])


def _blocks(values: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Contiguous parts along the first axis, each with the index of its first row."""
    rows = max(1, BLOCK_ELEMENTS // max(1, math.prod(values.shape[1:])))
    for first in range(0, len(values), rows):
        yield first, np.ascontiguousarray(values[first : first + rows])


def _run_ends(block: NDArray[Any]) -> NDArray[np.intp]:
    """Flat indices of pixels of labels that begin or end a run; the first and last of a row always do."""
    flat, width = block.ravel(), block.shape[-1]
    changes = true_places(flat[1:] != flat[:-1])
    row_starts = np.arange(0, flat.size, width)
    ends = np.concatenate([changes, changes + 1, row_starts, row_starts + (width - 1)])
    of_labels: NDArray[np.intp] = ends[flat[ends] != 0]
    return of_labels
