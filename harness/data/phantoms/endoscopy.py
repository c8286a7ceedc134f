"""Endoscopy: a colon lit and seen from the tip of the scope.

Image formation: a surface in front of a wide-angle camera with the lamp beside it: brightness falls with the squared
distance, shading follows the surface normal (Lambert), wet mucosa reflects specularly (Phong, 1975); colour by
haemoglobin.
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


def endoscopy(rng: Generator, shape: tuple[int, int]) -> Scene:
    """A colonoscopy frame (H,W,3); polyps are annotated, folds, bubbles and residue are not."""
    height, width = shape
    unit = max(shape) / 2
    visible = _aperture(rng, shape)
    lumen = (uniform(rng, 0.3, 0.7) * width, uniform(rng, 0.28, 0.72) * height)
    distance, relief = _colon(rng, shape, lumen)
    colour = _mucosa(rng, shape)
    masks = _polyps(rng, shape, lumen, distance, relief, colour, visible)
    image = _light(rng, distance, relief, colour, unit)
    _bubbles(rng, image, unit)
    image = blur(image, 0.5) + 0.012 * rng.standard_normal((height, width, 1)).astype(np.float32)
    image = np.where(visible[..., None], np.clip(image, 0, 1), 0.015)
    scene = Scene(image.astype(np.float32))
    for mask in masks:
        scene.annotate(mask & visible)
    return scene


def _aperture(rng: Generator, shape: tuple[int, int]) -> Mask:
    height, width = shape
    cut = uniform(rng, 0.1, 0.2) * width
    edge = 0.015 * width
    corners = [
        (edge + cut, edge), (width - edge - cut, edge), (width - edge, edge + cut),
        (width - edge, height - edge - cut), (width - edge - cut, height - edge), (edge + cut, height - edge),
        (edge, height - edge - cut), (edge, edge + cut),
    ]  # fmt: skip
    return fill(shape, np.array(corners))


def _colon(rng: Generator, shape: tuple[int, int], lumen: tuple[float, float]) -> tuple[F32, F32]:
    """Distance from the camera (relative) and height of the relief (pixels) of every pixel."""
    height, width = shape
    unit = max(shape) / 2
    y, x = np.mgrid[:height, :width].astype(np.float32)
    dx, dy = (x - lumen[0]) / unit, (y - lumen[1]) / unit
    angle = np.arctan2(dy, dx)
    corner = uniform(rng, 0.06, 0.14)
    # The colon is triangular in section, its corners where the bands of muscle run.
    radius = np.hypot(dx, dy) * (1 + corner * np.cos(3 * angle + uniform(rng, 0, 6.3)))
    radius = radius * (1 + 0.08 * smooth_noise(rng, shape, 4)) + 0.012 * smooth_noise(rng, shape, 10)
    along = 1 / np.maximum(radius, 0.07)
    distance = np.clip(0.75 * along**0.75, 0.6, 12)
    phase = uniform(rng, 0, 6.3)
    wave = np.sin(
        uniform(rng, 4.4, 5.6) * np.log(np.maximum(radius, 0.09)) * 1.25 + phase + 0.5 * np.sin(angle * 2 + phase)
    )
    folds = np.clip(wave - 0.35, 0, 1) ** 1.3
    relief = 0.085 * unit * folds * np.clip(radius * 1.6, 0.1, 1) + 0.006 * unit * smooth_noise(rng, shape, 26)
    occluded = np.clip(-(wave + 0.25), 0, 1) * np.clip(1.2 - radius, 0, 1)
    return as_float(distance * (1 + 0.9 * occluded)), as_float(relief)


def _mucosa(rng: Generator, shape: tuple[int, int]) -> F32:
    height, width = shape
    tone = rng.normal(0, 0.025, 3)
    base = np.array([0.86, 0.42, 0.34]) + tone
    mottled = smooth_noise(rng, shape, 8)[..., None] * np.array([0.03, 0.035, 0.03])
    vessels = np.zeros(shape, np.float32)
    for _ in range(14):
        points = [np.array([uniform(rng, 0, width), uniform(rng, 0, height)])]
        heading = uniform(rng, 0, 6.3)
        for _ in range(12):
            heading += rng.normal(0, 0.35)
            points.append(points[-1] + 0.022 * width * np.array([np.cos(heading), np.sin(heading)]))
        branch = np.zeros(shape, np.float32)
        curve(branch, np.stack(points), 1.0, 0.009 * width, 1)
        vessels = np.maximum(vessels, branch)
    ink = blur(vessels, 0.7)[..., None] * np.array([0.1, 0.22, 0.17])
    return as_float(base + mottled - ink)


def _polyps(
    rng: Generator,
    shape: tuple[int, int],
    lumen: tuple[float, float],
    distance: F32,
    relief: F32,
    colour: F32,
    visible: Mask,
) -> list[Mask]:
    height, width = shape
    unit = max(shape) / 2
    masks: list[Mask] = []
    for _ in range(int(rng.choice([1, 1, 1, 2, 2, 3]))):
        angle, reach = uniform(rng, 0, 6.3), uniform(rng, 0.3, 0.75)
        place = (
            float(np.clip(lumen[0] + reach * unit * np.cos(angle), 0.12 * width, 0.88 * width)),
            float(np.clip(lumen[1] + reach * unit * np.sin(angle), 0.12 * height, 0.88 * height)),
        )
        radius = uniform(rng, 0.13, 0.27) * unit
        contour = outline(
            rng, place, (radius, radius * uniform(rng, 0.42, 0.62)), uniform(rng, 0, 3), 0.19, either(rng, 0.2, 0.65)
        )
        mask = fill(shape, contour)
        if any((mask & other).any() for other in masks) or (mask & visible).sum() < 0.6 * mask.sum():
            continue
        inner = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5) / (0.55 * radius)
        dome = np.sqrt(np.clip(1 - (1 - np.clip(inner, 0, 1)) ** 2, 0, 1))
        lobes = 0.05 * smooth_noise(rng, shape, 22) * mask
        flat = relief * (1 - soft(mask, 1.0))
        relief[:] = flat + (dome + lobes) * radius * uniform(rng, 0.35, 0.6)
        near = float(np.median(distance[mask]))
        weight = soft(mask, 1.0)
        distance[:] = distance * (1 - weight) + near * (1 - 0.12 * dome) * weight
        tint = np.array([0.01, -0.06, -0.03]) * uniform(rng, 0.5, 1.6)
        pits = 0.03 * smooth_noise(rng, shape, 55)[..., None]
        colour += weight[..., None] * (tint + pits).astype(np.float32)
        ring = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.05 * unit) * (1 - weight)
        colour -= ring[..., None] * np.array([0.12, 0.11, 0.1], np.float32)
        masks.append(mask)
    return masks


def _light(rng: Generator, distance: F32, relief: F32, colour: F32, unit: float) -> F32:
    height, width = distance.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    smooth = blur(relief, 0.006 * unit)
    gx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8)
    gy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
    normal = as_float(np.stack([-gx, -gy, np.ones_like(gx)], axis=-1))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    lamp = (uniform(rng, 0.3, 0.7) * width, uniform(rng, 0.1, 0.4) * height)
    to_light = np.stack([(lamp[0] - x) / unit, (lamp[1] - y) / unit, np.full_like(x, 1.0)], axis=-1)
    to_light /= np.linalg.norm(to_light, axis=-1, keepdims=True)
    facing = np.clip((normal * to_light).sum(axis=-1), 0, 1)
    falloff = np.clip(1.15 / distance**1.45, 0.02, 1.1)
    shade = (falloff * (0.25 + 0.85 * facing))[..., None]
    # Light that bounces between walls gets redder.
    lit = colour * shade + np.array([0.09, 0.025, 0.015], np.float32) * np.clip(1 - shade, 0, 1) * 0.5
    half = to_light + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half, axis=-1, keepdims=True)
    wet = normal + 0.09 * np.stack([smooth_noise(rng, x.shape, 30) for _ in range(2)] + [np.zeros_like(x)], axis=-1)
    wet /= np.linalg.norm(wet, axis=-1, keepdims=True)
    shine = np.clip((wet * half).sum(axis=-1), 0, 1) ** 180 * falloff
    glare = blur(np.clip(shine * 1.5 - 0.55, 0, 1).astype(np.float32), 0.6)
    lit = lit + glare[..., None] * np.array([1.0, 0.97, 0.93], np.float32)
    return np.asarray(np.clip(lit, 0, 1) ** 0.85, dtype=np.float32)


def _bubbles(rng: Generator, image: F32, unit: float) -> None:
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(0, 8))):
        place = (uniform(rng, 0.1, 0.9) * width, uniform(rng, 0.3, 0.95) * height)
        radius = uniform(rng, 0.015, 0.05) * unit
        disc = fill((height, width), outline(rng, place, (radius, radius), 0, 0.02))
        inner = fill((height, width), outline(rng, place, (radius * 0.75, radius * 0.75), 0, 0.02))
        image[disc & ~inner] = image[disc & ~inner] * 0.6 + 0.25
        spot = fill(
            (height, width),
            outline(rng, (place[0] - radius * 0.3, place[1] - radius * 0.3), (radius * 0.25, radius * 0.25)),
        )
        image[spot] = 0.97
