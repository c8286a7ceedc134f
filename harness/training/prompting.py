"""Prompts in training: the mask on the grid of the logits, and box, points and scribble made from it.

At inference ``variants.prompts`` makes points and scribble from the box, and so it does in training where a recipe says
``prompts: box``.  Else they come from the ground truth and from the whole box (Gao et al., "Swin-LiteMedSAM", section
2.3, and its code, which takes the points from the object).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.protocols import BOX_SHIFT
from variants.prompts import centre, quadrant_points, scribble_in, spans

LOGITS_SIDE = 256


def mask_to_logits_grid(mask: NDArray[np.bool_], scale_hw: tuple[int, int], size: int) -> NDArray[np.uint8]:
    """The mask where the decoder's logits are: resized as the image was, padded at the bottom and right to 256 x 256.

    A pixel belongs to the object if at least half of its area does (``INTER_AREA``): unlike nearest neighbour this has
    no half-pixel shift against the image.  An object too thin for that keeps the pixels it covers most.

    Args:
        mask: (H,W), not empty.
        scale_hw: size of the resized image inside the network's input.
        size: side of the network's input.
    """
    height, width = (max(1, round(side * LOGITS_SIDE / size)) for side in scale_hw)
    cover = cv2.resize(np.ascontiguousarray(mask, np.float32), (width, height), interpolation=cv2.INTER_AREA)
    threshold = min(0.5, float(cover.max()))
    padded = np.zeros((LOGITS_SIDE, LOGITS_SIDE), np.uint8)
    padded[:height, :width] = cover >= threshold
    return padded


def jittered_box(mask: NDArray[np.uint8], size: int, box_jitter: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """The tight box (inclusive maxima) of a mask on the logits' grid, in network pixels, each side moved outward by a
    whole number of 0..``box_jitter`` pixels and clamped to the image of side ``size``."""
    return _moved(mask, size, rng.integers(0, box_jitter + 1, 4))


def box_from_slice_before(
    mask: NDArray[np.uint8], size: int, box_jitter: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """The box that the 3D loop makes of a mask on the slice before, widened by ``BOX_SHIFT``; each side then moves by
    up to ``box_jitter`` pixels either way, as masks at inference are too small as often as too large."""
    return _moved(mask, size, BOX_SHIFT + rng.integers(-box_jitter, box_jitter + 1, 4))


def _moved(mask: NDArray[np.uint8], size: int, outward: NDArray[np.int64]) -> NDArray[np.float32]:
    """The tight box of a mask with each side moved; it keeps a pixel, and stays in the image."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    tight = np.array([columns[0], rows[0], columns[-1], rows[-1]], np.float32) * (size / LOGITS_SIDE)
    moved = np.clip(tight + outward * np.array([-1, -1, 1, 1]), 0, size - 1)
    middle = (tight[:2] + tight[2:]) / 2
    return np.asarray(np.concatenate([np.minimum(moved[:2], middle), np.maximum(moved[2:], middle)]), np.float32)


def object_points(
    mask: NDArray[np.uint8], box: NDArray[np.float32], size: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """A pixel of the object in each quadrant of the box: float32 (4,2) x, y in network pixels, top left, bottom left,
    bottom right, top right.

    A quadrant without the object gives the box's midpoint, and the box's last column and row count as outside it, both
    as at inference.

    Args:
        mask: uint8 (256,256).
        box: float32 (4,) in network pixels, as the model gets it.
        size: side of the network's input.
        rng: chooses the pixels.
    """
    scale = size / LOGITS_SIDE
    columns, rows = spans(box / scale, LOGITS_SIDE)
    points = quadrant_points(mask.astype(np.bool_), columns, rows, (centre(columns), centre(rows)), rng)
    return np.asarray(points, np.float32) * np.float32(scale)


def box_scribble(
    network: NDArray[np.float32], box: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """One stroke anywhere in the box: float32 (1,S,S), 1 on it and 0 elsewhere.

    Empty where the box has no room for one, or where the image is zero all over it (section 2.2).

    Args:
        network: float32 (3,S,S), the image as the model gets it.
        box: float32 (4,) in network pixels.
        rng: draws the stroke.
    """
    scribble = np.zeros((1, *network.shape[1:]), np.float32)
    (left, right), (top, bottom) = spans(box, network.shape[1])
    if network[:, top:bottom, left:right].any():
        scribble[0, top:bottom, left:right] = scribble_in(np.ones((bottom - top, right - left), np.bool_), rng)
    return scribble
