"""PET: FDG uptake seen through a scanner: a point-spread function, Poisson counts and a reconstruction filter.

Image formation: activity in standardised uptake values; blurring by the intrinsic resolution (about 5 mm FWHM);
coincidence counts of Poisson statistics; post-filter (Cherry, Sorenson and Phelps, Physics in Nuclear Medicine, ch.
16 to 18). An image is a coronal view of the trunk, a volume a stack of axial slices of the chest.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from harness.data.phantoms.scene import Scene
from harness.data.phantoms.shapes import (
    F32,
    FLAT,
    Grid,
    Mask,
    blur_slices,
    largest,
    lumpy,
    make_grid,
    smooth_noise,
    solid,
    uniform,
)

_CORONAL_MM = 900.0
_AXIAL_MM = 420.0
_DISPLAY_SUV = 9.0


def pet(rng: Generator, shape: tuple[int, int, int]) -> Scene:
    """A PET of ``shape`` (D,H,W); hypermetabolic lesions are annotated, physiological uptake is not."""
    if shape[0] == 1:
        grid = make_grid(shape, uniform(rng, 0.92, 1.02), (uniform(rng, -0.04, 0.04), uniform(rng, -0.06, 0.06)))
        millimetres = _CORONAL_MM / 2 * grid.pixel
        activity, tissue = _coronal(rng, grid)
        radius, count = (0.035, 0.09), int(rng.integers(2, 6))
    else:
        zoom = uniform(rng, 0.7, 0.95)
        grid = make_grid(shape, zoom, (uniform(rng, -0.15, 0.15), uniform(rng, -0.1, 0.1)))
        millimetres = _AXIAL_MM / 2 * grid.pixel
        activity, tissue = _axial(rng, grid)
        radius, count = (0.09, 0.2), int(rng.integers(1, 5))
    lesions = [_lesion(rng, grid, activity, tissue, radius) for _ in range(count)]
    scene = Scene(_scan(rng, activity, millimetres), (millimetres, millimetres, 3.27 if rng.random() < 0.5 else 4.0))
    for lesion in lesions:
        scene.annotate(lesion)
    return scene


def _paint(activity: F32, mask: Mask, value: float) -> None:
    activity[mask] = value


def _coronal(rng: Generator, grid: Grid) -> tuple[F32, Mask]:
    activity = np.zeros(grid.shape, np.float32)
    shape = np.float32(0.02) * smooth_noise(rng, grid.shape, 5)
    parts = [
        solid(grid, (0, -0.83, 0), (0.105, 0.14, FLAT)),
        solid(grid, (0, -0.66, 0), (0.06, 0.12, FLAT)),
        solid(grid, (0, -0.28, 0), (0.31, 0.34, FLAT)),
        solid(grid, (0, 0.05, 0), (0.255, 0.38, FLAT)),
        solid(grid, (0, 0.4, 0), (0.285, 0.22, FLAT)),
    ]
    for sign in (-1, 1):
        parts.append(solid(grid, (sign * 0.38, -0.12, 0), (0.38, 0.065, FLAT), angle=sign * 1.35))
        parts.append(solid(grid, (sign * 0.15, 0.78, 0), (0.5, 0.11, FLAT), angle=1.57 + sign * 0.06))
    body = np.maximum.reduce(parts) + shape > 0
    _paint(activity, body, 0.75)
    for sign in (-1, 1):
        lung = solid(grid, (sign * 0.145, -0.3, 0), (0.11, 0.24, FLAT), angle=sign * 0.1)
        _paint(activity, lung > 0, 0.35)
    mediastinum = solid(grid, (0.01, -0.3, 0), (0.055, 0.22, FLAT)) > 0
    _paint(activity, mediastinum, 1.6)
    heart = solid(grid, (0.075, -0.18, 0), (0.095, 0.08, FLAT), angle=0.7)
    uptake = uniform(rng, 2, 8)
    _paint(activity, heart > 0, uptake)
    _paint(activity, heart > 0.5, 1.7)
    liver = solid(grid, (-0.1, -0.005, 0), (0.17, 0.11, FLAT), angle=-0.25, bend=0.3) + shape > 0
    _paint(activity, liver, 2.5)
    _paint(activity, solid(grid, (0.18, -0.0, 0), (0.05, 0.075, FLAT), angle=-0.4) > 0, 2.1)
    _paint(activity, solid(grid, (0, 0.16, 0), (0.03, 0.2, FLAT)) > 0, 1.5)
    for sign in (-1, 1):
        kidney = solid(grid, (sign * 0.115, 0.13, 0), (0.04, 0.075, FLAT), angle=sign * -0.2)
        _paint(activity, kidney > 0, 2.6)
        _paint(activity, kidney > 0.45, uniform(rng, 5, 10))
    for _ in range(6):
        place = (uniform(rng, -0.17, 0.17), uniform(rng, 0.15, 0.4), 0.0)
        loop = solid(grid, place, (0.06, 0.018, FLAT), angle=uniform(rng, 0, 3), bend=1.2)
        _paint(activity, loop > 0, uniform(rng, 1.2, 2.6))
    _paint(activity, solid(grid, (0, 0.5, 0), (0.06, 0.045, FLAT)) > 0, uniform(rng, 12, 25))
    cortex = solid(grid, (0, -0.87, 0), (0.085, 0.085, FLAT))
    _paint(activity, cortex > 0, 9.0)
    _paint(activity, cortex > 0.35, 5.0)
    return activity, body & (grid.y > -0.62) & (grid.y < 0.44)


def _axial(rng: Generator, grid: Grid) -> tuple[F32, Mask]:
    activity = np.zeros(grid.shape, np.float32)
    shape = np.float32(0.012) * smooth_noise(rng, grid.shape, 4)
    body = solid(grid, (0, 0, 0), (0.86, 0.58, FLAT)) + shape > 0
    _paint(activity, body, 0.6)
    _paint(activity, solid(grid, (0, 0, 0), (0.8, 0.52, FLAT)) + shape > 0, 0.9)
    for sign in (-1, 1):
        lung = solid(grid, (sign * 0.4, 0.0, 0.4), (0.3, 0.42, 2.2), angle=sign * -0.1) + shape
        _paint(activity, lung > 0, 0.35)
        _paint(activity, solid(grid, (sign * 0.2, 0.44, 0), (0.14, 0.07, FLAT)) > 0, 0.9)
    _paint(activity, solid(grid, (0, 0.0, 0), (0.13, 0.3, FLAT)) > 0, 1.4)
    _paint(activity, solid(grid, (0, 0.33, 0), (0.12, 0.1, FLAT)) > 0, 1.6)
    _paint(activity, solid(grid, (0.11, 0.2, 0), (0.06, 0.06, FLAT)) > 0, 1.8)
    heart = solid(grid, (0.2, -0.17, -0.6), (0.27, 0.19, 1.1), angle=0.7, drift=(-0.06, 0.0))
    wall = uniform(rng, 3, 8)
    _paint(activity, heart > 0, wall)
    _paint(activity, heart > 0.38, 1.7)
    _paint(activity, (heart > 0) & (grid.x < 0.1), 1.8)
    dome = solid(grid, (-0.35, 0.0, -1.7), (0.4, 0.38, 1.2)) > 0
    _paint(activity, dome & body, 2.4)
    return activity, body & ~dome


def _lesion(rng: Generator, grid: Grid, activity: F32, tissue: Mask, radius: tuple[float, float]) -> Mask:
    """A conglomerate of a few nodes with a cold core now and then; its activity is added to ``activity``."""
    spots = np.argwhere(tissue)
    layer, row, column = spots[int(rng.integers(len(spots)))]
    size = uniform(rng, *radius)
    x, y = float(grid.x[0, 0, column]), float(grid.y[0, row, 0])
    z = float(grid.z[layer, 0, 0]) * 0.6
    level = np.full(grid.shape, -9, np.float32)
    turn = uniform(rng, 0, 6.3)
    for _ in range(int(rng.integers(2, 5))):
        node = solid(grid, (x, y, z), (size, size * 0.6, uniform(rng, 0.4, 0.7)), angle=uniform(rng, 0, 3))
        level = np.maximum(level, node)
        turn += uniform(rng, -0.8, 0.8)
        x, y, z = x + size * np.cos(turn), y + size * np.sin(turn), z + uniform(rng, -0.2, 0.2)
    mask = largest(lumpy(rng, grid, level, size * 0.6, 0.15) & tissue)
    value = uniform(rng, 4, 11)
    activity[mask] = value
    if rng.random() < 0.35:
        activity[mask & (level > 0.6)] = value * 0.35
    return mask


def _scan(rng: Generator, activity: F32, millimetres: float) -> F32:
    """Intensities 0..1 of a scan with pixels of ``millimetres``, displayed from SUV 0 to 9."""
    resolution = 5.0 / 2.355 / millimetres
    seen = np.maximum(blur_slices(activity, max(resolution, 0.7)), 0)
    per_unit = uniform(rng, 5, 16) * max(1.0, (millimetres / 4) ** 2)
    counts = rng.poisson(seen * per_unit + 0.4).astype(np.float32)
    filtered = blur_slices(counts, max(6.0 / 2.355 / millimetres, 0.7)) / per_unit
    shown: F32 = np.clip(filtered / _DISPLAY_SUV, 0, 1) ** np.float32(0.75)
    return shown
