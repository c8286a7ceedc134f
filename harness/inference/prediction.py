"""What a pipeline returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.failure import InvalidOutputError
from harness.inference.masks import FloatArray


@dataclass(frozen=True)
class Prediction:
    """A predicted label map.

    Attributes:
        segs: label i+1 for ``boxes[i]``, (H,W) or (D,H,W); uint8, or uint16 for more than 255 boxes.
        encodes: how often the image encoder ran on one image.
        encoded_again: how many of these were of an image that had been encoded before.
        timings: seconds per phase: preprocess, encode, decode, postprocess.
    """

    segs: NDArray[np.uint8] | NDArray[np.uint16]
    encodes: int
    encoded_again: int = 0
    timings: dict[str, float] = field(default_factory=dict)


def empty_labels(shape: tuple[int, ...], objects: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """A label map of background, of the smallest type that holds ``objects`` labels."""
    return np.zeros(shape, dtype=np.uint8) if objects <= 255 else np.zeros(shape, dtype=np.uint16)


def checked(logits: FloatArray, boxes: int) -> FloatArray:
    """The masks (N,g,g) of decoder logits (N,1,g,g).

    Raises:
        InvalidOutputError: another shape, or values that are not finite, which ``> 0`` would pass off as a mask.
    """
    if logits.ndim != 4 or logits.shape[:2] != (boxes, 1):
        raise InvalidOutputError(
            f"the decoder gave logits of shape {logits.shape} for {boxes} boxes, not ({boxes}, 1, g, g)"
        )
    if not np.isfinite(logits).all():
        raise InvalidOutputError("the decoder gave logits that are not finite (NaN or infinity)")
    return logits[:, 0]
