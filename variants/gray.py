"""The three channels that Gray's Anatomy makes from a grey image: numpy and OpenCV only.

Lee et al., "Gray's Anatomy for Segment Anything Model", section 2.1.  The paper gives no numbers for its anisotropic
diffusion; those here are the published code's (Ninebell/GraysAnatomySAM a8f6ddc).  With its conductance of 20 on grey
values of 0..1 every conductance is above 0.997, so that the diffusion smooths edges like everything else.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

GREY = (0.2989, 0.5870, 0.1140)
"""Weights of red, green and blue."""
KAPPA = 20.0
GAMMA = 0.1
"""Perona and Malik's conductance, on grey values of 0..1, and the step of the one iteration."""


def channels_of_code(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Channels (H, W, 3) as the published code makes them, of colour images too.

    The image is stretched to 0..255 over all its channels; the channels are its grey values, these smoothed, and the
    histogram of the grey values equalised.  A constant image gives 0 everywhere.

    Args:
        image: uint8 (H, W, 3), or (H, W), whose grey values are taken as all three colours.
    """
    low, high = int(image.min()), int(image.max())
    if low == high:
        return np.zeros((*image.shape[:2], 3), np.uint8)
    grey = _grey(image, np.clip((np.arange(256) - low) / (high - low) * 255, 0, 255))
    return np.stack((grey, diffused(grey), cv2.equalizeHist(grey)), axis=2)


def channels_of_paper(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Channels (H, W, 3) as the paper describes them.

    Section 2.1 differs from the code in three points, as read here.  "The third channel builds upon the smoothed
    image": the histogram of the second channel is equalised, not that of the first.  The first channel is the image
    "without any modifications": no stretch comes before.  And the channels stand where others go "replicating the
    grayscale image across three channels": an image in colour, whose three channels differ anywhere, keeps its own
    three.  (Section 4.5 calls the method "less effective for color images": the authors' own runs, like their code, may
    have treated them alike.)  The section does not say at which size the channels are made: at the image's,
    as in the code.

    Args:
        image: uint8 (H, W, 3) or (H, W).
    """
    if image.ndim == 3:
        red = image[..., 0]
        if not (np.array_equal(red, image[..., 1]) and np.array_equal(red, image[..., 2])):
            return image
        image = np.ascontiguousarray(red)
    smoothed = diffused(image)
    return np.stack((image, smoothed, cv2.equalizeHist(smoothed)), axis=2)


def diffused(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One iteration of anisotropic diffusion (Perona and Malik 1990, exponential conductance) of uint8 (H, W).

    As in the published code, opposite borders are neighbours and the result is truncated to whole grey values.
    """
    values = grey.astype(np.float32) / 255
    flow = np.zeros_like(values)
    for axis in (0, 1):
        for step in (1, -1):
            difference = np.roll(values, step, axis) - values
            flow += np.exp(-((difference / KAPPA) ** 2)) * difference
    return ((values + GAMMA * flow) * 255).astype(np.uint8)


def _grey(image: NDArray[np.uint8], values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Grey values (H, W), rounded, of an image whose 256 levels stand for `values`."""
    # Weighted by tables: float64 arithmetic is then done on 256 levels, not on every pixel.
    red, green, blue = (weight * values for weight in GREY)
    if image.ndim == 2:
        return np.asarray(np.round(red + green + blue).astype(np.uint8)[image])
    return np.round(red[image[..., 0]] + green[image[..., 1]] + blue[image[..., 2]]).astype(np.uint8)
