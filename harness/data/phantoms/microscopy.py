"""Microscopy: cell nuclei, stained for light (haematoxylin and eosin) or for fluorescence (DAPI).

Image formation: light absorbed by two stains (Beer and Lambert, colour deconvolution vectors of Ruifrok and Johnston,
2001) or photons emitted by one, a point-spread function with out-of-focus haze, shot noise.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from harness.data.phantoms.scene import Scene
from harness.data.phantoms.shapes import F32, Mask, as_float, blur, either, fill, outline, smooth_noise, soft, uniform

_HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], np.float32)
_EOSIN = np.array([0.07, 0.99, 0.11], np.float32)


def microscopy(rng: Generator, shape: tuple[int, int]) -> Scene:
    """A field of nuclei (H,W,3), many of them touching; those in focus are annotated, debris is not."""
    masks = _nuclei(rng, shape)
    image = _stained(rng, shape, masks) if rng.random() < 0.55 else _fluorescent(rng, shape, masks)
    scene = Scene(image)
    for mask in masks:
        scene.annotate(mask)
    return scene


def _nuclei(rng: Generator, shape: tuple[int, int]) -> list[Mask]:
    height, width = shape
    unit = max(shape) / 2
    wanted = int(rng.integers(8, 38))
    size = uniform(rng, 0.085, 0.13) * unit * (1.25 if wanted < 16 else 1.0)
    taken = np.zeros(shape, bool)
    masks: list[Mask] = []
    last = np.array([width / 2, height / 2])
    for _ in range(4 * wanted):
        if len(masks) == wanted:
            break
        # Half of the nuclei grow beside the one before, so that clumps touch.
        if masks and rng.random() < 0.5:
            turn = uniform(rng, 0, 6.3)
            place = last + 1.7 * size * np.array([np.cos(turn), np.sin(turn)])
        else:
            place = np.array([uniform(rng, -0.02, 1.02) * width, uniform(rng, -0.02, 1.02) * height])
        radius = size * uniform(rng, 0.8, 1.35)
        contour = outline(
            rng,
            (float(place[0]), float(place[1])),
            (radius, radius * uniform(rng, 0.4, 0.66)),
            uniform(rng, 0, 3.1),
            0.1,
            either(rng, 0.25, 0.75),
            waves=5,
        )
        full = fill(shape, contour)
        mask = full & ~taken
        if mask.sum() < 0.75 * full.sum() or not mask.any():
            continue
        taken |= mask
        masks.append(mask)
        last = place
    return masks


def _stained(rng: Generator, shape: tuple[int, int], masks: list[Mask]) -> F32:
    unit = max(shape) / 2
    fibres = np.abs(smooth_noise(rng, shape, 9) + 0.35 * smooth_noise(rng, shape, 25))
    eosin = 0.3 + 0.16 * np.clip(1.2 - fibres, 0, 1.2) + 0.05 * smooth_noise(rng, shape, 30)
    gaps = np.clip(smooth_noise(rng, shape, 6) - 0.9, 0, 1)
    eosin = np.clip(eosin * (1 - gaps), 0.02, 1)
    haematoxylin = 0.05 + 0.03 * np.clip(smooth_noise(rng, shape, 18), 0, 2)
    for mask in masks:
        body = soft(mask, 0.8)
        rim = np.clip(body - soft(_shrunk(mask), 1.0), 0, 1)
        chromatin = 1 + 0.28 * smooth_noise(rng, shape, 60)
        haematoxylin = haematoxylin + uniform(rng, 0.5, 1.0) * (0.75 * body * chromatin + 0.35 * rim)
    for _ in range(int(rng.integers(3, 10))):
        # Nuclei above or below the plane of focus: pale, blurred, not annotated.
        haematoxylin = haematoxylin + 0.32 * blur(_stray(rng, shape, 0.09 * unit).astype(np.float32), 0.035 * unit)
    density = haematoxylin[..., None] * _HAEMATOXYLIN + eosin[..., None] * _EOSIN * 0.6
    image = 0.96 * np.exp(-1.35 * density).astype(np.float32)
    image = blur(image, 0.6) + 0.012 * rng.standard_normal((*shape, 3)).astype(np.float32)
    return as_float(np.clip(image, 0, 1))


def _fluorescent(rng: Generator, shape: tuple[int, int], masks: list[Mask]) -> F32:
    unit = max(shape) / 2
    light = np.full(shape, 0.02, np.float32)
    for mask in masks:
        texture = 1 + 0.2 * smooth_noise(rng, shape, 45)
        light += soft(mask, 0.8) * uniform(rng, 0.3, 0.95) * texture
    for _ in range(int(rng.integers(3, 10))):
        light += uniform(rng, 0.12, 0.3) * blur(_stray(rng, shape, 0.09 * unit).astype(np.float32), 0.05 * unit)
    for _ in range(int(rng.integers(0, 12))):
        light += soft(_stray(rng, shape, 0.015 * unit), 0.5) * uniform(rng, 0.3, 0.8)
    seen = 0.84 * blur(light, 0.7) + 0.16 * blur(light, 0.09 * unit)
    counts = rng.poisson(np.clip(seen, 0, 3) * 220 + 3).astype(np.float32) / 220
    tint = np.array([0.22, 0.42, 1.0] if rng.random() < 0.5 else [1.0, 1.0, 1.0], np.float32)
    return as_float(np.clip(counts[..., None] * tint + 0.12 * np.clip(counts - 0.7, 0, 1)[..., None], 0, 1))


def _stray(rng: Generator, shape: tuple[int, int], radius: float) -> Mask:
    place = (uniform(rng, 0, shape[1]), uniform(rng, 0, shape[0]))
    return fill(shape, outline(rng, place, (radius * uniform(rng, 0.8, 1.4), radius * 0.8), uniform(rng, 0, 3)))


def _shrunk(mask: Mask) -> Mask:
    return np.asarray(blur(mask.astype(np.float32), 1.2) > 0.75)
