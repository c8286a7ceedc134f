"""Fundus: a colour photograph of the retina.

Image formation: light reflected by the pigment epithelium through the choroid (orange), absorbed by blood (vessels,
haemorrhages) and macular pigment, scattered by exudates; illumination through the pupil with vignetting on a round
field.
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
    outline,
    smooth_noise,
    soft,
    uniform,
)

Point = NDArray[np.float64]


def fundus(rng: Generator, shape: tuple[int, int]) -> Scene:
    """A fundus photograph (H,W,3); disc, haemorrhages and exudates are annotated, vessels and spots not."""
    height, width = shape
    unit = min(shape) / 2
    y, x = np.mgrid[:height, :width].astype(np.float32)
    centre = (width / 2 + uniform(rng, -0.02, 0.02) * width, height / 2)
    radius = np.hypot(x - centre[0], y - centre[1]) / (unit * 0.97)
    field = radius < 1
    side = 1.0 if rng.random() < 0.5 else -1.0
    disc_at = np.array([centre[0] + side * uniform(rng, 0.38, 0.52) * unit, centre[1] + uniform(rng, -0.1, 0.1) * unit])
    macula = np.array([disc_at[0] - side * 0.78 * unit, disc_at[1] + 0.1 * unit])
    image = _background(rng, shape, macula, unit)
    disc, pallor = _disc(rng, shape, disc_at, unit)
    image = image * (1 - pallor[..., None]) + np.array([0.99, 0.84, 0.52], np.float32) * pallor[..., None]
    image = _cup(rng, image, disc, disc_at, unit)
    lesions = _lesions(rng, image, field, disc, macula, unit)
    veins, arteries = _vessels(rng, shape, disc_at, macula, unit, side)
    image *= 1 - veins[..., None] * np.array([0.35, 0.62, 0.5], np.float32)
    image *= 1 - arteries[..., None] * np.array([0.18, 0.45, 0.38], np.float32)
    _spots(rng, image, macula, unit)
    light = (1.05 - 0.5 * radius**2.4 + uniform(rng, -0.12, 0.12) * (x - centre[0]) / unit)[..., None]
    image = blur(image * light, 0.6) + 0.012 * rng.standard_normal((height, width, 3)).astype(np.float32)
    scene = Scene(np.where(field[..., None], np.clip(image, 0, 1), 0.01).astype(np.float32))
    if rng.random() < 0.55 or not lesions:
        scene.annotate(disc & field)
    for lesion in lesions:
        scene.annotate(lesion & field)
    return scene


def _background(rng: Generator, shape: tuple[int, int], macula: Point, unit: float) -> F32:
    height, width = shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    base = np.array([0.8, 0.38, 0.17]) + rng.normal(0, 1, 3) * np.array([0.05, 0.04, 0.03])
    choroid = np.abs(smooth_noise(rng, shape, 14))[..., None] * np.array([0.035, 0.03, 0.015])
    mottled = smooth_noise(rng, shape, 5)[..., None] * np.array([0.025, 0.02, 0.01])
    distance = np.hypot(x - macula[0], y - macula[1]) / unit
    pigment = np.exp(-((distance / 0.19) ** 2))[..., None] * np.array([0.3, 0.19, 0.09])
    return as_float(base + choroid + mottled - pigment)


def _disc(rng: Generator, shape: tuple[int, int], at: Point, unit: float) -> tuple[Mask, F32]:
    radius = uniform(rng, 0.15, 0.19) * unit
    contour = outline(rng, (float(at[0]), float(at[1])), (radius * 1.08, radius * 0.92), np.pi / 2, 0.045, 0.12)
    disc = fill(shape, contour)
    return disc, soft(disc, 0.02 * unit) * 0.85


def _cup(rng: Generator, image: F32, disc: Mask, at: Point, unit: float) -> F32:
    radius = uniform(rng, 0.06, 0.1) * unit
    cup = fill(disc.shape, outline(rng, (float(at[0]), float(at[1])), (radius, radius * 0.85), 0.5, 0.08)) & disc
    weight = soft(cup, 0.02 * unit)[..., None] * 0.7
    return as_float(image * (1 - weight) + np.array([1.0, 0.95, 0.76], np.float32) * weight)


def _vessels(
    rng: Generator, shape: tuple[int, int], disc: Point, macula: Point, unit: float, side: float
) -> tuple[F32, F32]:
    """Coverage 0..1 of veins and arteries: four arcades leave the disc, bend around the macula and branch."""
    veins, arteries = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for canvas, width, offset in ((veins, 0.03, 0.1), (arteries, 0.021, -0.08)):
        for up in (-1.0, 1.0):
            temporal = np.arctan2(up, -side * uniform(rng, 0.3, 0.6)) + offset * up
            _branch(rng, canvas, disc, temporal, up * side * uniform(rng, 0.055, 0.08), width * unit, unit, 26, 3)
            nasal = np.arctan2(up, side * uniform(rng, 0.7, 1.3)) + offset * up
            _branch(rng, canvas, disc, nasal, -up * side * 0.01, width * 0.7 * unit, unit, 18, 2)
        _branch(rng, canvas, disc, np.arctan2(0.15, side) + offset, 0.0, width * 0.4 * unit, unit, 10, 1)
    return blur(np.clip(veins, 0, 1), 0.5), blur(np.clip(arteries, 0, 1), 0.5)


def _branch(
    rng: Generator,
    canvas: F32,
    start: Point,
    heading: float,
    turn: float,
    width: float,
    unit: float,
    steps: int,
    depth: int,
) -> None:
    points = [start]
    for step in range(steps):
        heading += turn * (1 if step > 3 else -0.6) + rng.normal(0, 0.07)
        points.append(points[-1] + 0.062 * unit * np.array([np.cos(heading), np.sin(heading)]))
        if depth and step > 2 and rng.random() < 0.2:
            aside = heading + (1 if rng.random() < 0.5 else -1) * uniform(rng, 0.5, 0.9)
            share = width * (1 - step / steps * 0.6) * 0.6
            _branch(
                rng, canvas, points[-1], aside, rng.normal(0, 0.05), share, unit, max(4, steps - step - 2), depth - 1
            )
    line = np.zeros_like(canvas)
    curve(line, np.stack(points), 1.0, max(1.0, width), max(1.0, width * 0.3))
    # A line cannot be thinner than a pixel, so thin vessels are paler instead.
    np.maximum(canvas, line * min(1.0, 0.45 + 0.4 * width), out=canvas)


def _lesions(rng: Generator, image: F32, field: Mask, disc: Mask, macula: Point, unit: float) -> list[Mask]:
    room = blur((field & ~(soft(disc, 0.06 * unit) > 0.02)).astype(np.float32), 0.08 * unit) > 0.93
    places = np.argwhere(room)
    masks: list[Mask] = []
    for _ in range(int(rng.integers(1, 6))):
        row, column = places[int(rng.integers(len(places)))]
        blood = rng.random() < 0.6
        radius = uniform(rng, 0.08, 0.17) * unit
        contour = outline(
            rng, (column, row), (radius, radius * 0.55), uniform(rng, 0, 3), 0.24, either(rng, 0.5, 1.1), waves=10
        )
        mask = fill(field.shape, contour) & field
        if any((mask & other).any() for other in masks) or (mask & disc).any():
            continue
        weight = soft(mask, 0.012 * unit)[..., None]
        if blood:
            tone = np.array([0.42, 0.08, 0.06], np.float32) + 0.03 * smooth_noise(rng, field.shape, 20)[..., None]
            weight = weight * 0.85
        else:
            tone = np.array([0.97, 0.84, 0.45], np.float32) + 0.06 * smooth_noise(rng, field.shape, 34)[..., None]
            weight = weight * 0.8
        image[:] = image * (1 - weight) + tone * weight
        masks.append(mask)
    return masks


def _spots(rng: Generator, image: F32, macula: Point, unit: float) -> None:
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(6, 22))):
        place = (float(rng.normal(macula[0], 0.4 * unit)), float(rng.normal(macula[1], 0.4 * unit)))
        radius = uniform(rng, 0.008, 0.024) * unit
        spot = soft(fill((height, width), outline(rng, place, (radius, radius * 0.8))), 0.5)[..., None]
        tone = np.array([0.5, 0.12, 0.08] if rng.random() < 0.5 else [0.95, 0.8, 0.45], np.float32)
        image[:] = image * (1 - 0.8 * spot) + tone * spot * 0.8
