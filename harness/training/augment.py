"""Changes of brightness, contrast, saturation and hue in training, as torchvision's ``ColorJitter`` defines them.

They are made on the network's image, as Rep-MedSAM's code makes them on arrays of the network's size, and not before
preprocessing: that stretches every image to 0..1 and would undo brightness and contrast.  Padding stays zero and does
not count in the mean that contrast is changed around.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.recipe import ColourJitter

Pixels = NDArray[np.float32]

DERIVED_CHANNELS = frozenset({"gray-code"})
"""Preprocessing rules whose channels are no colours even where the image is one in colour."""


def is_coloured(image: NDArray[np.uint8], rule: str) -> bool:
    """Whether the network's three channels are colours, not grey repeated or three filters of grey.

    Args:
        image: uint8 (H,W,3) or (H,W), before preprocessing.
        rule: of preprocessing.
    """
    if image.ndim == 2 or rule in DERIVED_CHANNELS:
        return False
    red = image[..., 0]
    return not (np.array_equal(red, image[..., 1]) and np.array_equal(red, image[..., 2]))


def colour_jittered(
    network: Pixels, shown_hw: tuple[int, int], jitter: ColourJitter, coloured: bool, rng: np.random.Generator
) -> Pixels:
    """A copy with each property changed by a random amount, in a random order.

    Brightness, contrast and saturation are scaled by factors uniform in [max(0, 1 - x), 1 + x], the hue is turned by a
    share of the circle uniform in [-h, h]; after each, values are clipped to [0, 1].  Where the channels are not
    colours, brightness and contrast change all of them alike and nothing else happens: grey stays grey.

    Args:
        network: float32 (3,S,S) in [0,1], zero where it is padded.
        shown_hw: height and width of the part that shows the image.
        jitter: the ranges, and the probability that anything changes.
        coloured: see ``is_coloured``.
        rng: decides amounts and order; as many numbers are drawn whatever happens.
    """
    changes = _changes(jitter, rng)
    happens, order = rng.random() < jitter.probability, rng.permutation(len(changes))
    if not happens:
        return network
    height, width = shown_hw
    pixels = np.ascontiguousarray(network[:, :height, :width].transpose(1, 2, 0))
    for change, on_colours_only in (changes[place] for place in order):
        if coloured or not on_colours_only:
            pixels = np.clip(change(pixels), 0, 1)
    changed = np.zeros_like(network)
    changed[:, :height, :width] = pixels.transpose(2, 0, 1)
    return changed


def _changes(jitter: ColourJitter, rng: np.random.Generator) -> list[tuple[Callable[[Pixels], Pixels], bool]]:
    """The four changes with their amounts, and whether each needs colours."""
    ranges = (jitter.brightness, jitter.contrast, jitter.saturation)
    brightness, contrast, saturation = (np.float32(rng.uniform(max(0, 1 - x), 1 + x)) for x in ranges)
    turn = np.float32(rng.uniform(-jitter.hue, jitter.hue))
    return [
        (partial(np.multiply, brightness), False),
        (partial(_contrast, contrast), False),
        (partial(_saturation, saturation), True),
        (partial(_hue, turn), True),
    ]


def _contrast(factor: np.float32, pixels: Pixels) -> Pixels:
    """Away from, or towards, the mean grey value."""
    mean = np.float32(_grey(pixels).mean(dtype=np.float64))
    return factor * pixels + (1 - factor) * mean


def _saturation(factor: np.float32, pixels: Pixels) -> Pixels:
    """Away from, or towards, each pixel's grey value."""
    return factor * pixels + (1 - factor) * _grey(pixels)[..., None]


def _hue(turn: np.float32, pixels: Pixels) -> Pixels:
    """The hue, an angle in degrees, turned by a share of the circle."""
    if not turn:
        return pixels
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = np.mod(hsv[..., 0] + turn * 360, 360)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32)


def _grey(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.float32)
