"""Image and box to network space, and logits back to a mask of the original image: numpy and OpenCV only.

A rule is chosen by its name; it decides how an image becomes the network's input, how a box follows it, and how logits
become a mask:

`longest-side`
    The inference of the LiteMedSAM family (CVPR 2024 challenge baseline): the longest side to S, padding elsewhere.
`gray-paper`, `gray-code`
    The three channels of Gray's Anatomy as the paper describes and as its code makes them, see `variants.gray`, then
    as `longest-side`.
`stretch`
    The teacher's (MedSAM) inference: the image fills the S x S input whatever its aspect ratio.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from variants import gray, spline
from variants.errors import VariantError
from variants.registry import suggest

Image = NDArray[np.uint8]

PLATEAU = 1e-6
"""Grey values this little below a whole number count as that number: rounding would speckle an even surface."""


@dataclass(frozen=True)
class Prepared:
    """One image, ready for the network.

    Attributes:
        network: (3, S, S) float32 in [0, 1].
        scale_hw: height and width in network pixels of the part that shows the image; the rest is padding.
        original_hw: height and width of the image as given.
        sigmoid_first: whether a mask is the resized probability above 0.5, not the resized logit above 0.
    """

    network: NDArray[np.float32]
    scale_hw: tuple[int, int]
    original_hw: tuple[int, int]
    sigmoid_first: bool = False


def prepare(image: Image, size: int, rule: str = "longest-side") -> Prepared:
    """Bring one image to the network's input.

    Args:
        image: uint8 (H, W, 3), or (H, W), whose grey values are repeated to three channels.
        size: side S of the network input in pixels.
        rule: a name in `RULES`.

    Raises:
        VariantError: if the image has another type or shape, or the rule is unknown.
    """
    chosen = _rule(rule)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise VariantError(f"an image must be uint8 (H, W, 3) or (H, W), not {image.dtype} {image.shape}")
    if 0 in image.shape:
        raise VariantError(f"an image must have pixels, not shape {image.shape}")
    return chosen.prepare(image, size)


def longest_side_hw(original_hw: tuple[int, int], size: int) -> tuple[int, int]:
    """Height and width after scaling the longest side to `size`, rounded half up, at least one pixel."""
    scale = size / max(original_hw)
    height, width = (max(1, int(side * scale + 0.5)) for side in original_hw)
    return height, width


def shown_hw(original_hw: tuple[int, int], size: int, rule: str = "longest-side") -> tuple[int, int]:
    """Height and width in network pixels of the part of the input that shows the image."""
    return _rule(rule).shown_hw(original_hw, size)


def boxes_to_network(
    boxes: NDArray[np.integer],
    original_hw: tuple[int, int],
    size: int,
    rule: str = "longest-side",
    truncate: bool = True,
) -> NDArray[np.float32]:
    """Boxes (N, 4) x0, y0, x1, y1 of the original image in network pixels.

    Args:
        truncate: to whole pixels where the rule does so; some authors' loops leave a fallback box as it is.
    """
    return _rule(rule).boxes(np.asarray(boxes, dtype=np.float64).reshape(-1, 4), original_hw, size, truncate)


def sigmoid_first(rule: str) -> bool:
    """Whether a mask is the resized probability above 0.5, not the resized logit above 0."""
    return _rule(rule).sigmoid_first


def logits_to_mask(logits: NDArray[np.float32], prepared: Prepared) -> NDArray[np.bool_]:
    """Mask (H, W) of the original image: padding cut off, logits resized bilinearly (half-pixel centres), > 0.

    Where the rule says so, probabilities are resized in the place of logits, and the mask is > 0.5.

    Args:
        logits: (256, 256) float32; if the network input has another size, the grid covers it all the same.
    """
    size = int(prepared.network.shape[-1])
    return whole_mask(logits, size, prepared.scale_hw, prepared.original_hw, prepared.sigmoid_first)


def whole_mask(
    logits: NDArray[np.float32],
    input_size: int,
    scale_hw: tuple[int, int],
    original_hw: tuple[int, int],
    sigmoid_first: bool = False,
) -> NDArray[np.bool_]:
    """`logits_to_mask` by the sizes that a `Prepared` image has: the network's input, the part that shows the image."""
    shown, threshold = shown_logits(logits, input_size, scale_hw, sigmoid_first)
    resized = cv2.resize(shown, (original_hw[1], original_hw[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized > threshold, dtype=np.bool_)


def shown_logits(
    logits: NDArray[np.float32], input_size: int, scale_hw: tuple[int, int], sigmoid_first: bool
) -> tuple[NDArray[np.float32], float]:
    """The part (h, w) of a grid of logits that shows the image, or its probabilities, and the value a mask is above."""
    grid = logits.shape[0] / input_size
    height, width = (max(1, round(side * grid)) for side in scale_hw)
    shown = np.ascontiguousarray(logits[:height, :width], dtype=np.float32)
    return (probability(shown), 0.5) if sigmoid_first else (shown, 0.0)


def probability(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sigmoid of the logits, float32."""
    # By the hyperbolic tangent, which overflows for no logit.
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * logits), dtype=np.float32)


def _longest_side(image: Image, size: int) -> Prepared:
    """Longest side to `size` (INTER_AREA on uint8), min-max over all channels, zero padding at the bottom and right."""
    original_hw = (int(image.shape[0]), int(image.shape[1]))
    height, width = longest_side_hw(original_hw, size)
    scaled = _min_max(np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8))
    network = np.zeros((3, size, size), dtype=np.float32)
    network[:, :height, :width] = scaled if scaled.ndim == 2 else scaled.transpose(2, 0, 1)
    return Prepared(network, (height, width), original_hw)


def _stretch(image: Image, size: int) -> Prepared:
    """To (size, size) by a cubic spline, smoothed where it shrinks, truncated to uint8; then min-max."""
    original_hw = (int(image.shape[0]), int(image.shape[1]))
    scaled = _min_max((spline.resize(image, size) + PLATEAU).astype(np.uint8))
    planes = np.repeat(scaled[None], 3, axis=0) if scaled.ndim == 2 else scaled.transpose(2, 0, 1)
    return Prepared(np.ascontiguousarray(planes), (size, size), original_hw, sigmoid_first=True)


def _min_max(image: Image) -> NDArray[np.float32]:
    """The image from its darkest to its brightest value as 0..1; a constant image becomes 0."""
    low, high = int(image.min()), int(image.max())
    # Computed in float64 as the published rule does, by a table: an 8-bit image has at most 256 values.
    table = (np.arange(256) - low) / max(high - low, 1e-8)
    return np.asarray(table.astype(np.float32)[image])


def _scaled_boxes(
    boxes: NDArray[np.float64], original_hw: tuple[int, int], size: int, truncate: bool
) -> NDArray[np.float32]:
    scaled = boxes * (size / max(original_hw))
    return (np.trunc(scaled) if truncate else scaled).astype(np.float32)


def _stretched_boxes(
    boxes: NDArray[np.float64], original_hw: tuple[int, int], size: int, truncate: bool
) -> NDArray[np.float32]:
    """Never truncated: the teacher takes fractions of a pixel."""
    height, width = original_hw
    return np.asarray(boxes / np.array([width, height, width, height]) * size, dtype=np.float32)


@dataclass(frozen=True)
class Rule:
    """How images and boxes become the network's input, and logits a mask.

    Attributes:
        prepare: uint8 image and side S to `Prepared`.
        shown_hw: original height and width and S to the part of the input that shows the image.
        boxes: (N, 4) float64, original height and width, S, whether to truncate → (N, 4) float32.
        sigmoid_first: the mask is the resized probability > 0.5, not the resized logit > 0.
    """

    prepare: Callable[[Image, int], Prepared]
    shown_hw: Callable[[tuple[int, int], int], tuple[int, int]] = longest_side_hw
    boxes: Callable[[NDArray[np.float64], tuple[int, int], int, bool], NDArray[np.float32]] = _scaled_boxes
    sigmoid_first: bool = False


RULES: dict[str, Rule] = {
    "longest-side": Rule(_longest_side),
    "gray-paper": Rule(lambda image, size: _longest_side(gray.channels_of_paper(image), size)),
    "gray-code": Rule(lambda image, size: _longest_side(gray.channels_of_code(image), size)),
    "stretch": Rule(
        prepare=_stretch, shown_hw=lambda original_hw, size: (size, size), boxes=_stretched_boxes, sigmoid_first=True
    ),
}


def _rule(name: str) -> Rule:
    if name not in RULES:
        raise VariantError(f"no preprocessing rule {name!r}; {suggest(name, RULES)}")
    return RULES[name]
