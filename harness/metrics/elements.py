"""Surface elements of binary masks: marching-cubes areas in 3D, marching-squares lengths in 2D.

The definition of the normalised surface distance (Nikolov et al., "Clinically applicable segmentation of head and neck
anatomy for radiotherapy", J Med Internet Res 2021;23(7):e26151, and its companion package) puts one element on every
2×2 (2×2×2) neighbourhood of pixels (voxels) that is neither empty nor full.  The element's size is the length (area)
of the marching-squares (marching-cubes, Lorensen & Cline 1987) boundary through the neighbourhood.

The tables are derived here from that definition rather than listed:

* the boundary crosses the edge between an inside and an outside corner at its middle;
* on a face with two inside corners that are diagonal to each other, the corners of the minority are cut off one by one
  (minority over the whole cube; inside corners if four are inside);
* a polygon that is not planar is split into the triangles whose total area is largest at unit spacing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, ...]
FloatArray = NDArray[np.float64]

WEIGHTS_2D = np.array([[8, 4], [2, 1]], dtype=np.uint8)
"""Bit of each pixel of a 2×2 neighbourhood, in array order; their sum is the code of the neighbourhood."""
WEIGHTS_3D = np.array([[[128, 64], [32, 16]], [[8, 4], [2, 1]]], dtype=np.uint8)
"""Bit of each voxel of a 2×2×2 neighbourhood, in array order; likewise."""

_CORNERS: tuple[tuple[int, int, int], ...] = tuple(product((0, 1), repeat=3))  # type: ignore[arg-type]


def element_sizes(spacing: Sequence[float]) -> FloatArray:
    """Size of the surface element of every neighbourhood code, for a spacing in array-axis order.

    Args:
        spacing: distance between neighbouring pixels along each axis, 2 or 3 values (mm).

    Returns:
        float64 of shape (16,) (contour lengths, mm) or (256,) (areas, mm²).
    """
    values = tuple(float(s) for s in spacing)
    return _lengths(values) if len(values) == 2 else _areas(values)


@lru_cache(maxsize=64)
def _lengths(spacing: tuple[float, ...]) -> FloatArray:
    first, second = spacing
    diagonal = 0.5 * math.hypot(first, second)
    by_count = {0: 0.0, 1: diagonal, 3: diagonal, 4: 0.0}
    table = np.zeros(16)
    for code in range(16):
        inside = [(i, j) for i, j in product((0, 1), repeat=2) if code & int(WEIGHTS_2D[i, j])]
        if len(inside) != 2:
            table[code] = by_count[len(inside)]
        elif inside[0][0] == inside[1][0]:  # one row inside: the contour runs along the second axis
            table[code] = second
        elif inside[0][1] == inside[1][1]:
            table[code] = first
        else:  # diagonal corners, each cut off
            table[code] = 2 * diagonal
    return table


@lru_cache(maxsize=64)
def _areas(spacing: tuple[float, ...]) -> FloatArray:
    s0, s1, s2 = spacing
    scaled = _triangle_normals() * np.array([s1 * s2, s0 * s2, s0 * s1])
    areas: FloatArray = np.sqrt((scaled**2).sum(axis=2)).sum(axis=1)
    return areas


@lru_cache(maxsize=1)
def _triangle_normals() -> FloatArray:
    """Normals (length = area at unit spacing) of the triangles of every code: (256, 5, 3), padded with zeros."""
    table = np.zeros((256, 5, 3))
    for code in range(1, 255):
        inside = {corner for corner in _CORNERS if code & int(WEIGHTS_3D[corner])}
        minority = inside if len(inside) <= 4 else set(_CORNERS) - inside
        triangles = [t for polygon in _polygons(minority) for t in _largest_triangulation(polygon)]
        table[code, : len(triangles)] = triangles
    return table


def _polygons(inside: set[tuple[int, int, int]]) -> list[list[Point]]:
    """Closed boundary polygons of a cube whose corners ``inside`` are cut off, as lists of edge middles."""
    links: dict[Point, list[Point]] = {}
    for face in _faces():
        for a, b in _face_segments(face, inside):
            links.setdefault(a, []).append(b)
            links.setdefault(b, []).append(a)
    polygons = []
    while links:
        start = next(iter(links))
        polygon, current = [], start
        while current in links:
            polygon.append(current)
            neighbours = links.pop(current)
            current = next((p for p in neighbours if p in links), start)
        polygons.append(polygon)
    return polygons


def _faces() -> Iterator[list[tuple[int, ...]]]:
    """The six faces as cycles of four corners."""
    for axis, side in product(range(3), (0, 1)):
        yield [(*uv[:axis], side, *uv[axis:]) for uv in ((0, 0), (0, 1), (1, 1), (1, 0))]


def _face_segments(face: list[tuple[int, ...]], inside: set[tuple[int, int, int]]) -> list[tuple[Point, Point]]:
    flags = [corner in inside for corner in face]
    middles = [_middle(face[i], face[(i + 1) % 4]) for i in range(4)]
    crossed = [middles[i] for i in range(4) if flags[i] != flags[(i + 1) % 4]]
    if len(crossed) == 4:  # diagonal corners: one segment around each inside corner
        return [(middles[i - 1], middles[i]) for i in range(4) if flags[i]]
    return [(crossed[0], crossed[1])] if crossed else []


def _middle(a: Sequence[float], b: Sequence[float]) -> Point:
    return tuple((p + q) / 2 for p, q in zip(a, b, strict=True))


def _largest_triangulation(polygon: list[Point]) -> list[FloatArray]:
    points = np.array(polygon)
    options = [[_normal(points, t) for t in triangles] for triangles in _triangulations(tuple(range(len(polygon))))]
    return max(options, key=lambda normals: math.fsum(math.sqrt(float(n @ n)) for n in normals))


def _normal(points: FloatArray, triangle: tuple[int, int, int]) -> FloatArray:
    a, b, c = points[list(triangle)]
    normal: FloatArray = 0.5 * np.cross(b - a, c - a)
    return normal


@lru_cache(maxsize=256)
def _triangulations(indices: tuple[int, ...]) -> tuple[tuple[tuple[int, int, int], ...], ...]:
    """Every division of a convex polygon into triangles, as index triples."""
    if len(indices) < 3:
        return ((),)
    found = []
    for k in range(1, len(indices) - 1):
        left, right = indices[: k + 1], indices[k:]
        for a, b in product(_triangulations(left), _triangulations(right)):
            found.append((*a, (indices[0], indices[k], indices[-1]), *b))
    return tuple(found)
