"""OCT: a retinal B-scan through the macula.

Image formation: layered back-scatter, light lost with depth along each A-scan (Beer and Lambert; hence shadows under
vessels), coherent speckle, logarithmic display (Drexler and Fujimoto, Optical Coherence Tomography, ch. 1 and 2).
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.random import Generator

from harness.data.phantoms.scene import Scene
from harness.data.phantoms.shapes import F32, Mask, as_float, blur, either, fill, outline, smooth_noise, soft, uniform

LAYERS: Final = (
    # name, thickness at the fovea and away from it (share of the retina), back-scatter
    ("nerve fibres", 0.02, 0.12, 0.85),
    ("ganglion cells", 0.04, 0.2, 0.5),
    ("inner nuclear", 0.05, 0.12, 0.2),
    ("outer plexiform", 0.05, 0.08, 0.52),
    ("outer nuclear", 0.3, 0.22, 0.15),
    ("external limiting membrane", 0.02, 0.02, 0.4),
    ("myoid", 0.04, 0.04, 0.2),
    ("ellipsoid", 0.05, 0.05, 0.95),
    ("outer segments", 0.05, 0.05, 0.35),
    ("pigment epithelium", 0.08, 0.08, 1.15),
)


def b_scan(rng: Generator, shape: tuple[int, int]) -> Scene:
    """A B-scan (H,W); fluid is annotated (cysts in the retina, pools under it), choroidal vessels are not."""
    height = shape[0]
    pool, lift = _pool(rng, shape)
    boundaries = _boundaries(rng, shape, lift)
    scatter, retina = _layers(rng, shape, boundaries, lift)
    masks = _fluid(rng, shape, boundaries, scatter, retina)
    if pool is not None:
        below = np.arange(height)[:, None]
        fluid = (below > boundaries[-2] - 0.004 * height) & (below < boundaries[-2] + lift) & pool
        fluid &= lift > 0.02 * height
        scatter[fluid] = 0.05
        masks.insert(0, fluid)
    scene = Scene(_image(rng, scatter, retina))
    for mask in masks:
        scene.annotate(mask)
    return scene


def _pool(rng: Generator, shape: tuple[int, int]) -> tuple[Mask | None, F32]:
    """Subretinal fluid: how far it lifts the retina in each column, pixels (W,)."""
    height, width = shape
    if rng.random() < 0.5:
        return None, np.zeros(width, np.float32)
    x = np.arange(width) / width
    centre, reach = uniform(rng, 0.35, 0.65), uniform(rng, 0.12, 0.22)
    skew = uniform(rng, -0.9, 0.9)
    t = np.clip(np.abs(x - centre) / (reach * (1 + skew * np.sign(x - centre) * 0.5)), 0, 1)
    lift = uniform(rng, 0.07, 0.14) * height * (1 - t**1.6) ** 1.3
    lift *= 1 + 0.15 * np.sin(x * 40 + uniform(rng, 0, 6))
    return np.ones(shape, bool), as_float(lift)


def _boundaries(rng: Generator, shape: tuple[int, int], lift: F32) -> F32:
    """Depth of each layer's upper surface and of the last one's lower surface, pixels (layers+1, W)."""
    height, width = shape
    x = np.linspace(-1, 1, width)
    fovea = uniform(rng, -0.2, 0.2)
    pit = np.exp(-(((x - fovea) / uniform(rng, 0.16, 0.24)) ** 2))
    bottom = (0.66 + 0.1 * uniform(rng, -1, 1) * x + uniform(rng, -0.12, -0.03) * -(x**2)) * height
    bottom = bottom + 0.006 * height * smooth_noise(rng, (2, width), 8)[0]
    full = uniform(rng, 0.3, 0.36) * height
    thick = [full * (away * (1 - pit) + fovea_share * pit) for _, fovea_share, away, _ in LAYERS]
    surfaces = [bottom]
    for share in reversed(thick):
        surfaces.append(surfaces[-1] - share)
    stacked = np.stack(surfaces[::-1]).astype(np.float32)
    stacked[:-2] -= lift
    stacked[-2] -= lift  # the upper face of the pigment epithelium is where the retina lifts off
    return stacked


def _layers(rng: Generator, shape: tuple[int, int], boundaries: F32, lift: F32) -> tuple[F32, Mask]:
    height, width = shape
    depth = np.arange(height, dtype=np.float32)[:, None]
    scatter = np.full(shape, 0.012, np.float32)
    for number, (_, _, _, value) in enumerate(LAYERS[:-1]):
        inside = (depth >= boundaries[number]) & (depth < boundaries[number + 1])
        scatter[inside] = value
    top = boundaries[-1] - (LAYERS[-1][1] * 0.33 * height)
    scatter[(depth >= top) & (depth < boundaries[-1])] = LAYERS[-1][3]
    choroid = depth >= boundaries[-1]
    texture = smooth_noise(rng, shape, 22)
    vessels = choroid & (depth - boundaries[-1] > 0.025 * height) & (texture > 0.5)
    fading = np.exp(-np.clip(depth - boundaries[-1], 0, None) / (0.11 * height))
    scatter = np.where(choroid, 0.6 * fading * np.exp(0.25 * texture) + 0.02, scatter)
    scatter = np.where(vessels, scatter * 0.35, scatter)
    scatter *= np.exp(0.14 * smooth_noise(rng, shape, 26))
    retina = (depth >= boundaries[1]) & (depth < boundaries[-3])
    # Detached vitreous: a thin line above the retina, now and then.
    if rng.random() < 0.4:
        line = boundaries[0] - height * (0.03 + 0.07 * np.abs(np.linspace(-1, 1, width)))
        scatter[np.abs(depth - line) < 0.006 * height] = 0.3
    return scatter.astype(np.float32), retina


def _fluid(rng: Generator, shape: tuple[int, int], boundaries: F32, scatter: F32, retina: Mask) -> list[Mask]:
    height, width = shape
    masks: list[Mask] = []
    taken = np.zeros(shape, bool)
    for _ in range(int(rng.integers(2, 6))):
        column = int(uniform(rng, 0.15, 0.85) * width)
        top, bottom = float(boundaries[1, column]), float(boundaries[5, column])
        room = bottom - top
        centre = (column, top + room * uniform(rng, 0.35, 0.75))
        radii = (uniform(rng, 0.03, 0.075) * width, min(0.4 * room, uniform(rng, 0.035, 0.075) * height))
        contour = outline(rng, centre, radii, uniform(rng, -0.5, 0.5), 0.2, either(rng, 0.5, 1.1))
        mask = fill(shape, contour) & retina
        halo = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        if (halo & taken).any() or not mask.any():
            continue
        weight = soft(mask, 0.6)
        scatter[:] = scatter * (1 - weight) + 0.035 * weight
        taken |= halo
        masks.append(mask)
    for _ in range(int(rng.integers(3, 9))):
        # Hyper-reflective foci.
        column = int(uniform(rng, 0.05, 0.95) * width)
        row = uniform(rng, float(boundaries[1, column]), float(boundaries[5, column]))
        spot = fill(shape, outline(rng, (column, row), (0.007 * width, 0.005 * width)))
        scatter[spot & ~taken] = 1.3
    return masks


def _image(rng: Generator, scatter: F32, retina: Mask) -> F32:
    height, width = scatter.shape
    absorption = np.ones(width, np.float32)
    loss = scatter * (1.1 / height)
    for _ in range(int(rng.integers(2, 6))):
        # A vessel in the inner retina absorbs the light of the A-scans below it.
        column, half = int(uniform(rng, 0.02, 0.98) * width), uniform(rng, 0.006, 0.014) * width
        shadow = np.exp(-(((np.arange(width) - column) / half) ** 2)).astype(np.float32)
        first = np.argmax(retina, axis=0)
        below = np.arange(height)[:, None] > first[None, :] + 0.015 * height
        loss += below * shadow * (1.6 / height)
    intensity = scatter * absorption * np.exp(-2 * np.cumsum(loss, axis=0))
    field = [blur(rng.standard_normal(scatter.shape).astype(np.float32), 0.75) for _ in range(2)]
    speckle = (field[0] ** 2 + field[1] ** 2) / float((field[0] ** 2 + field[1] ** 2).mean())
    other = rng.exponential(1.0, scatter.shape)
    averaged = (0.45 * speckle + 0.2 * other + 0.35).astype(np.float32)
    power = blur(intensity.astype(np.float32), 0.6) * averaged + 0.011 * rng.exponential(1.0, scatter.shape)
    decibel = 10 * np.log10(np.maximum(power, 1e-5)).astype(np.float32)
    low, high = -18.0, 4.5
    return as_float(np.clip((decibel - low) / (high - low), 0, 1))
