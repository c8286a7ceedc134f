"""A session whose masks can be foreseen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Picture:
    """The embedding of `BrightInBox`: the network input itself."""

    image: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.image.nbytes


class BrightInBox:
    """Marks what is brighter than half inside the box; counts its encodings and remembers its boxes."""

    input_size = 256

    def __init__(self) -> None:
        self.encodes = 0
        self.boxes: list[list[float]] = []
        self.largest_batch = 0

    def encode(self, images: np.ndarray) -> Picture:
        assert images.shape == (1, 3, 256, 256)
        assert images.dtype == np.float32
        self.encodes += 1
        return Picture(images)

    def decode(
        self, embedding: Picture, boxes: np.ndarray, points: Any = None, scribble: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        self.boxes += boxes.tolist()
        self.largest_batch = max(self.largest_batch, len(boxes))
        grid = np.arange(256)
        inside = [
            ((grid >= y0) & (grid <= y1))[:, None] & ((grid >= x0) & (grid <= x1))[None, :] for x0, y0, x1, y1 in boxes
        ]
        bright = embedding.image[0, 0] - 0.5
        logits = np.where(np.array(inside), bright, -1.0).astype(np.float32)[:, None]
        return logits, np.ones((len(boxes), 1), np.float32)
