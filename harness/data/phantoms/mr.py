"""MR: a brain in one of three contrasts, measured in k-space.

Image formation: signal of each tissue in T1 with contrast agent, T2 or FLAIR; a smooth receive field (bias); k-space
cut off in the phase direction (ringing) with complex Gaussian noise, so that the magnitude is Rician (Gudbjartsson
and Patz, Magnetic Resonance in Medicine 1995).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.random import Generator

from harness.data.phantoms.scene import Scene
from harness.data.phantoms.shapes import (
    F32,
    FLAT,
    Grid,
    Mask,
    as_float,
    largest,
    lumpy,
    make_grid,
    smooth_noise,
    solid,
    uniform,
)

FIELD_OF_VIEW_MM = 220.0

SIGNAL: Final[dict[str, dict[str, float]]] = {
    "T1 with contrast": {
        "scalp": 0.95, "skull": 0.06, "csf": 0.16, "grey": 0.46, "white": 0.66, "nuclei": 0.52,
        "oedema": 0.4, "tumour": 0.9, "necrosis": 0.24, "lesion": 0.5, "vessel": 0.95,
    },
    "T2": {
        "scalp": 0.7, "skull": 0.05, "csf": 1.0, "grey": 0.56, "white": 0.4, "nuclei": 0.48,
        "oedema": 0.84, "tumour": 0.68, "necrosis": 0.92, "lesion": 0.76, "vessel": 0.05,
    },
    "FLAIR": {
        "scalp": 0.7, "skull": 0.05, "csf": 0.1, "grey": 0.54, "white": 0.42, "nuclei": 0.5,
        "oedema": 0.9, "tumour": 0.76, "necrosis": 0.4, "lesion": 0.86, "vessel": 0.08,
    },
}  # fmt: skip
"""Relative signal of each tissue; read off typical clinical images, in arbitrary units."""


def mr(rng: Generator, shape: tuple[int, int, int]) -> Scene:
    """A brain MR of ``shape`` (D,H,W); tumours, and sometimes ventricles, are annotated, white-matter spots are not."""
    zoom = uniform(rng, 0.55, 0.75) if rng.random() < 0.2 else uniform(rng, 0.95, 1.1)
    reach = 0.35 if zoom < 0.8 else 0.04
    grid = make_grid(
        shape, zoom, (uniform(rng, -reach, reach), uniform(rng, -reach, reach)), z_at=uniform(rng, -0.3, 0.5)
    )
    signal = SIGNAL[str(rng.choice(list(SIGNAL)))]
    image = np.zeros(shape, np.float32)
    brain, white, ventricles = _head(rng, grid, image, signal)
    tumours = _tumours(rng, grid, image, signal, brain, ventricles)
    _spots(rng, grid, image, signal, white)
    magnitude = _acquire(rng, image * _bias(rng, grid), uniform(rng, 0.015, 0.04))
    bright = float(np.percentile(magnitude, 99.5))
    in_plane = FIELD_OF_VIEW_MM * zoom / max(shape[1:])
    scene = Scene(magnitude / bright, (in_plane, in_plane, float(rng.choice([3.0, 5.0, 6.0]))))
    if rng.random() < 0.6 or not tumours:
        for ventricle in ventricles:
            scene.annotate(ventricle)
    for tumour in tumours:
        scene.annotate(tumour)
    return scene


def _head(rng: Generator, grid: Grid, image: F32, signal: dict[str, float]) -> tuple[Mask, Mask, list[Mask]]:
    wide, high = uniform(rng, 0.68, 0.74), uniform(rng, 0.84, 0.9)
    warp = np.float32(0.01) * smooth_noise(rng, grid.shape, 5)
    head = solid(grid, (0, 0, -0.6), (wide, high, 2.6), bend=0) + warp
    skull = solid(grid, (0, 0, -0.6), (wide - 0.06, high - 0.06, 2.5)) + warp
    inner = solid(grid, (0, 0, -0.6), (wide - 0.12, high - 0.12, 2.4)) + warp
    image[head > 0] = signal["scalp"] * 0.55
    image[head > 0.025] = signal["scalp"]
    image[skull > 0] = signal["skull"]
    marrow = (skull > 0.028) & (inner < -0.025)
    image[marrow] = signal["scalp"] * 0.45
    image[inner > 0] = signal["csf"]
    brain, white = _cortex(rng, grid, inner)
    image[brain] = signal["grey"]
    image[white] = signal["white"]
    image[brain] *= 1 + 0.03 * smooth_noise(rng, grid.shape, 30)[brain]
    for sign in (-1, 1):
        for place, radii, angle in (((0.2, 0.04), (0.09, 0.16), 0.25), ((0.15, -0.14), (0.055, 0.12), 0.35)):
            nucleus = solid(grid, (sign * place[0], place[1], -0.1), (*radii, 0.8), angle=-sign * angle)
            image[(nucleus > 0) & brain] = signal["nuclei"]
    ventricles = [_ventricle(rng, grid, sign) & (inner > 0.2) for sign in (-1, 1)]
    for ventricle in ventricles:
        image[ventricle] = signal["csf"]
    sinus = solid(grid, (0, high - 0.15, 0), (0.035, 0.04, FLAT))
    image[sinus > 0] = signal["vessel"]
    return brain & ~ventricles[0] & ~ventricles[1], white, [v for v in ventricles if v.any()]


def _cortex(rng: Generator, grid: Grid, inner: F32) -> tuple[Mask, Mask]:
    """Brain and white matter: sulci are the zero lines of a random field, deep near the surface only."""
    fold = np.abs(smooth_noise(rng, grid.shape, 15)) + np.float32(0.25) * np.abs(smooth_noise(rng, grid.shape, 26))
    depth = inner + np.float32(0.012)
    to_sulcus = fold * np.float32(0.13) + np.maximum(depth - np.float32(0.27), 0) * 1.5
    midline = np.abs(grid.x + np.float32(0.012) * np.sin(grid.y * 9)) + np.where(np.abs(grid.y) < 0.32, 0.3, 0.0)
    to_fluid = np.minimum(np.minimum(depth - np.float32(0.03), to_sulcus), midline.astype(np.float32) * 0.9)
    brain = to_fluid > 0.02
    white = to_fluid > 0.075
    return brain, white


def _ventricle(rng: Generator, grid: Grid, sign: float) -> Mask:
    size = uniform(rng, 0.75, 1.3)
    front = solid(
        grid, (sign * 0.085 * size, -0.15, 0.05), (0.15, 0.045 * size, 1.0), angle=sign * 1.25, bend=sign * 0.9
    )
    back = solid(grid, (sign * 0.17 * size, 0.25, 0.0), (0.2, 0.05 * size, 0.9), angle=sign * 1.1, bend=sign * -0.9)
    body = solid(grid, (sign * 0.07 * size, 0.05, 0.3), (0.2, 0.04, 0.75), angle=sign * 1.62)
    return lumpy(rng, grid, np.maximum(np.maximum(front, back), body), 0.06, 0.06)


def _tumours(
    rng: Generator, grid: Grid, image: F32, signal: dict[str, float], brain: Mask, ventricles: list[Mask]
) -> list[Mask]:
    tumours: list[Mask] = []
    spots = np.argwhere(brain)
    for _ in range(int(rng.integers(1, 4))):
        layer, row, column = spots[int(rng.integers(len(spots)))]
        centre = (float(grid.x[0, 0, column]), float(grid.y[0, row, 0]), float(grid.z[layer, 0, 0]) * 0.7)
        radius = uniform(rng, 0.09, 0.2)
        angle = uniform(rng, 0, 3)
        level = solid(grid, centre, (radius, radius * 0.6, 0.8), angle=angle, bend=uniform(rng, -0.8, 0.8))
        mask = largest(lumpy(rng, grid, level, radius * 0.6, 0.24) & brain)
        if not mask.any():
            continue
        # Oedema spreads through white matter around the tumour and is not annotated.
        oedema = (level + 0.35 * smooth_noise(rng, grid.shape, 12) > -0.45) & brain & ~mask
        image[oedema] = image[oedema] * 0.4 + signal["oedema"] * 0.6
        image[mask] = signal["tumour"] * (1 + 0.07 * smooth_noise(rng, grid.shape, 40)[mask])
        core = (level + 0.15 * smooth_noise(rng, grid.shape, 30) > uniform(rng, 0.3, 0.8)) & mask
        image[core] = signal["necrosis"]
        tumours.append(mask)
    return tumours


def _spots(rng: Generator, grid: Grid, image: F32, signal: dict[str, float], white: Mask) -> None:
    for _ in range(int(rng.integers(3, 9))):
        centre = (uniform(rng, -0.4, 0.4), uniform(rng, -0.5, 0.5), uniform(rng, -1, 1))
        spot = solid(grid, centre, (uniform(rng, 0.015, 0.035), 0.018, 0.25), angle=uniform(rng, 0, 3))
        image[(spot > 0) & white] = signal["lesion"]


def _bias(rng: Generator, grid: Grid) -> F32:
    a, b, c, d = (uniform(rng, -0.22, 0.22) for _ in range(4))
    bias: F32 = np.exp(a * grid.x + b * grid.y + c * grid.x * grid.y + d * (grid.x**2 + grid.y**2) + 0.05 * a * grid.z)
    return as_float(bias)


def _acquire(rng: Generator, image: F32, noise: float) -> F32:
    """Magnitude image after a cut-off in k-space and complex noise of standard deviation ``noise``; slice by slice."""
    depth, height, width = image.shape
    kept = uniform(rng, 0.6, 0.85)
    fy, fx = np.abs(np.fft.fftfreq(height))[:, None], np.abs(np.fft.fftfreq(width))[None, :]
    window = (fy <= 0.5 * kept) & (fx <= 0.5 * min(1.0, kept + 0.25))
    slices = []
    for layer in image:
        spectrum = np.fft.fft2(layer)
        spread = noise * np.sqrt(height * width / window.mean())
        spectrum += spread * (rng.standard_normal((height, width)) + 1j * rng.standard_normal((height, width)))
        slices.append(np.abs(np.fft.ifft2(spectrum * window)).astype(np.float32))
    return np.stack(slices).reshape(depth, height, width)
