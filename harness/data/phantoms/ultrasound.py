"""Ultrasound: echoes along beams of a curved or a linear probe.

Image formation: echogenicity and attenuation of tissue sampled along beams; two-way attenuation accumulated with depth
against a time-gain compensation set for ordinary tissue (hence shadow behind what attenuates more, enhancement behind
fluid); fully developed speckle, the envelope of complex Gaussian scatterers seen through an axial and a lateral
point-spread function (Wagner et al., IEEE Trans. Sonics Ultrason. 1983); logarithmic compression; scan conversion.
"""

from __future__ import annotations

from dataclasses import dataclass

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

_BEAMS, _SAMPLES = 224, 448
_TISSUE_ATTENUATION = 2.2


@dataclass(frozen=True)
class _Probe:
    """Where every pixel lies in beam space, and where every beam sample lies in the image; float32 maps for remap."""

    to_beams: tuple[F32, F32]
    to_image: tuple[F32, F32]
    visible: Mask
    lateral_spread: F32


@dataclass
class _Tissue:
    """Echo amplitude and attenuation (relative to ordinary tissue) of every pixel."""

    echo: F32
    attenuation: F32


def ultrasound(rng: Generator, shape: tuple[int, int]) -> Scene:
    """An ultrasound image (H,W); solid lesions and cysts are annotated, vessels, fat and shadows are not."""
    curved = rng.random() < 0.6
    probe = _curved(rng, shape) if curved else _linear(shape)
    tissue = _parenchyma(rng, shape) if curved else _breast(rng, shape)
    masks = _lesions(rng, tissue, probe.visible)
    _calcification(rng, tissue)
    scene = Scene(_image(rng, tissue, probe, uniform(rng, 40, 48)))
    for mask in masks:
        scene.annotate(mask & probe.visible)
    return scene


def _curved(rng: Generator, shape: tuple[int, int]) -> _Probe:
    height, width = shape
    half_angle = uniform(rng, 0.55, 0.68)
    near = uniform(rng, 0.22, 0.34)
    # The sector touches the lower edge in the middle and spans nearly the width.
    far = near + 1.0
    scale = min(0.96 * height / (far - near * np.cos(half_angle)), 0.49 * width / (far * np.sin(half_angle)))
    apex = (width / 2, 0.02 * height - near * scale * np.cos(half_angle))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    radius = np.hypot(x - apex[0], y - apex[1]) / scale
    angle = np.arctan2(x - apex[0], y - apex[1])
    visible = (radius >= near) & (radius <= far) & (np.abs(angle) <= half_angle)
    beams = ((angle / half_angle + 1) / 2 * (_BEAMS - 1)).astype(np.float32)
    samples = ((radius - near) / (far - near) * (_SAMPLES - 1)).astype(np.float32)
    sample, beam = np.mgrid[:_SAMPLES, :_BEAMS].astype(np.float32)
    r = (near + sample / (_SAMPLES - 1) * (far - near)) * scale
    a = (beam / (_BEAMS - 1) * 2 - 1) * half_angle
    to_image = ((apex[0] + r * np.sin(a)).astype(np.float32), (apex[1] + r * np.cos(a)).astype(np.float32))
    spread = np.linspace(2.6, 1.9, _SAMPLES).astype(np.float32)
    return _Probe((beams, samples), to_image, visible, spread)


def _linear(shape: tuple[int, int]) -> _Probe:
    height, width = shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    to_beams = (x * ((_BEAMS - 1) / (width - 1)), y * ((_SAMPLES - 1) / (height - 1)))
    sample, beam = np.mgrid[:_SAMPLES, :_BEAMS].astype(np.float32)
    to_image = (beam * ((width - 1) / (_BEAMS - 1)), sample * ((height - 1) / (_SAMPLES - 1)))
    spread = np.linspace(1.4, 2.2, _SAMPLES).astype(np.float32)
    return _Probe(to_beams, to_image, np.ones(shape, bool), spread)


def _parenchyma(rng: Generator, shape: tuple[int, int]) -> _Tissue:
    height, width = shape
    echo = 0.5 * np.exp(0.18 * smooth_noise(rng, shape, 9)).astype(np.float32)
    wall = uniform(rng, 0.1, 0.17) * height
    y, x = np.mgrid[:height, :width].astype(np.float32)
    arch = y - 0.1 * (x - width / 2) ** 2 / width * -1
    layers = 0.5 + 0.45 * np.sin(arch / wall * 11 + 0.6 * smooth_noise(rng, shape, 5))
    echo = np.where(arch < wall, 0.25 + 0.7 * layers, echo).astype(np.float32)
    for _ in range(int(rng.integers(4, 8))):
        place = (uniform(rng, 0.15, 0.85) * width, uniform(rng, 0.3, 0.85) * height)
        length = uniform(rng, 0.06, 0.16) * width
        vessel = fill(
            shape, outline(rng, place, (length, 0.016 * width), uniform(rng, -1, 1), 0.05, uniform(rng, -1, 1))
        )
        echo[cv2.dilate(vessel.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0] = 1.0
        echo[vessel] = 0.04
    bow = np.linspace(0.1, 1.1, 40) * width
    diaphragm = np.stack([bow, height * (0.97 - 0.35 * (bow / width - 0.4) ** 2 - 0.12 * bow / width)], axis=1)
    line = np.zeros(shape, np.float32)
    curve(line, diaphragm, 1.0, 0.018 * height)
    return _Tissue(np.maximum(echo, 4 * line), np.ones(shape, np.float32))


def _breast(rng: Generator, shape: tuple[int, int]) -> _Tissue:
    height, width = shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    wave = 0.02 * height * smooth_noise(rng, shape, 4)
    gland, muscle, rib = (height * uniform(rng, *span) for span in ((0.2, 0.3), (0.68, 0.76), (0.88, 0.95)))
    echo = 0.28 * np.exp(0.25 * smooth_noise(rng, shape, 10)).astype(np.float32)
    septa = np.abs(smooth_noise(rng, shape, 7) + 0.4 * smooth_noise(rng, shape, 14)) < 0.09
    echo[septa] = 1.0
    glandular = (y + wave > gland) & (y + wave < muscle)
    texture = 0.75 * np.exp(0.45 * smooth_noise(rng, shape, 14))
    echo[glandular] = texture[glandular]
    deep = y + wave >= muscle
    stripes = 0.22 + 0.2 * np.sin(y / height * 120 + x / width * 8 + 2.5 * smooth_noise(rng, shape, 4))
    echo[deep] = stripes[deep]
    echo[np.abs(y + wave - muscle) < 0.008 * height] = 1.8
    echo[np.abs(y + wave - rib) < 0.012 * height] = 2.2
    echo[y < 0.045 * height] = 1.6
    for _ in range(int(rng.integers(2, 5))):
        # Fat lobules among the gland are dark like lesions, but have no shadow and no irregular border.
        place = (uniform(rng, 0.05, 0.95) * width, uniform(rng, 0.3, 0.66) * height)
        lobule = fill(shape, outline(rng, place, (uniform(rng, 0.06, 0.12) * width, 0.05 * height), 0.1, 0.04))
        echo[lobule] = 0.3
    return _Tissue(echo.astype(np.float32), np.ones(shape, np.float32))


def _lesions(rng: Generator, tissue: _Tissue, visible: Mask) -> list[Mask]:
    height, width = visible.shape
    masks: list[Mask] = []
    for _ in range(int(rng.choice([1, 1, 2, 2, 3]))):
        place = (uniform(rng, 0.22, 0.78) * width, uniform(rng, 0.3, 0.75) * height)
        radius = uniform(rng, 0.07, 0.15) * width
        cyst = rng.random() < 0.35
        contour = outline(
            rng,
            place,
            (radius, radius * uniform(rng, 0.45, 0.68)),
            uniform(rng, -0.9, 0.9),
            0.08 if cyst else 0.17,
            either(rng, 0.5, 1.0),
        )
        mask = fill(visible.shape, contour)
        if any((mask & other).any() for other in masks):
            continue
        edge = soft(mask, 0.006 * width)
        inside = 0.012 if cyst else uniform(rng, 0.1, 0.17) * np.exp(0.3 * smooth_noise(rng, mask.shape, 16))
        tissue.echo = (tissue.echo * (1 - edge) + inside * edge).astype(np.float32)
        tissue.attenuation[mask] = 0.1 if cyst else uniform(rng, 1.2, 2.3)
        if cyst:
            rim = (cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~mask
            tissue.echo[rim] = np.maximum(tissue.echo[rim], 0.9)
        masks.append(mask)
    return masks


def _calcification(rng: Generator, tissue: _Tissue) -> None:
    if rng.random() < 0.55:
        height, width = tissue.echo.shape
        place = (uniform(rng, 0.15, 0.85) * width, uniform(rng, 0.25, 0.6) * height)
        stone = fill(tissue.echo.shape, outline(rng, place, (0.025 * width, 0.012 * width), 0.0, 0.05))
        tissue.echo[stone] = 5.0
        tissue.attenuation[stone] = uniform(rng, 25, 50)


def _image(rng: Generator, tissue: _Tissue, probe: _Probe, dynamic_range: float) -> F32:
    echo, loss = (
        as_float(cv2.remap(field, *probe.to_image, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
        for field in (tissue.echo, tissue.attenuation)
    )
    # Gain makes up for ordinary tissue (1.0), so only the excess or the lack of attenuation is seen.
    depth = np.cumsum(loss - 1, axis=0) / _SAMPLES
    amplitude = echo * np.exp(-_TISSUE_ATTENUATION * np.clip(depth, -0.25, 2.5))
    speckle = [_spread(rng.standard_normal(echo.shape).astype(np.float32) * amplitude, probe) for _ in range(2)]
    envelope = np.hypot(speckle[0], speckle[1]) + 0.0012 * np.abs(rng.standard_normal(echo.shape).astype(np.float32))
    decibel = 20 * np.log10(np.maximum(envelope, 1e-6)).astype(np.float32)
    # Ordinary tissue is shown somewhat below the middle of the grey scale.
    decibel -= float(np.median(decibel))
    shown = as_float(np.clip(0.4 + decibel / dynamic_range, 0, 1))
    image = as_float(cv2.remap(shown, *probe.to_beams, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    return as_float(np.where(probe.visible, blur(image, 0.4), 0))


def _spread(scatterers: F32, probe: _Probe) -> F32:
    """Point-spread function: short along the beam, wider across it, by depth in four bands."""
    out = np.empty_like(scatterers)
    bands = np.array_split(np.arange(_SAMPLES), 4)
    for band in bands:
        sigma = float(probe.lateral_spread[band].mean())
        low, high = max(0, band[0] - 8), min(_SAMPLES, band[-1] + 9)
        blurred = cv2.GaussianBlur(scatterers[low:high], (0, 0), sigmaX=sigma, sigmaY=1.6)
        # The mean energy stays the same whatever the width.
        out[band] = blurred[band[0] - low : band[-1] + 1 - low] * np.sqrt(sigma * 1.6)
    return out
