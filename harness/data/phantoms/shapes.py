"""Shapes and random fields that every phantom is drawn with.

Coordinates are normalised: x and y run over -1..1 along the longer in-plane side, z over -1..1 along the slices, so
that a phantom looks the same at every size. Nothing here keeps state: all randomness comes from the generator passed
in.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

FLAT = 1e6
"""A radius in z that makes a solid the same in every slice."""


@dataclass(frozen=True)
class Grid:
    """Coordinates of a (D,H,W) volume; an image is a volume of one slice.

    ``x`` is (1,1,W), ``y`` (1,H,1), ``z`` (D,1,1); ``pixel`` is the size of a pixel in normalised units.
    """

    shape: tuple[int, int, int]
    x: F32
    y: F32
    z: F32
    pixel: float


def make_grid(
    shape: tuple[int, int, int], zoom: float = 1.0, shift: tuple[float, float] = (0.0, 0.0), z_at: float = 0.0
) -> Grid:
    """A grid over a field of view: ``zoom`` < 1 enlarges what is seen, ``shift`` moves its centre.

    ``z_at`` is the position of the slice where there is only one.
    """
    depth, height, width = shape
    longest = max(height, width)
    x = (np.arange(width) + 0.5 - width / 2) * (2 / longest) * zoom + shift[0]
    y = (np.arange(height) + 0.5 - height / 2) * (2 / longest) * zoom + shift[1]
    z = np.linspace(-1, 1, depth) if depth > 1 else np.array([z_at])
    return Grid(
        shape,
        x.astype(np.float32)[None, None, :],
        y.astype(np.float32)[None, :, None],
        z.astype(np.float32)[:, None, None],
        2 * zoom / longest,
    )


def solid(
    grid: Grid,
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    angle: float = 0.0,
    bend: float = 0.0,
    drift: tuple[float, float] = (0.0, 0.0),
) -> F32:
    """Level of a bent, tilted ellipsoid: 1 at its centre, 0 on its surface, negative outside; (D,H,W).

    ``angle`` turns it in the plane, ``bend`` curves its long axis, ``drift`` moves its centre in x and y along z.  The
    result may be a read-only view where all slices are alike.
    """
    flat = radii[2] >= FLAT
    dz = np.zeros((1, 1, 1), np.float32) if flat and drift == (0.0, 0.0) else grid.z - np.float32(centre[2])
    dx = grid.x - centre[0] - drift[0] * dz
    dy = grid.y - centre[1] - drift[1] * dz
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u = (dx * cos + dy * sin) / np.float32(radii[0])
    v = (dy * cos - dx * sin) / np.float32(radii[1]) + np.float32(bend) * (u * u - np.float32(0.4))
    squared = u * u + v * v
    if not flat:
        squared = squared + (dz / np.float32(radii[2])) ** 2
    return np.broadcast_to(as_float(1 - np.sqrt(squared)), grid.shape)


def lumpy(rng: Generator, grid: Grid, level: F32, radius: float, rough: float) -> Mask:
    """The largest piece of ``level`` > 0 after its surface was displaced by lumps of about ``radius``."""
    cells = float(np.clip(2.2 * grid.pixel * max(grid.shape) / 2 / radius, 2, max(grid.shape) / 3))
    return largest(level + np.float32(rough) * smooth_noise(rng, grid.shape, cells) > 0)


def smooth_noise(rng: Generator, shape: tuple[int, ...], cells: float) -> F32:
    """Gaussian random field of unit variance with about ``cells`` cells along the longest side; (H,W) or (D,H,W)."""
    height, width = shape[-2:]
    longest = max(height, width)
    rows, columns = (max(2, round(cells * n / longest) + 2) for n in (height, width))
    if len(shape) == 2:
        return _unit(_enlarge(rng.standard_normal((rows, columns)).astype(np.float32), height, width))
    depth = shape[0]
    layers = max(2, round(cells / 3) + 1)
    coarse = rng.standard_normal((layers, rows, columns)).astype(np.float32)
    place = np.linspace(0, layers - 1, depth) if depth > 1 else np.array([(layers - 1) / 2])
    below = np.minimum(place.astype(int), layers - 2)
    part = (place - below).astype(np.float32)[:, None, None]
    mixed = coarse[below] * np.sqrt(1 - part) + coarse[below + 1] * np.sqrt(part)
    return _unit(np.stack([_enlarge(layer, height, width) for layer in mixed]))


def fractal_noise(rng: Generator, shape: tuple[int, int], slope: float) -> F32:
    """Random field whose amplitude spectrum falls as 1/f**slope, unit variance; (H,W)."""
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :]
    amplitude = np.hypot(fy, fx)
    amplitude[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) / amplitude**slope
    return _unit(np.fft.irfft2(spectrum, s=shape).astype(np.float32))


def _enlarge(field: F32, height: int, width: int) -> F32:
    return as_float(cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC))


def _unit(field: F32) -> F32:
    unit: F32 = (field - field.mean()) / max(float(field.std()), 1e-6)
    return unit


def as_float(values: object) -> F32:
    """Any array as float32."""
    return np.asarray(values, dtype=np.float32)


def blur(image: F32, sigma: float) -> F32:
    """Gaussian blur in the plane, sigma in pixels; (H,W), (H,W,3) or, slice by slice, (D,H,W) with ``blur_slices``."""
    if sigma <= 0.05:
        return image
    return as_float(cv2.GaussianBlur(image, (0, 0), sigma))


def blur_slices(volume: F32, sigma: float) -> F32:
    """``blur`` of every slice of (D,H,W)."""
    return np.stack([blur(layer, sigma) for layer in volume])


def largest(mask: Mask) -> Mask:
    """The largest connected piece of a mask (H,W) or (D,H,W); in volumes pieces touch by their faces."""
    if mask.ndim == 3 and mask.shape[0] > 1:
        from scipy import ndimage

        pieces, count = ndimage.label(mask)
        sizes = np.bincount(pieces.ravel(), minlength=2)
        sizes[0] = 0
        return np.asarray(pieces == sizes.argmax()) if count else mask
    flat = mask.reshape(mask.shape[-2:]).astype(np.uint8)
    count, pieces, statistics, _ = cv2.connectedComponentsWithStats(flat, connectivity=4)
    if count <= 2:
        return mask
    return np.asarray(pieces == 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())).reshape(mask.shape)


def outline(
    rng: Generator,
    centre: tuple[float, float],
    radii: tuple[float, float],
    angle: float = 0.0,
    irregular: float = 0.1,
    bend: float = 0.0,
    waves: int = 7,
) -> NDArray[np.float64]:
    """An irregular closed contour in pixels, (128,2) x,y: an ellipse with random lobes (``irregular``), then bent."""
    theta = np.linspace(0, 2 * np.pi, 128, endpoint=False)
    radius = np.ones_like(theta)
    for wave in range(2, waves + 1):
        radius += irregular * rng.normal() / (wave - 1) ** 0.9 * np.cos(wave * theta + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.3, 1.9)
    u, v = radius * np.cos(theta), radius * np.sin(theta)
    v = v + bend * (u * u - 0.5)
    u, v = u * radii[0], v * radii[1]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([centre[0] + u * cos - v * sin, centre[1] + u * sin + v * cos], axis=1)


def fill(shape: tuple[int, int], contour: NDArray[np.float64]) -> Mask:
    """The pixels of (H,W) inside a contour in pixels; the largest piece where the contour crosses itself."""
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [np.round(contour * 16).astype(np.int32)], 1, shift=4)
    return largest(canvas.astype(bool))


def spline(points: list[tuple[float, float]], closed: bool = True, steps: int = 12) -> NDArray[np.float64]:
    """A smooth (Catmull-Rom) curve through ``points``, (M,2), with ``steps`` points a span."""
    knots = np.array(points, dtype=np.float64)
    around = (
        np.concatenate([knots[-1:], knots, knots[:2]]) if closed else np.concatenate([knots[:1], knots, knots[-1:]])
    )
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    spans = []
    for a, b, c, d in zip(around, around[1:], around[2:], around[3:], strict=False):
        spans.append(b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))))
    if not closed:
        spans.append(knots[-1:])
    return np.concatenate(spans)


def curve(
    canvas: F32, points: NDArray[np.float64], value: float, thickness: float, end_thickness: float | None = None
) -> None:
    """Draw an anti-aliased line through ``points`` (pixels) on ``canvas`` in place, tapering to ``end_thickness``."""
    end = thickness if end_thickness is None else end_thickness
    fixed = np.round(points * 16).astype(np.int32)
    for number in range(len(fixed) - 1):
        width = thickness + (end - thickness) * number / max(1, len(fixed) - 2)
        start, stop = (tuple(int(v) for v in fixed[number + step]) for step in (0, 1))
        cv2.line(canvas, start, stop, value, max(1, round(width)), cv2.LINE_AA, 4)


def soft(mask: Mask, sigma: float) -> F32:
    """A mask (H,W) as weights 0..1 with an edge blurred by ``sigma`` pixels."""
    return blur(mask.astype(np.float32), sigma)


def to_bytes(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Intensities 0..1 as uint8, clipped."""
    whole: NDArray[np.uint8] = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
    return whole


def uniform(rng: Generator, low: float, high: float) -> float:
    """One number from a uniform distribution, as a plain float."""
    return float(rng.uniform(low, high))


def either(rng: Generator, low: float, high: float) -> float:
    """A number whose size lies in ``low``..``high``, of either sign."""
    return float(rng.uniform(low, high) * (1 if rng.random() < 0.5 else -1))
