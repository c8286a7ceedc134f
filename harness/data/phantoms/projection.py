"""X-ray projection: a chest radiograph, from thicknesses of tissue along each ray.

Image formation: line integrals of attenuation (Beer and Lambert) over soft tissue, lung and bone; scatter as a wide
blur of the primary beam; Poisson quanta; negative logarithm and display window (Bushberg et al., The Essential
Physics of Medical Imaging, ch. 7).
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
    fill,
    outline,
    smooth_noise,
    soft,
    spline,
    uniform,
)

_SOFT_PER_CM, _BONE_PER_CM = 0.19, 0.48
_QUANTA = 2500.0

Points = list[tuple[float, float]]
_RIGHT_LUNG: Points = [
    (-0.2, -0.7), (-0.33, -0.68), (-0.46, -0.5), (-0.54, -0.2), (-0.58, 0.12), (-0.6, 0.4), (-0.53, 0.44),
    (-0.42, 0.3), (-0.28, 0.25), (-0.15, 0.31), (-0.12, 0.1), (-0.13, -0.15), (-0.11, -0.4), (-0.12, -0.58),
]  # fmt: skip
_LEFT_LUNG: Points = [
    (0.2, -0.7), (0.33, -0.67), (0.46, -0.5), (0.54, -0.2), (0.58, 0.14), (0.6, 0.46), (0.53, 0.47), (0.44, 0.36),
    (0.36, 0.33), (0.38, 0.22), (0.27, 0.02), (0.16, -0.12), (0.14, -0.24), (0.16, -0.34), (0.12, -0.5), (0.13, -0.6),
]  # fmt: skip
_HEART: Points = [
    (-0.04, -0.16), (0.08, -0.17), (0.17, -0.1), (0.28, 0.03), (0.37, 0.18), (0.4, 0.3), (0.32, 0.37), (0.1, 0.4),
    (-0.1, 0.38), (-0.17, 0.25), (-0.17, 0.08), (-0.12, -0.08),
]  # fmt: skip


def chest(rng: Generator, shape: tuple[int, int]) -> Scene:
    """A chest radiograph (H,W); lungs, heart and opacities are annotated, ribs, vessels and gas are not."""
    view = _View(rng, shape)
    right, left, heart = (view.mask(points, 0.02) for points in (_RIGHT_LUNG, _LEFT_LUNG, _HEART))
    right, left = right & ~heart, left & ~heart
    soft_cm, bone_cm = _torso(rng, view), _bones(rng, view)
    lungs = right | left
    air = _lung_depth(view, right, left)
    soft_cm -= air
    soft_cm += 3.2 * soft(heart, 0.012 * view.unit)
    soft_cm += _vessels(rng, view, lungs)
    opacities = _opacities(rng, view, lungs)
    for mask, centimetres in opacities:
        soft_cm += centimetres * soft(mask, 0.012 * view.unit) * np.exp(0.15 * smooth_noise(rng, shape, 20))
    scene = Scene(_expose(rng, np.maximum(soft_cm, 0), bone_cm, view.unit))
    chosen = [mask for mask in (right, left, heart) if rng.random() < 0.6]
    for mask in chosen or [right, left]:
        scene.annotate(mask)
    for mask, _ in opacities:
        scene.annotate(mask)
    return scene


class _View:
    """The geometry of one exposure: patient coordinates -1..1 to pixels, with shift, tilt and size of the patient."""

    def __init__(self, rng: Generator, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.unit = max(shape) / 2
        self.scale = uniform(rng, 1.12, 1.3) * self.unit
        self.wide = uniform(rng, 0.94, 1.06)
        self.tilt = uniform(rng, -0.05, 0.05)
        self.centre = (
            shape[1] / 2 + uniform(rng, -5, 5) / 96 * self.unit,
            shape[0] / 2 + uniform(rng, 4, 18) / 96 * self.unit,
        )
        self.rng = rng

    def points(self, points: NDArray[np.float64] | Points) -> NDArray[np.float64]:
        """Patient coordinates in pixels."""
        x, y = np.array(points, dtype=np.float64).T
        x = x * self.wide
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        return np.stack(
            [self.centre[0] + (x * cos - y * sin) * self.scale, self.centre[1] + (x * sin + y * cos) * self.scale],
            axis=1,
        )

    def mask(self, points: Points, jitter: float) -> Mask:
        """The inside of a smooth contour through jittered points."""
        moved = np.array(points) + self.rng.normal(0, jitter, (len(points), 2))
        return fill(self.shape, self.points(spline([(float(x), float(y)) for x, y in moved])))

    def lines(
        self, points: Points | NDArray[np.float64], centimetres: float, width: float, end: float | None = None
    ) -> F32:
        """A thickness map of one curved rod of ``width`` (patient units)."""
        canvas = np.zeros(self.shape, np.float32)
        stop = None if end is None else end * self.scale
        curve(canvas, self.points(points), centimetres, width * self.scale, stop)
        return canvas


def _torso(rng: Generator, view: _View) -> F32:
    height, width = view.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    across = (x - view.centre[0]) / (view.scale * view.wide)
    down = (y - view.centre[1]) / view.scale
    half = np.clip(0.78 - 0.5 * np.clip(-0.45 - down, 0, 1) * 1.6 + 0.04 * down, 0.16, 1)
    thickness = 20 * np.sqrt(np.clip(1 - (across / half) ** 2, 0, 1))
    arms = 9 * np.sqrt(np.clip(1 - ((np.abs(across) - 0.93 - 0.1 * down) / 0.16) ** 2, 0, 1)) * (down > -0.55)
    thickness += 4.0 * np.exp(-((across / 0.13) ** 2))
    thickness += 2.5 * np.clip((down - 0.3) / 0.3, 0, 1)
    for sign in (-1, 1):
        gap = ((across - sign * 0.36) / 0.24) ** 2 + ((down - 0.28) / 0.22) ** 2
        thickness += uniform(rng, 0, 2.2) * np.clip(1 - gap, 0, 1)
    return as_float(np.maximum(thickness, arms) + 0.5 * smooth_noise(rng, view.shape, 8))


def _lung_depth(view: _View, right: Mask, left: Mask) -> F32:
    depth = np.zeros(view.shape, np.float32)
    for lung in (right, left):
        inner = blur(lung.astype(np.float32), 0.11 * view.unit)
        depth += 12.5 * soft(lung, 0.008 * view.unit) * (0.25 + 0.75 * np.sqrt(np.clip(inner * 1.6 - 0.5, 0, 1)))
    return depth


def _bones(rng: Generator, view: _View) -> F32:
    bone = np.zeros(view.shape, np.float32)
    for step in range(9):
        top = -0.74 + 0.13 * step
        reach = 0.26 + 0.36 * (1 - np.exp(-0.55 * (step + 0.4)))
        width = 0.044
        for sign in (-1, 1):
            t = np.linspace(0, 1, 26)
            posterior = np.stack(
                [sign * (0.05 + reach * np.sin(t * 1.65)), top + 0.22 * t**2 + 0.22 * t**4 - 0.06 * np.sin(t * 3)], 1
            )
            shaft = view.lines(posterior, 0.8, width)
            core = view.lines(posterior, 0.3, width * 0.5)
            bone += shaft - core
            if 1 <= step <= 6:
                front = np.stack(
                    [sign * (reach * 0.96 - (reach - 0.16) * t**1.2), top + 0.27 + 0.2 * np.sin(t * 1.4)], 1
                )
                bone += view.lines(front, 0.22, width * 1.2)
    for sign in (-1, 1):
        t = np.linspace(0, 1, 20)
        clavicle = np.stack([sign * (0.05 + 0.55 * t), -0.6 - 0.1 * np.sin(t * 2.4) + 0.03 * np.sin(t * 7)], axis=1)
        bone += view.lines(clavicle, 1.0, 0.042) - view.lines(clavicle, 0.3, 0.02)
        scapula = [
            (sign * 0.6, -0.58),
            (sign * 0.74, -0.5),
            (sign * 0.68, -0.15),
            (sign * 0.58, 0.02),
            (sign * 0.62, -0.3),
        ]
        bone += 0.6 * blur(fill(view.shape, view.points(spline(scapula))).astype(np.float32), 0.01 * view.unit)
        humerus = [(sign * 0.78, -0.58), (sign * 0.86, -0.3), (sign * 0.9, 0.2)]
        bone += view.lines(humerus, 1.4, 0.075)
    for level in np.arange(-1.0, 0.9, 0.105):
        block = [
            (-0.062, level),
            (0.062, level),
            (0.055, level + 0.045),
            (0.062, level + 0.088),
            (-0.062, level + 0.088),
            (-0.055, level + 0.045),
        ]
        bone += 0.7 * fill(view.shape, view.points(block)).astype(np.float32)
    return blur(np.maximum(bone, 0), 0.008 * view.unit)


def _vessels(rng: Generator, view: _View, lungs: Mask) -> F32:
    tissue = np.zeros(view.shape, np.float32)
    for sign in (-1, 1):
        for _ in range(16):
            start = np.array([sign * uniform(rng, 0.12, 0.2), uniform(rng, -0.16, 0.08)])
            heading = np.pi / 2 * (1 - sign) + sign * uniform(rng, -1.25, 1.35)
            points = [start]
            for _ in range(8):
                heading += uniform(rng, -0.25, 0.25)
                points.append(points[-1] + uniform(rng, 0.03, 0.055) * np.array([np.cos(heading), np.sin(heading)]))
            tissue = np.maximum(tissue, view.lines(np.array(points), uniform(rng, 0.7, 1.6), 0.026, 0.006))
        hilum = fill(
            view.shape, outline(rng, tuple(view.points([(sign * 0.17, -0.03)])[0]), (0.06 * view.unit, 0.1 * view.unit))
        )
        tissue += 1.6 * soft(hilum, 0.03 * view.unit)
    return blur(tissue, 0.008 * view.unit) * lungs


def _opacities(rng: Generator, view: _View, lungs: Mask) -> list[tuple[Mask, float]]:
    found: list[tuple[Mask, float]] = []
    inner = np.argwhere(blur(lungs.astype(np.float32), 0.05 * view.unit) > 0.85)
    for _ in range(int(rng.choice([0, 1, 1, 2])) if len(inner) else 0):
        row, column = inner[int(rng.integers(len(inner)))]
        radius = uniform(rng, 0.08, 0.2) * view.unit
        contour = outline(rng, (column, row), (radius, radius * 0.6), uniform(rng, 0, 3), 0.2, uniform(rng, -0.8, 0.8))
        mask = fill(view.shape, contour) & lungs
        if not any((mask & other).any() for other, _ in found):
            found.append((mask, uniform(rng, 2.5, 5.5)))
    return found


def _expose(rng: Generator, soft_cm: F32, bone_cm: F32, unit: float) -> F32:
    primary = as_float(np.exp(-(_SOFT_PER_CM * soft_cm + _BONE_PER_CM * bone_cm)))
    scatter = 0.35 * blur(primary, 0.3 * unit)
    detected = blur(as_float((primary + scatter) / 1.35), 0.5)
    quanta = rng.poisson(np.maximum(detected, 1e-4) * _QUANTA * 6).astype(np.float32) / (_QUANTA * 6)
    density = -np.log(np.maximum(quanta, 1e-4))
    low, high = np.percentile(density, [2, 99.7])
    shown = as_float(np.clip((density - low) / (high - low), 0, 1))
    detail = shown - blur(shown, 0.12 * unit)
    return as_float(np.clip(shown**1.15 + 0.55 * detail, 0, 1))
