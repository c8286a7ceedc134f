"""Cubic spline resizing with Gaussian smoothing where the image shrinks: numpy only.

The same function as `skimage.transform.resize(image, (S, S), order=3, preserve_range=True, anti_aliasing=True)`, by
which the teacher's image becomes its input, without scikit-image and scipy: a measured process imports neither.  The
function is linear and works on each axis alone, so it is one matrix for the rows and one for the columns.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

TRUNCATE = 4.0
"""The Gaussian's radius in standard deviations."""
NEGLIGIBLE = 1e-9
"""Weights below this are left out: together they move a grey value by less than 1e-5."""
BLOCK = 32
"""Rows computed at once from the part of the image that they depend on."""


def resize(image: NDArray[np.uint8], size: int) -> Matrix:
    """The image (H, W) or (H, W, C) as float64 (size, size) or (size, size, C), within the image's own range of values.

    Each axis: a Gaussian of standard deviation (n / size - 1) / 2 if it shrinks from n, then the interpolating cubic
    spline at half-pixel centres; beyond a border the image is mirrored about the border pixel's centre.
    """
    height, width, *channels = image.shape
    rows = _apply(weights(height, size), image.reshape(height, -1))
    columns = rows.reshape(size, width, -1).swapaxes(0, 1).reshape(width, -1)
    resized = _apply(weights(width, size), columns).reshape(size, size, -1).swapaxes(0, 1)
    # The spline overshoots at edges.
    return np.clip(resized, image.min(), image.max()).reshape(size, size, *channels)


@lru_cache(maxsize=4)
def weights(length: int, size: int) -> Matrix:
    """The matrix (size, length) that resizes one axis; each row sums to 1.  All slices of a volume share it."""
    transposed = _smoothed(_prefiltered(_basis(length, size)), max(0.0, (length / size - 1) / 2))
    matrix = np.ascontiguousarray(transposed.T)
    matrix.flags.writeable = False
    return matrix


def _apply(matrix: Matrix, values: NDArray[np.uint8] | Matrix) -> Matrix:
    """matrix @ values, block by block, leaving out what a block of rows does not depend on."""
    out = np.empty((len(matrix), values.shape[1]))
    for start in range(0, len(matrix), BLOCK):
        block = matrix[start : start + BLOCK]
        used = np.flatnonzero((np.abs(block) > NEGLIGIBLE).any(axis=0))
        span = slice(used[0], used[-1] + 1)
        out[start : start + BLOCK] = block[:, span] @ values[span].astype(np.float64)
    return out


def _basis(length: int, size: int) -> Matrix:
    """Cubic B-splines (length, size): what each of `length` coefficients gives each of `size` positions."""
    basis = np.zeros((length, size))
    positions = (np.arange(size) + 0.5) * (length / size) - 0.5
    left = np.floor(positions).astype(np.intp)
    t = positions - left
    quarters = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 3 * (1 - t) ** 3 - 6 * (1 - t) ** 2 + 4, t**3)
    for offset, weight in enumerate(quarters, start=-1):
        np.add.at(basis, (_mirrored(left + offset, length), np.arange(size)), weight / 6)
    return basis


def _mirrored(index: NDArray[np.intp], length: int) -> NDArray[np.intp]:
    """Any index, mirrored about the centres of the first and the last pixel until it is inside."""
    if length == 1:
        return np.zeros_like(index)
    index = np.abs(index) % (2 * (length - 1))
    return np.minimum(index, 2 * (length - 1) - index)


def _prefiltered(basis: Matrix) -> Matrix:
    """The same for pixel values in the place of coefficients.

    The coefficients c of pixel values s solve (c[i-1] + 4 c[i] + c[i+1]) / 6 = s[i].  That tridiagonal system,
    transposed, is solved here by elimination for all columns at once.
    """
    length = len(basis)
    if length == 1:
        return basis
    # Both neighbours of a border pixel are the same by mirroring, which makes a 2 of two ones.
    below, above, diagonal = np.ones(length), np.ones(length), np.full(length, 4.0)
    below[1] = above[-2] = 2.0
    solved = 6 * basis
    for i in range(1, length):
        factor = below[i] / diagonal[i - 1]
        diagonal[i] -= factor * above[i - 1]
        solved[i] -= factor * solved[i - 1]
    solved[-1] /= diagonal[-1]
    for i in range(length - 2, -1, -1):
        solved[i] = (solved[i] - above[i] * solved[i + 1]) / diagonal[i]
    return solved


def _smoothed(basis: Matrix, sigma: float) -> Matrix:
    """The same for pixel values before a Gaussian filter."""
    radius = int(TRUNCATE * sigma + 0.5)
    if radius == 0:
        return basis
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    length = len(basis)
    wide = np.zeros((length + 2 * radius, basis.shape[1]))
    for offset, weight in enumerate(kernel):
        wide[offset : offset + length] += weight * basis
    smoothed = wide[radius : radius + length]
    beyond = np.concatenate((np.arange(-radius, 0), np.arange(length, length + radius)))
    np.add.at(smoothed, _mirrored(beyond, length), wide[beyond + radius])
    return smoothed
