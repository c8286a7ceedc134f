"""Mammography: a compressed breast at low energy.

Image formation: attenuation of adipose and fibroglandular tissue under compression to an even thickness that thins
out at the skin; gland as fractal texture, power-law spectrum with exponent about 3 (Burgess, Jacobson and Judy,
Medical Physics 2001); masses with spicules, calcifications, ligaments, pectoral muscle; quantum noise.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from harness.data.phantoms.scene import Scene
from harness.data.phantoms.shapes import (
    F32,
    Mask,
    as_float,
    blur,
    curve,
    either,
    fill,
    fractal_noise,
    outline,
    smooth_noise,
    soft,
    spline,
    uniform,
)


def mammography(rng: Generator, shape: tuple[int, int]) -> Scene:
    """A mediolateral-oblique mammogram (H,W); masses are annotated, lymph nodes, gland and calcifications are not."""
    height, width = shape
    breast = _breast(rng, shape)
    gland = _gland(rng, breast)
    thickness = _thickness(breast)
    dense = gland.copy()
    inside = np.argwhere(
        (blur(breast.astype(np.float32), 0.07 * width) > 0.93) & (np.arange(height)[:, None] > 0.2 * height)
    )
    masks: list[Mask] = []
    for _ in range(int(rng.choice([1, 1, 2, 2, 3]))):
        mask, mass = _mass(rng, shape, inside)
        mask &= breast
        if not any((mask & other).any() for other in masks):
            masks.append(mask)
            dense = np.maximum(dense, mass) + 0.5 * mass
    _distractors(rng, dense, inside)
    muscle = _pectoral(rng, shape)
    image = thickness * (0.24 + 0.52 * dense) + 0.26 * soft(muscle, 0.025 * width) * thickness
    photons = 2600.0
    noisy = rng.poisson(np.clip(image, 0, 2) * photons + 4).astype(np.float32) / photons
    shown = np.clip(blur(noisy, 0.5) * 1.05, 0, 1) * (breast | (noisy > 0.05))
    right_breast = rng.random() < 0.5
    scene = Scene(as_float(np.ascontiguousarray(shown[:, ::-1]) if right_breast else shown))
    for mask in masks:
        scene.annotate(np.ascontiguousarray(mask[:, ::-1]) if right_breast else mask)
    return scene


def _breast(rng: Generator, shape: tuple[int, int]) -> Mask:
    height, width = shape
    reach = uniform(rng, 0.78, 0.93)
    low = uniform(rng, 0.83, 0.93)
    contour = [
        (-0.2, -0.2), (0.56 * reach, -0.2), (0.66 * reach, 0.05), (0.84 * reach, 0.27), (0.97 * reach, 0.46),
        (reach, 0.58), (0.94 * reach, 0.69), (0.76 * reach, 0.79), (0.48 * reach, low - 0.04),
        (0.2 * reach, low), (-0.2, low + 0.05),
    ]  # fmt: skip
    return fill(shape, spline([(x * width, y * height) for x, y in contour]))


def _thickness(breast: Mask) -> F32:
    """Even under the paddle, falling to nothing over the last part before the skin line, with a thin bright skin."""
    width = breast.shape[1]
    near = blur(breast.astype(np.float32), 0.05 * width)
    edge = np.clip((near - 0.42) / 0.5, 0, 1) ** 0.6
    skin = breast & (blur(breast.astype(np.float32), 0.012 * width) < 0.8)
    return as_float(edge * breast + 0.18 * skin)


def _gland(rng: Generator, breast: Mask) -> F32:
    height, width = breast.shape
    texture = fractal_noise(rng, (height, width), 1.75)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    # Ducts and gland converge to the nipple; density is highest behind it.
    nipple = (0.88 * width, 0.62 * height)
    angle = np.arctan2(y - nipple[1], x - nipple[0])
    distance = np.hypot(x - nipple[0], y - nipple[1]) / height
    ducts = np.sin(angle * 34 + 2.2 * texture) * 0.22
    bias = uniform(rng, -0.55, 0.35)
    region = np.exp(-(((distance - 0.24) / 0.22) ** 2)) * 1.9 - 1.15 + bias
    field = region + 0.75 * texture + ducts
    gland = 1 / (1 + np.exp(-1.9 * field))
    ligaments = np.clip(1 - np.abs(smooth_noise(rng, (height, width), 9) + 0.4 * texture) / 0.07, 0, 1) * 0.3
    total = np.clip(0.78 * gland + ligaments + 0.05 * texture, 0, 1) * breast
    return blur(total.astype(np.float32), 0.5)


def _mass(rng: Generator, shape: tuple[int, int], inside: NDArray[np.intp]) -> tuple[Mask, F32]:
    width = shape[1]
    row, column = inside[int(rng.integers(len(inside)))]
    radius = uniform(rng, 0.07, 0.15) * width
    contour = outline(
        rng,
        (column, row),
        (radius, radius * uniform(rng, 0.42, 0.65)),
        uniform(rng, 0, 3),
        0.24,
        either(rng, 0.15, 0.6),
        waves=10,
    )
    mask = fill(shape, contour)
    mass = 0.62 * soft(mask, 0.014 * width) * (1 + 0.1 * smooth_noise(rng, shape, 18))
    if rng.random() < 0.7:
        for _ in range(int(rng.integers(12, 22))):
            # Spicules belong to the lesion's look, not to its annotated body.
            at = contour[int(rng.integers(len(contour)))]
            away = at - np.array([column, row])
            away = away / max(float(np.hypot(*away)), 1.0) * radius * uniform(rng, 0.5, 1.3)
            side = np.array([-away[1], away[0]]) * uniform(rng, -0.3, 0.3)
            spicule = np.zeros(shape, np.float32)
            curve(spicule, np.stack([at, at + away * 0.5 + side * 0.3, at + away + side]), 0.45, 0.012 * width, 1)
            mass = np.maximum(mass, blur(spicule, 0.6))
    return mask, as_float(mass)


def _distractors(rng: Generator, dense: F32, inside: NDArray[np.intp]) -> None:
    height, width = dense.shape
    for _ in range(int(rng.integers(1, 3))):
        place = (uniform(rng, 0.1, 0.42) * width, uniform(rng, 0.06, 0.3) * height)
        node = fill((height, width), outline(rng, place, (0.055 * width, 0.04 * width), uniform(rng, 0, 3), 0.04, 0.4))
        hilum = fill((height, width), outline(rng, (place[0] + 0.02 * width, place[1]), (0.025 * width, 0.018 * width)))
        dense += 0.55 * soft(node & ~hilum, 0.008 * width)
    for _ in range(2):
        row, column = inside[int(rng.integers(len(inside)))]
        for _ in range(int(rng.integers(3, 10))):
            x, y = column + rng.normal(0, 0.03 * width), row + rng.normal(0, 0.03 * width)
            dense += soft(fill((height, width), outline(rng, (x, y), (0.009 * width, 0.006 * width))), 0.5) * 0.9
    start = np.array([uniform(rng, 0.0, 0.3) * width, uniform(rng, 0.3, 0.8) * height])
    steps = np.cumsum(np.concatenate([[start], rng.normal([0.055 * width, 0], 0.02 * width, (12, 2))]), axis=0)
    vessel = np.zeros_like(dense)
    curve(vessel, steps, 0.3, 0.022 * width, 0.01 * width)
    dense += blur(vessel, 0.8)


def _pectoral(rng: Generator, shape: tuple[int, int]) -> Mask:
    height, width = shape
    top, down = uniform(rng, 0.38, 0.52) * width, uniform(rng, 0.42, 0.6) * height
    bow = uniform(rng, -0.03, 0.05) * width
    edge = np.array([[-4, -4], [top, -4], [top * 0.5 + bow, down * 0.5], [-4, down]], dtype=np.float64)
    return fill(shape, edge)
