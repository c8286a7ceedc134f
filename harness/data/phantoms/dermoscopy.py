"""Dermoscopy: a pigmented lesion under a contact lens.

Image formation: skin reflectance reduced by melanin at different depths (brown in the epidermis, blue-grey in the
dermis), with the pigment network, globules and a veil; hairs and gel bubbles on top; vignetting of the lens.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from harness.data.phantoms.scene import Scene
from harness.data.phantoms.shapes import (
    F32,
    Mask,
    as_float,
    blur,
    curve,
    either,
    fill,
    outline,
    smooth_noise,
    soft,
    uniform,
)


def dermoscopy(rng: Generator, shape: tuple[int, int]) -> Scene:
    """A dermoscopic image (H,W,3); the lesion (sometimes two) is annotated, freckles, hairs and bubbles are not."""
    height, width = shape
    unit = max(shape) / 2
    skin = np.array([0.87, 0.68, 0.58]) + rng.normal(0, 1, 3) * np.array([0.03, 0.04, 0.045])
    texture = np.abs(smooth_noise(rng, shape, 46)) * 0.02 + smooth_noise(rng, shape, 6) * 0.018
    flush = (0.5 + 0.5 * smooth_noise(rng, shape, 4))[..., None] * np.array([0.0, 0.025, 0.02])
    image = (skin - texture[..., None] - flush).astype(np.float32)
    _freckles(rng, image, unit)
    masks: list[Mask] = []
    count = 2 if rng.random() < 0.25 else 1
    for number in range(count):
        mask = _shape(rng, shape, unit, number, count)
        if any((mask & other).any() for other in masks):
            continue
        _pigment(rng, image, mask, unit)
        masks.append(mask)
    _bubbles(rng, image, unit)
    _hairs(rng, image, unit)
    image = blur(image, 0.45)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    radius = np.hypot((x - width / 2) / unit, (y - height / 2) / unit)
    dark = np.clip((radius - uniform(rng, 0.88, 1.15)) / 0.12, 0, 1) if rng.random() < 0.5 else np.zeros_like(radius)
    image *= (1 - 0.16 * radius**2)[..., None] * (1 - 0.93 * dark)[..., None]
    image += 0.01 * rng.standard_normal((height, width, 3)).astype(np.float32)
    scene = Scene(np.clip(image, 0, 1).astype(np.float32))
    for mask in masks:
        scene.annotate(mask)
    return scene


def _shape(rng: Generator, shape: tuple[int, int], unit: float, number: int, count: int) -> Mask:
    height, width = shape
    if count == 1:
        place = (uniform(rng, 0.38, 0.62) * width, uniform(rng, 0.4, 0.6) * height)
        radius = uniform(rng, 0.34, 0.62) * unit
    else:
        place = ((0.3 + 0.42 * number) * width, uniform(rng, 0.35, 0.65) * height)
        radius = uniform(rng, 0.2, 0.32) * unit
    contour = outline(
        rng,
        place,
        (radius, radius * uniform(rng, 0.5, 0.72)),
        uniform(rng, 0, 3),
        0.2,
        either(rng, 0.2, 0.8),
        waves=14,
    )
    return fill(shape, contour)


def _pigment(rng: Generator, image: F32, mask: Mask, unit: float) -> None:
    shape = mask.shape
    inner = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5) / (0.3 * unit)
    amount = np.clip(0.42 + 0.45 * np.clip(inner, 0, 1) + 0.28 * smooth_noise(rng, shape, 6), 0.24, 1.15)
    amount = amount * soft(mask, uniform(rng, 0.006, 0.016) * unit)
    amount += _network(rng, mask, unit) * 0.32
    for _ in range(int(rng.integers(0, 26))):
        rows = np.argwhere(mask)
        row, column = rows[int(rng.integers(len(rows)))]
        size = uniform(rng, 0.008, 0.026) * unit
        amount += 0.5 * soft(fill(shape, outline(rng, (column, row), (size, size * 0.8))), 0.5) * mask
    absorbed = np.array([0.72, 1.08, 1.4], np.float32)
    image *= np.exp(-amount[..., None] * absorbed * uniform(rng, 0.75, 1.15)).astype(np.float32)
    if rng.random() < 0.6:
        veil = np.clip(smooth_noise(rng, shape, 4) - 0.5, 0, 1) * soft(mask, 0.03 * unit)
        image[:] = image * (1 - 0.6 * veil[..., None]) + np.array([0.36, 0.4, 0.5], np.float32) * 0.6 * veil[..., None]
    if rng.random() < 0.4:
        pale = np.clip(smooth_noise(rng, shape, 5) - 1.0, 0, 1) * soft(mask, 0.02 * unit)
        image[:] = (
            image * (1 - 0.6 * pale[..., None]) + np.array([0.86, 0.72, 0.68], np.float32) * 0.6 * pale[..., None]
        )


def _network(rng: Generator, mask: Mask, unit: float) -> F32:
    """Pigmented lines around holes: the borders between the nearest of random points (a Voronoi diagram)."""
    height, width = mask.shape
    step = max(4.0, 0.055 * unit)
    seeds = np.ones(mask.shape, np.uint8)
    for row in np.arange(0, height, step):
        for column in np.arange(0, width, step):
            at = (int(row + uniform(rng, 0, step)), int(column + uniform(rng, 0, step)))
            if at[0] < height and at[1] < width:
                seeds[at] = 0
    distance = cv2.distanceTransform(seeds, cv2.DIST_L2, 5)
    lines = np.clip(distance / (0.5 * step) - 0.45, 0, 1)
    patch = np.clip(smooth_noise(rng, mask.shape, 4) + 0.5, 0, 1)
    return as_float(lines * patch * soft(mask, 0.02 * unit))


def _freckles(rng: Generator, image: F32, unit: float) -> None:
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(1, 7))):
        place = (uniform(rng, 0, width), uniform(rng, 0, height))
        size = uniform(rng, 0.02, 0.07) * unit
        spot = soft(fill((height, width), outline(rng, place, (size, size * 0.7), uniform(rng, 0, 3))), 0.012 * unit)
        image *= np.exp(-spot[..., None] * np.array([0.16, 0.26, 0.34], np.float32) * uniform(rng, 0.6, 1.5))


def _hairs(rng: Generator, image: F32, unit: float) -> None:
    height, width = image.shape[:2]
    for _ in range(int(rng.choice([0, 2, 5, 9, 14]))):
        start = np.array([uniform(rng, -0.1, 1.1) * width, uniform(rng, -0.1, 1.1) * height])
        heading, turn = uniform(rng, 0, 6.3), rng.normal(0, 0.035)
        points = [start]
        for _ in range(24):
            heading += turn
            points.append(points[-1] + uniform(rng, 0.04, 0.07) * unit * np.array([np.cos(heading), np.sin(heading)]))
        hair = np.zeros((height, width), np.float32)
        curve(hair, np.stack(points), 1.0, uniform(rng, 0.008, 0.017) * unit, 1)
        image[:] = (
            image * (1 - 0.85 * hair[..., None]) + np.array([0.13, 0.09, 0.07], np.float32) * 0.85 * hair[..., None]
        )


def _bubbles(rng: Generator, image: F32, unit: float) -> None:
    height, width = image.shape[:2]
    for _ in range(int(rng.choice([0, 1, 3, 6]))):
        place = (uniform(rng, 0, width), uniform(rng, 0, height))
        radius = uniform(rng, 0.03, 0.11) * unit
        disc = fill((height, width), outline(rng, place, (radius, radius), 0, 0.02)).astype(np.float32)
        ring = np.clip(disc - blur(disc, 0.02 * unit), 0, 1)
        image -= 0.22 * blur(ring, 0.5)[..., None]
        glint = fill(
            (height, width),
            outline(rng, (place[0] - 0.4 * radius, place[1] - 0.4 * radius), (0.2 * radius, 0.12 * radius)),
        )
        image += 0.5 * soft(glint, 0.6)[..., None]
