"""Image and box to network space, and logits back to a mask of the original image: numpy and OpenCV only.

The rules are those of the LiteMedSAM family's inference (CVPR 2024 challenge baseline); a rule is chosen by its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from variants.errors import VariantError
from variants.registry import suggest


@dataclass(frozen=True)
class Prepared:
    """One image, ready for the network.

    Attributes:
        network: (3, S, S) float32 in [0, 1].
        scale_hw: height and width in network pixels of the part that shows the image; the rest is padding.
        original_hw: height and width of the image as given.
    """

    network: NDArray[np.float32]
    scale_hw: tuple[int, int]
    original_hw: tuple[int, int]


def prepare(image: NDArray[np.uint8], size: int, rule: str = "longest-side") -> Prepared:
    """Bring one image to the network's input.

    Args:
        image: uint8 (H, W, 3), or (H, W), whose grey values are repeated to three channels.
        size: side S of the network input in pixels.
        rule: a name in `RULES`.

    Raises:
        VariantError: if the image has another type or shape, or the rule is unknown.
    """
    if rule not in RULES:
        raise VariantError(f"no preprocessing rule {rule!r}; {suggest(rule, RULES)}")
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise VariantError(f"an image must be uint8 (H, W, 3) or (H, W), not {image.dtype} {image.shape}")
    if 0 in image.shape:
        raise VariantError(f"an image must have pixels, not shape {image.shape}")
    return RULES[rule](image, size)


def longest_side_hw(original_hw: tuple[int, int], size: int) -> tuple[int, int]:
    """Height and width after scaling the longest side to `size`, rounded half up, at least one pixel."""
    scale = size / max(original_hw)
    height, width = (max(1, int(side * scale + 0.5)) for side in original_hw)
    return height, width


def boxes_to_network(boxes: NDArray[np.integer], original_hw: tuple[int, int], size: int) -> NDArray[np.float32]:
    """Boxes (N, 4) x0, y0, x1, y1 of the original image in network pixels, truncated to whole pixels."""
    ratio = size / max(original_hw)
    scaled = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * ratio
    return np.trunc(scaled).astype(np.float32)


def logits_to_mask(logits: NDArray[np.float32], prepared: Prepared) -> NDArray[np.bool_]:
    """Mask (H, W) of the original image: padding cut off, logits resized bilinearly (half-pixel centres), > 0.

    Args:
        logits: (256, 256) float32; if the network input has another size, the grid covers it all the same.
    """
    grid = logits.shape[0] / prepared.network.shape[-1]
    height, width = (max(1, round(side * grid)) for side in prepared.scale_hw)
    shown = np.ascontiguousarray(logits[:height, :width], dtype=np.float32)
    original_height, original_width = prepared.original_hw
    resized = cv2.resize(shown, (original_width, original_height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized > 0, dtype=np.bool_)


def _longest_side(image: NDArray[np.uint8], size: int) -> Prepared:
    """Longest side to `size` (INTER_AREA on uint8), min-max over all channels, zero padding at the bottom and right."""
    original_hw = (int(image.shape[0]), int(image.shape[1]))
    height, width = longest_side_hw(original_hw, size)
    scaled = _min_max(np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8))
    network = np.zeros((3, size, size), dtype=np.float32)
    network[:, :height, :width] = scaled if scaled.ndim == 2 else scaled.transpose(2, 0, 1)
    return Prepared(network, (height, width), original_hw)


def _min_max(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The image from its darkest to its brightest value as 0..1; a constant image becomes 0."""
    low, high = int(image.min()), int(image.max())
    # Computed in float64 as the published rule does, by a table: an 8-bit image has at most 256 values.
    table = (np.arange(256) - low) / max(high - low, 1e-8)
    return np.asarray(table.astype(np.float32)[image])


RULES: dict[str, Callable[[NDArray[np.uint8], int], Prepared]] = {"longest-side": _longest_side}
