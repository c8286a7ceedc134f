"""From label maps to the objects of a case: which pixels are one object, and the box around each."""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from harness.data.case import MAX_LABEL
from harness.errors import BenchError

SMALLEST_VOXELS: Final = 100
"""Pieces of a volume below this go when it is cleaned (26 neighbours), as in the challenge's preparation."""
SMALLEST_PIXELS: Final = 10
"""Pieces of a slice or image below this go when it is cleaned (8 neighbours)."""


def whole_labels(labels: NDArray[Any], name: str) -> NDArray[np.int64]:
    """A label map as int64.

    Raises:
        BenchError: a label is a fraction, negative or not finite.
    """
    if labels.dtype.kind not in "biuf":
        raise BenchError(f"{name}: labels are {labels.dtype}; store one whole number per pixel")
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            raise BenchError(f"{name}: labels contain NaN or infinity; store whole numbers, 0 for the background")
        if not np.array_equal(labels, np.rint(labels)):
            raise BenchError(
                f"{name}: labels hold fractions (such as {float(labels[labels != np.rint(labels)][0]):g}); "
                "store whole numbers, or resample the label map with nearest neighbours"
            )
    whole = labels.astype(np.int64)
    if whole.size and int(whole.min()) < 0:
        raise BenchError(f"{name}: labels go down to {int(whole.min())}; store 0 for the background and labels above")
    return whole


def cleaned(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Without small pieces: under 100 voxels (26 neighbours) of a volume, then under 10 pixels (8) of every slice."""
    kept = labels.copy()
    if kept.ndim == 3:
        _drop_pieces(kept, SMALLEST_VOXELS)
        for layer in kept:
            _drop_pieces(layer, SMALLEST_PIXELS)
    else:
        _drop_pieces(kept, SMALLEST_PIXELS)
    return kept


def numbered(labels: NDArray[np.int64], rule: Literal["labels", "components"], name: str) -> NDArray[np.uint16]:
    """The label map of a case: objects numbered 1..N without gaps.

    ``labels`` keeps each label one object, in the order of the labels; ``components`` makes every connected piece of
    a label (8 neighbours in an image, 26 in a volume) an object, in the order of labels, then of their first pixel.

    Raises:
        BenchError: more than 65535 objects.
    """
    values, places = np.unique(labels, return_inverse=True)
    places = places.reshape(labels.shape)
    if rule == "labels":
        # the background need not be there
        numbers = np.cumsum(values != 0) * (values != 0)
        _check_count(int(numbers.max(initial=0)), name)
        return np.asarray(numbers.astype(np.uint16)[places])
    result = np.zeros(labels.shape, np.int64)
    count = 0
    for place, value in enumerate(values.tolist()):
        if value != 0:
            found, pieces = _pieces(places == place)
            result[found > 0] = found[found > 0] + count
            count += pieces
    _check_count(count, name)
    return result.astype(np.uint16)


def boxes_of(truth: NDArray[np.uint16], margin: int = 0) -> NDArray[np.int64]:
    """Boxes (N,4) x0,y0,x1,y1 or (N,6) x0,y0,z0,x1,y1,z1 around labels 1..N, maxima inclusive.

    ``margin`` pixels are added on each side in x and y, never beyond the image; z is not widened.
    """
    from scipy.ndimage import find_objects

    ndim = truth.ndim
    boxes = np.zeros((int(truth.max(initial=0)), 2 * ndim), np.int64)
    for row, found in enumerate(find_objects(truth.astype(np.int32))):
        boxes[row, :ndim] = [s.start for s in reversed(found)]
        boxes[row, ndim:] = [s.stop - 1 for s in reversed(found)]
    last = np.array(truth.shape[:-3:-1]) - 1
    boxes[:, :2] = np.maximum(boxes[:, :2] - margin, 0)
    boxes[:, ndim : ndim + 2] = np.minimum(boxes[:, ndim : ndim + 2] + margin, last)
    return boxes


def _pieces(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    from scipy.ndimage import label

    found, count = label(mask, structure=np.ones((3,) * mask.ndim))
    return found, int(count)


def _drop_pieces(labels: NDArray[np.int64], smallest: int) -> None:
    for value in np.unique(labels).tolist():
        if value != 0:
            found, _ = _pieces(labels == value)
            small = np.bincount(found.ravel()) < smallest
            small[0] = False
            labels[small[found]] = 0


def _check_count(count: int, name: str) -> None:
    if count > MAX_LABEL:
        raise BenchError(f"{name}: {count} objects are more than a case can hold ({MAX_LABEL}); split the image")
