"""What static quantisation is calibrated on, and what deployments are compared on: prepared inputs of the network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """One image as the network gets it, with prompts.

    Attributes:
        image: (1, 3, S, S) float32 in [0, 1].
        boxes: (N, 4) float32 in network pixels.
        points: (N, P, 2) float32 in network pixels, or ``None``.
        scribble: (N, 1, S, S) float32, or ``None``.
    """

    image: NDArray[np.float32]
    boxes: NDArray[np.float32]
    points: NDArray[np.float32] | None = None
    scribble: NDArray[np.float32] | None = None
