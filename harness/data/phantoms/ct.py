"""CT: an abdomen in Hounsfield units, quantum noise through filtered back-projection, window 40/400.

Image formation: attenuation per tissue in HU (values typical of the portal-venous phase), detector counts of Poisson
variance exp(path)/N0 per ray (Kak and Slaney, Principles of Computerized Tomographic Imaging, §5.2), ramp-filtered
and back-projected, which gives the streaks along long paths; then the challenge's abdominal window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
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

FIELD_OF_VIEW_MM = 380.0
WINDOW_LEVEL, WINDOW_WIDTH = 40.0, 400.0
_VIEWS = 48
_WATER_PER_MM = 0.0195


@dataclass(frozen=True)
class _Abdomen:
    hu: F32
    organs: dict[str, Mask]
    lesions: list[Mask]


def ct(rng: Generator, shape: tuple[int, int, int]) -> Scene:
    """An abdominal CT of ``shape`` (D,H,W) with organs and liver lesions annotated; cysts and vessels are not."""
    close = rng.random() < 0.35
    zoom = uniform(rng, 0.6, 0.8) if close else uniform(rng, 0.92, 1.02)
    reach = 0.3 if close else 0.03
    grid = make_grid(
        shape, zoom, (uniform(rng, -reach, reach), uniform(rng, -reach / 2, reach / 2)), z_at=uniform(rng, -0.5, 0.5)
    )
    abdomen = _anatomy(rng, grid)
    in_plane = FIELD_OF_VIEW_MM * zoom / max(shape[1:])
    hu = blur_slices(abdomen.hu, 0.6)
    hu = hu + _quantum_noise(rng, hu, in_plane, uniform(rng, 6, 12))
    image = (hu - (WINDOW_LEVEL - WINDOW_WIDTH / 2)) / WINDOW_WIDTH
    scene = Scene(image, (in_plane, in_plane, float(rng.choice([3.0, 5.0, 6.5]))))
    names = [name for name in abdomen.organs if rng.random() < 0.5]
    for name in names or ["liver"]:
        scene.annotate(abdomen.organs[name])
    for lesion in abdomen.lesions:
        scene.annotate(lesion)
    return scene


def _anatomy(rng: Generator, grid: Grid) -> _Abdomen:
    hu = np.full(grid.shape, -1000, np.float32)
    cavity = _body(rng, grid, hu)
    spine = _skeleton(rng, grid, hu)
    cavity &= ~spine
    organs: dict[str, Mask] = {}
    taken = spine.copy()

    def place(name: str, mask: Mask, value: float, texture: float = 3.0) -> Mask:
        mask = largest(mask & cavity & ~taken)
        hu[mask] = value + texture * smooth_noise(rng, grid.shape, 40)[mask]
        np.logical_or(taken, mask, out=taken)
        if name:
            organs[name] = mask
        return mask

    for sign, depth in ((1.0, 0.08), (-1.0, 0.07)):
        centre = (0.075 if sign > 0 else -0.1, 0.17, 0.0)
        radii = (depth, depth * (1.0 if sign > 0 else 0.75), FLAT)
        place("", solid(grid, centre, radii) > 0, uniform(rng, 170, 230) if sign > 0 else uniform(rng, 130, 160), 2)
    for sign in (-1.0, 1.0):
        name = "right kidney" if sign < 0 else "left kidney"
        kidney = _kidney_level(rng, grid, sign)
        mask = place(name, lumpy(rng, grid, kidney, 0.15, 0.05), uniform(rng, 150, 175))
        _kidney(rng, grid, hu, mask)
        taken |= (kidney > -0.32) & cavity  # perirenal fat keeps the neighbours off
    liver = place("liver", _liver_shape(rng, grid), uniform(rng, 95, 120))
    spleen = solid(
        grid, (0.62, 0.1, uniform(rng, -0.2, 0.4)), (0.36, 0.16, 1.3), angle=1.25 + uniform(rng, -0.2, 0.2), bend=-0.5
    )
    place("spleen", lumpy(rng, grid, spleen, 0.2, 0.1), uniform(rng, 110, 130))
    pancreas = solid(
        grid, (0.12, 0.02, uniform(rng, -0.2, 0.2)), (0.36, 0.075, 0.9), angle=-0.35, bend=uniform(rng, 0.5, 0.9)
    )
    place("pancreas", lumpy(rng, grid, pancreas, 0.07, 0.22), uniform(rng, 80, 100), 8)
    _stomach(rng, grid, hu, place("stomach", lumpy(rng, grid, _stomach_level(rng, grid), 0.2, 0.12), 55))
    _bowel(rng, grid, place, hu)
    lesions = _liver_contents(rng, grid, hu, liver)
    return _Abdomen(hu, organs, lesions)


def _body(rng: Generator, grid: Grid, hu: F32) -> Mask:
    wide, high = uniform(rng, 0.84, 0.92), uniform(rng, 0.62, 0.7)
    fat = uniform(rng, 0.04, 0.1)
    shape = np.float32(0.012) * smooth_noise(rng, grid.shape, 4)
    ring = 0.075
    skin = solid(grid, (0, 0.02, 0), (wide, high, FLAT)) + shape
    wall = solid(grid, (0, 0.02, 0), (wide - fat, high - fat, FLAT), bend=0.05) + shape
    inner = solid(grid, (0, 0.0, 0), (wide - fat - ring, high - fat - ring, FLAT)) + shape
    hu[skin > 0] = 20
    hu[skin > 0.012] = -105
    hu[wall > 0] = 55
    hu += np.where(wall > 0, 9 * smooth_noise(rng, grid.shape, 30), 0)
    cavity = inner > 0
    hu[cavity] = -98
    table = (np.abs(grid.y - (high + 0.1 - 0.1 * grid.x**2)) < 0.012) & (np.abs(grid.x) < 0.8) & (skin <= 0)
    hu[np.broadcast_to(table, hu.shape)] = -250
    for sign in (-1, 1):
        muscle = solid(grid, (sign * 0.2, high - 0.2, 0), (0.17, 0.11, FLAT), angle=sign * -0.15)
        hu[(muscle > 0) & (wall > 0)] = 58
        psoas = solid(grid, (sign * 0.19, 0.3, 0), (0.07, 0.09, FLAT))
        hu[psoas > 0] = 62
    return cavity


def _skeleton(rng: Generator, grid: Grid, hu: F32) -> Mask:
    vertebra = solid(grid, (0, 0.32, 0), (0.145, 0.115, FLAT), bend=0.18)
    arch = solid(grid, (0, 0.475, 0), (0.11, 0.085, FLAT))
    canal = solid(grid, (0, 0.465, 0), (0.062, 0.052, FLAT))
    spinous = solid(grid, (0, 0.575, 0), (0.028, 0.075, FLAT))
    bone = (vertebra > 0) | (arch > 0) | (spinous > 0)
    for sign in (-1, 1):
        bone |= solid(grid, (sign * 0.17, 0.46, 0), (0.1, 0.027, FLAT), angle=sign * 0.35) > 0
    hu[bone] = 450
    trabecular = (vertebra > 0.16) | (arch > 0.45)
    hu[trabecular] = 190 + 40 * smooth_noise(rng, grid.shape, 50)[trabecular]
    hu[canal > 0] = 30
    bone |= canal > 0
    start = uniform(rng, 0, 0.4)
    for step in range(9):
        for sign in (-1, 1):
            turn = 0.55 + 0.26 * step + start
            centre = (sign * 0.755 * np.sin(turn), 0.02 + 0.53 * np.cos(turn), 0.0)
            # Ribs run obliquely through the slices, so in each slice they sit at another angle.
            rib = solid(
                grid,
                centre,
                (0.062, 0.022, FLAT),
                angle=-sign * (turn - 0.12),
                drift=(sign * 0.05 * np.cos(turn), -0.05 * np.sin(turn)),
            )
            hu[rib > 0] = 420
            hu[rib > 0.5] = 210
    return np.asarray(vertebra > -0.06) | bone


def _liver_shape(rng: Generator, grid: Grid) -> Mask:
    z = uniform(rng, -0.3, 0.3)
    right = solid(grid, (-0.48, -0.05, z), (0.34, 0.42, 1.5), angle=uniform(rng, -0.15, 0.15))
    left = solid(grid, (-0.12, -0.3, z + 0.2), (0.42, 0.17, 1.1), angle=uniform(rng, -0.1, 0.25), bend=-0.3)
    return lumpy(rng, grid, np.maximum(right, left), 0.25, 0.07)


def _kidney_level(rng: Generator, grid: Grid, sign: float) -> F32:
    centre = (sign * uniform(rng, 0.36, 0.42), uniform(rng, 0.22, 0.3), uniform(rng, -0.6, 0.3))
    angle = sign * uniform(rng, 0.4, 0.8) + np.pi / 2
    body = solid(grid, centre, (0.19, 0.125, 1.0), angle=angle)
    notch = solid(grid, (centre[0] - sign * 0.11, centre[1] - 0.02, centre[2]), (0.1, 0.065, 0.8), angle=sign * -0.3)
    level: F32 = np.minimum(body, -notch * 1.2)
    return level


def _kidney(rng: Generator, grid: Grid, hu: F32, mask: Mask) -> None:
    inner = np.stack([cv2.distanceTransform(layer.astype(np.uint8), cv2.DIST_L2, 3) for layer in mask])
    medulla = (inner * grid.pixel > 0.035) & (smooth_noise(rng, grid.shape, 26) > 0.1)
    hu[medulla] -= 40


def _stomach_level(rng: Generator, grid: Grid) -> F32:
    return solid(
        grid,
        (0.36, -0.3, uniform(rng, 0, 0.5)),
        (0.3, 0.17, 1.2),
        angle=uniform(rng, 0.1, 0.5),
        bend=uniform(rng, 0.2, 0.6),
    )


def _stomach(rng: Generator, grid: Grid, hu: F32, mask: Mask) -> None:
    inner = np.stack([cv2.distanceTransform(layer.astype(np.uint8), cv2.DIST_L2, 3) for layer in mask])
    lumen = inner * grid.pixel > 0.022
    hu[lumen] = 20 + 12 * smooth_noise(rng, grid.shape, 30)[lumen]
    surface = uniform(rng, -0.4, -0.26)
    hu[lumen & np.broadcast_to(grid.y < surface, lumen.shape)] = -850


def _bowel(rng: Generator, grid: Grid, place: Callable[[str, Mask, float, float], Mask], hu: F32) -> None:
    for _ in range(7):
        centre = (uniform(rng, -0.35, 0.55), uniform(rng, -0.35, 0.2), uniform(rng, -1, 1))
        radius = uniform(rng, 0.05, 0.09)
        loop = solid(grid, centre, (radius * uniform(rng, 1, 2), radius, 0.8), angle=uniform(rng, 0, 3), bend=0.5)
        mask = place("", lumpy(rng, grid, loop, radius, 0.12), uniform(rng, 30, 75), 8)
        if rng.random() < 0.4:
            hu[mask & (loop > 0.45)] = -600


def _liver_contents(rng: Generator, grid: Grid, hu: F32, liver: Mask) -> list[Mask]:
    for _ in range(6):
        start = (uniform(rng, -0.6, -0.1), uniform(rng, -0.3, 0.2), uniform(rng, -1, 1))
        vessel = solid(grid, start, (uniform(rng, 0.1, 0.25), 0.014, 0.5), angle=uniform(rng, 0, 3), bend=1.5)
        hu[(vessel > 0) & liver] += 45
    lesions: list[Mask] = []
    spots = np.argwhere(liver)
    if not len(spots):
        return lesions
    for number in range(int(rng.integers(3, 6))):
        layer, row, column = spots[int(rng.integers(len(spots)))]
        radius = uniform(rng, 0.055, 0.14)
        centre = (float(grid.x[0, 0, column]), float(grid.y[0, row, 0]), float(grid.z[layer, 0, 0]))
        if number % 2:
            # Simple cysts look much like lesions but are round, darker and not annotated.
            hu[(solid(grid, centre, (radius * 0.5, radius * 0.5, 0.4)) > 0) & liver] = 8
            continue
        level = solid(
            grid, centre, (radius, radius * 0.55, 0.75), angle=uniform(rng, 0, 3), bend=uniform(rng, -0.8, 0.8)
        )
        mask = largest(lumpy(rng, grid, level, radius * 0.7, 0.3) & liver)
        hu[mask] = uniform(rng, 45, 70) + 10 * smooth_noise(rng, grid.shape, 40)[mask]
        lesions.append(mask)
    return lesions


def _quantum_noise(rng: Generator, hu: F32, in_plane: float, level: float) -> F32:
    """Noise of filtered back-projection, (D,H,W) in HU, with mean standard deviation ``level`` over the slices."""
    depth, height, width = hu.shape
    side = max(height, width)
    filtered = np.empty((_VIEWS, depth, side), np.float32)
    ramp = np.abs(np.fft.rfftfreq(side)) * np.cos(np.pi * np.fft.rfftfreq(side)) ** 2
    angles = np.arange(_VIEWS) * np.pi / _VIEWS
    centre = ((width - 1) / 2, (height - 1) / 2)
    for view, angle in enumerate(angles):
        turn = cv2.getRotationMatrix2D(centre, float(np.degrees(angle)), 1.0)
        turn[:, 2] += (side - width) / 2, (side - height) / 2
        for number, layer in enumerate(hu):
            turned = cv2.warpAffine(layer, turn, (side, side), borderValue=-1000)
            path = np.maximum(turned + 1000, 0).sum(axis=0) * (_WATER_PER_MM / 1000 * in_plane)
            counts_sigma = np.exp(0.5 * np.minimum(path, 9.0))
            spectrum = np.fft.rfft(rng.standard_normal(side) * counts_sigma) * ramp
            filtered[view, number] = np.fft.irfft(spectrum, n=side)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    noise = np.zeros(hu.shape, np.float32)
    for view, angle in enumerate(angles):
        along = (x - centre[0]) * np.cos(angle) - (y - centre[1]) * np.sin(angle) + (side - 1) / 2
        along = np.clip(along, 0, side - 1.001)
        low = along.astype(np.int32)
        part = (along - low).astype(np.float32)
        profile = filtered[view]
        noise += profile[:, low] * (1 - part) + profile[:, low + 1] * part
    scaled: F32 = noise * np.float32(level / max(float(noise.std()), 1e-6))
    return scaled
