"""Drawing of the published workload: exact sizes and numbers of objects, at any size.

The image is a phantom of the case's modality, drawn small and enlarged, with grain of its own at full size, so that a
file is no easier to read than that of a real image.  The objects are irregular shapes of their own, each in a cell of a
grid: all of them visible, none empty, each a label in one piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from math import ceil, sqrt
from typing import Final

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from harness.data.case import Case, ndim_of
from harness.data.phantoms import PhantomId, generate
from harness.data.phantoms.scene import tight_boxes
from harness.data.phantoms.shapes import Mask, fill, outline, uniform
from harness.data.workload import WorkloadCase

SPACING_MM: Final[dict[str, tuple[float, float, float]]] = {
    "CT": (0.75, 0.75, 2.5),
    "MR": (0.6, 0.6, 3.0),
    "PET": (4.0, 4.0, 3.0),
}
"""x, y, z of the volumes: usual ones, since no paper prints them."""

_DRAWN_SIDE, _DRAWN_SLICES = 192, 12
_GRAIN = 4
_FEW = 6


@dataclass(frozen=True)
class _Object:
    """A mask (H,W) or (D,H,W) of the size of its cell, and the cell's first corner."""

    mask: Mask
    corner: tuple[int, ...]

    @property
    def place(self) -> tuple[slice, ...]:
        return tuple(slice(start, start + size) for start, size in zip(self.corner, self.mask.shape, strict=True))

    @property
    def box(self) -> NDArray[np.int64]:
        corner = np.array(self.corner[::-1] * 2, dtype=np.int64)
        return np.asarray(tight_boxes(self.mask.astype(np.uint16))[0] + corner)


def draw(case: WorkloadCase) -> Case:
    """Draw one case; the same name, seed and size give the same arrays."""
    rng = _generator(case)
    image = _background(case, rng)
    truth = np.zeros(case.shape, np.uint16)
    objects = _objects(case, rng)
    for label, found in enumerate(objects, start=1):
        truth[found.place][found.mask] = label
        part = image[found.place]
        before = part[found.mask].astype(np.int16)
        contrast = round(uniform(rng, 30, 60)) * (1 if before.mean() < 128 else -1)
        part[found.mask] = np.clip(before + contrast, 0, 255).astype(np.uint8)
    volume = ndim_of(case.name) == 3
    boxes = np.stack([found.box for found in objects])
    spacing = SPACING_MM[case.modality] if volume else None
    return Case(case.name, case.modality, image, boxes, spacing, truth)


def _generator(case: WorkloadCase) -> Generator:
    text = f"workload/{case.seed}/{case.name}/{case.shape}"
    return np.random.default_rng(int.from_bytes(sha256(text.encode()).digest()[:16], "little"))


def _background(case: WorkloadCase, rng: Generator) -> NDArray[np.uint8]:
    """The enlarged phantom with grain, uint8 (H,W,3) or (D,H,W)."""
    height, width = case.shape[-2:]
    scale = min(1.0, _DRAWN_SIDE / max(height, width))
    plane = (max(64, round(height * scale)), max(64, round(width * scale)))
    volume = ndim_of(case.name) == 3
    shape = (_DRAWN_SLICES, *plane) if volume else plane
    small = generate(PhantomId(case.seed, case.modality, len(shape), int(case.name[-4:]), shape)).image
    if not volume:
        return _grained(_enlarged(small, height, width), rng)
    image = np.empty(case.shape, np.uint8)
    for z, place in enumerate(np.linspace(0, _DRAWN_SLICES - 1, len(image))):
        below = min(int(place), _DRAWN_SLICES - 2)
        mixed = cv2.addWeighted(small[below], 1 - (place - below), small[below + 1], place - below, 0)
        image[z] = _grained(_enlarged(mixed, height, width), rng)
    return image


def _enlarged(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _grained(image: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    grain = rng.integers(-_GRAIN, _GRAIN + 1, image.shape, dtype=np.int16)
    return np.asarray(np.clip(image + grain, 0, 255), dtype=np.uint8)


def _objects(case: WorkloadCase, rng: Generator) -> list[_Object]:
    # Few objects keep to the middle, where an image shows something.
    margin = 0.2 if case.objects <= _FEW else 0.0
    top, left = (round(margin * side) for side in case.shape[-2:])
    height, width = case.shape[-2] - 2 * top, case.shape[-1] - 2 * left
    columns = ceil(sqrt(case.objects * width / height))
    rows = ceil(case.objects / columns)
    size = (height // rows, width // columns)
    chosen = rng.permutation(rows * columns)[: case.objects].tolist()
    cells = [(top + cell // columns * height // rows, left + cell % columns * width // columns) for cell in chosen]
    if not case.spans:
        return [_Object(fill(size, _contour(rng, size) + _centre(size)), cell) for cell in cells]
    starts = first_slices(rng, case.shape[0], case.spans)
    found = zip(case.spans, starts, cells, strict=True)
    return [_Object(_solid(rng, size, span), (start, *cell)) for span, start, cell in found]


def _contour(rng: Generator, size: tuple[int, int]) -> NDArray[np.float64]:
    radii = (uniform(rng, 0.22, 0.38) * size[1], uniform(rng, 0.22, 0.38) * size[0])
    return outline(rng, (0.0, 0.0), radii, uniform(rng, -0.5, 0.5), 0.12, uniform(rng, -0.2, 0.2))


def _centre(size: tuple[int, int]) -> NDArray[np.float64]:
    return np.array([size[1] / 2, size[0] / 2])


def _solid(rng: Generator, size: tuple[int, int], span: int) -> Mask:
    """A body of ``span`` slices in a cell of ``size`` pixels, thinner and shifted towards its ends, in none empty."""
    contour = _contour(rng, size)
    drift = np.array([uniform(rng, -0.08, 0.08) * size[1], uniform(rng, -0.08, 0.08) * size[0]])
    layers = []
    for place in (np.arange(span) + 0.5) / span * 2 - 1:
        layers.append(fill(size, contour * sqrt(1 - 0.85 * place**2) + _centre(size) + drift * place))
    return np.stack(layers)


def first_slices(rng: Generator, depth: int, spans: tuple[int, ...]) -> list[int]:
    """First slice of each object, such that all fit and no two have the same middle slice, spread over the volume."""
    wished = (rng.permutation(len(spans)) + 0.5) / len(spans) * depth
    taken: set[int] = set()
    starts = []
    for span, wish in zip(spans, wished.tolist(), strict=True):
        half = (span - 1) // 2  # the loops start at z_min + (z_max - z_min) // 2
        free = [start for start in range(depth - span + 1) if start + half not in taken]
        start = min(free, key=lambda first: (abs(first + half - wish), first))
        taken.add(start + half)
        starts.append(start)
    return starts
