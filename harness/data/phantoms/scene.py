"""What a phantom draws on: an image and a label map that grow together, and how they become a case."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.data.case import Case
from harness.data.phantoms.shapes import F32, Mask, largest, to_bytes
from harness.schema import modality_of

MAX_OBJECTS = 6
MIN_SLICES = 3


class Scene:
    """An image under construction.

    ``image`` holds intensities 0..1: (D,H,W) for the volumetric modalities (one slice for an image), (H,W) or (H,W,3).
    Later annotations lie on top of earlier ones.
    """

    def __init__(self, image: F32, spacing_xyz: tuple[float, float, float] | None = None) -> None:
        self.image = image
        self.spacing_xyz = spacing_xyz
        self.masks: list[Mask] = []

    def annotate(self, mask: Mask) -> None:
        """Make ``mask`` an object of the ground truth, of the image's size without channels."""
        self.masks.append(mask)

    def case(self, name: str, max_objects: int = MAX_OBJECTS) -> Case | None:
        """The finished case, or ``None`` if no object is left that is large enough to be prompted.

        Objects are cut where later ones cover them; only the largest piece of each counts, and it must have some pixels
        and, in a volume, span several slices.
        """
        volume = name.startswith("3D")
        size = (
            self.image.shape if volume else self.image.shape[-2:] if self.image.shape[-1] != 3 else self.image.shape[:2]
        )
        truth = _label_map(self.masks, size, volume, max_objects)
        if truth is None:
            return None
        image = to_bytes(self.image)
        if not volume:
            grey = image.reshape(size) if image.shape[-1] != 3 else None
            image = image if grey is None else np.repeat(grey[..., None], 3, axis=2)
        return Case(
            name=name,
            modality=modality_of(name),
            image=np.ascontiguousarray(image),
            boxes=tight_boxes(truth),
            spacing_xyz=self.spacing_xyz if volume else None,
            truth=truth,
        )


def _label_map(masks: list[Mask], size: tuple[int, ...], volume: bool, max_objects: int) -> NDArray[np.uint16] | None:
    stacked = np.zeros(size, np.uint16)
    for number, mask in enumerate(masks, start=1):
        stacked[mask.reshape(size)] = number
    least = max(24, round(0.0008 * size[-1] * size[-2]))
    kept: list[Mask] = []
    for number in range(1, len(masks) + 1):
        piece = largest(stacked == number)
        if int(piece.sum()) < least:
            continue
        if volume and int(piece.any(axis=(1, 2)).sum()) < MIN_SLICES:
            continue
        kept.append(piece)
    if not kept:
        return None
    truth = np.zeros(size, np.uint16)
    # Lesions are annotated last; where there are too many objects, the first organs give way.
    for label, piece in enumerate(kept[-max_objects:], start=1):
        truth[piece] = label
    return truth


def tight_boxes(truth: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Boxes of the labels 1..max of a map (H,W) or (D,H,W): (N,4) or (N,6), maxima inclusive, x first.

    Every label up to the largest must occur.
    """
    boxes = []
    for label in range(1, int(truth.max()) + 1):
        mask = truth == label
        spans = []
        for axis in reversed(range(truth.ndim)):
            others = tuple(a for a in range(truth.ndim) if a != axis)
            places = np.flatnonzero(mask.any(axis=others))
            spans.append((int(places[0]), int(places[-1])))
        boxes.append([low for low, _ in spans] + [high for _, high in spans])
    return np.array(boxes, dtype=np.int64)
