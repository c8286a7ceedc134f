"""The 3D loops of the authors' scripts, each written out plainly and apart from the engine.

What they share is an image, a box and a network with foreseeable logits; nothing is cached, joined or reordered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from variants.preprocess import Prepared, logits_to_mask, prepare

SIZE = 256


class Script:
    """One volume under one script; remembers the boxes it gave to the network."""

    def __init__(self, session: Any, volume: np.ndarray) -> None:
        self.session, self.volume = session, volume
        self.given: list[tuple[int, int, list[float]]] = []

    def truncated(self, box: np.ndarray) -> np.ndarray:
        return np.array([int(c * (SIZE / max(self.volume.shape[1:]))) for c in box[[0, 1, 3, 4]]], np.float32)

    def scaled(self, box: np.ndarray) -> np.ndarray:
        return (box[[0, 1, 3, 4]] * (SIZE / max(self.volume.shape[1:]))).astype(np.float32)

    def infer(self, z: int, idx: int, box: np.ndarray) -> np.ndarray:
        """Mask (H,W) of one box on one slice."""
        self.given.append((idx, z, box.tolist()))
        prepared: Prepared = prepare(self.volume[z], SIZE)
        logits, _ = self.session.decode(self.session.encode(prepared.network[None]), box[None])
        return logits_to_mask(logits[0, 0], prepared)

    def follow(self, labels: np.ndarray) -> np.ndarray | None:
        """Box around what a slice of a label map shows at network size, widened by 3."""
        scale = SIZE / max(labels.shape)
        hw = [int(side * scale + 0.5) for side in labels.shape]
        rows, columns = np.where(cv2.resize(labels, (hw[1], hw[0]), interpolation=cv2.INTER_AREA) > 0)
        if len(rows) == 0:
            return None
        box = [columns.min() - 3, rows.min() - 3, columns.max() + 3, rows.max() + 3]
        return np.clip(box, 0, SIZE).astype(np.float32)


def own_inclusive(script: Script, boxes: np.ndarray, floor: int = 0) -> np.ndarray:
    """LiteMedSAM since 2024-05-23 (floor 0), and Rep-MedSAM's of 2024-06-11, which never goes down to slice 0."""
    segs = np.zeros(script.volume.shape, np.uint8)
    for idx, box in enumerate(boxes, start=1):
        own = np.zeros(script.volume.shape, np.uint8)
        z_min, z_max = box[2], box[5]
        middle = int((z_max - z_min) / 2 + z_min)
        for z in range(middle, min(z_max, len(own) - 1) + 1):
            found = None if z == middle else script.follow(own[z - 1])
            own[z][script.infer(z, idx, script.truncated(box) if found is None else found)] = idx
        for z in range(middle - 1, max(z_min, floor) - 1, -1):
            found = script.follow(own[z + 1])
            own[z][script.infer(z, idx, script.truncated(box) if found is None else found)] = idx
        segs[own > 0] = idx
    return segs


def own_exclusive(script: Script, boxes: np.ndarray) -> np.ndarray:
    """LiteMedSAM from 2024-04-24 to 2024-05-14, and Swin-LiteMedSAM."""
    segs = np.zeros(script.volume.shape, np.uint8)
    for idx, box in enumerate(boxes, start=1):
        own = np.zeros(script.volume.shape, np.uint8)
        z_min, z_max = box[2], box[5]
        middle = int((z_max - z_min) / 2 + z_min)
        for z in range(middle, z_max):
            found = None if z == middle else script.follow(own[z - 1])
            own[z][script.infer(z, idx, script.truncated(box) if found is None else found)] = idx
        for z in range(middle - 1, z_min, -1):
            found = script.follow(own[z + 1])
            own[z][script.infer(z, idx, script.scaled(box) if found is None else found)] = idx
        segs[own > 0] = idx
    return segs


def merged_exclusive(script: Script, boxes: np.ndarray, dtype: type = np.uint8) -> np.ndarray:
    """LiteMedSAM until 2024-04-24 and, with wider labels, Gray's Anatomy: the box follows the finished objects."""
    segs = np.zeros(script.volume.shape, dtype)
    for idx, box in enumerate(boxes, start=1):
        own = np.zeros(script.volume.shape, dtype)
        z_min, z_max = box[2], box[5]
        middle = int((z_max - z_min) / 2 + z_min)
        for z in range(middle, z_max):
            found = None if z == middle else script.follow(segs[z - 1])
            own[z][script.infer(z, idx, script.truncated(box) if found is None else found)] = idx
        for z in range(middle - 1, z_min, -1):
            found = script.follow(segs[z + 1])
            own[z][script.infer(z, idx, script.scaled(box) if found is None else found)] = idx
        segs[own > 0] = idx
    return segs


SCRIPTS: dict[str, Callable[[Script, np.ndarray], np.ndarray]] = {
    "litemedsam-2024-05-23": own_inclusive,
    "litemedsam-2024-04-24": own_exclusive,
    "litemedsam-2024-04": merged_exclusive,
    "swin": own_exclusive,
    "rep-2024-06-11": lambda script, boxes: own_inclusive(script, boxes, floor=1),
    "rep-2024-06-19": own_inclusive,
    "gray": lambda script, boxes: merged_exclusive(script, boxes, np.uint16),
}
