"""Segmentation of a volume, slice by slice from the middle of each box, the box following the mask.

The rule is that of LiteMedSAM's inference (CVPR 2024 challenge, in force since 2024-05-23): every object starts at the
middle slice of its box with the given box, goes up to z_max, then down from the slice below the middle to z_min, both
inclusive.  On each further slice the box is the bounding box of the object's own mask on the slice before, taken at
network size and widened by 3 pixels; the given box where that mask is empty.

Two loops give the same masks:

``sweep``
    Every slice is visited once upwards and once downwards and its objects are decoded together; embeddings are kept in
    a cache of bounded size.  The order of objects does not matter, since the largest label wins where masks meet.
``reference``
    One object after the other, one encoding per object and slice, as the challenge's baseline does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.inference.clock import Clock
from harness.inference.masks import Region, positive_region
from harness.inference.pipeline2d import DECODE_BATCH
from harness.inference.prediction import Prediction, checked, empty_labels
from harness.inference.session import EmbeddingLike, FloatArray, Session
from variants import preprocess

Loop = Literal["sweep", "reference"]

BOX_SHIFT = 3
"""Network pixels by which a propagated box is widened on each side."""
CACHE_BYTES = 1024**3
"""Default budget of the embedding cache."""


def segment_volume(
    session: Session,
    volume: NDArray[np.uint8],
    boxes: NDArray[np.int64],
    rule: str = "longest-side",
    loop: Loop = "sweep",
    cache_bytes: int = CACHE_BYTES,
    batch: int = DECODE_BATCH,
) -> Prediction:
    """Segment every box of a volume; a later box overwrites an earlier one where both masks are true.

    Args:
        session: the model.
        volume: uint8 (D,H,W).
        boxes: (N,6) x0,y0,z0,x1,y1,z1 in voxels, maxima inclusive.
        rule: preprocessing rule of the variant.
        loop: ``sweep`` or ``reference``, see the description of this module.
        cache_bytes: budget of the embedding cache; the least recently used embedding goes first.
        batch: boxes decoded at once.
    """
    if loop not in ("sweep", "reference"):
        raise ValueError(f"unknown loop {loop!r}; known: sweep, reference")
    run = _Run(session, volume, boxes, rule, cache_bytes, batch)
    if loop == "sweep":
        run.sweep()
    else:
        run.reference()
    return Prediction(run.segs, encodes=run.slices.encodes, timings=run.clock.seconds)


@dataclass
class _Track:
    """One object on its way through the slices.

    Attributes:
        label: 1-based.
        given: the given box in network pixels.
        z_min, z_mid, z_max: first, starting and last slice.
        box: box of the next slice.
        after_middle: box that follows from the mask of the middle slice, where the way down starts.
    """

    label: int
    given: FloatArray
    z_min: int
    z_mid: int
    z_max: int
    box: FloatArray
    after_middle: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        self.after_middle = self.given

    def turn(self) -> None:
        """Start the way down."""
        self.box = self.after_middle


class _Slices:
    """Slices of a volume, prepared and encoded when needed; embeddings kept within a budget of bytes."""

    def __init__(self, session: Session, volume: NDArray[np.uint8], rule: str, budget: int, clock: Clock) -> None:
        self._session, self._volume, self._rule, self._budget, self._clock = session, volume, rule, budget, clock
        self._kept: OrderedDict[int, EmbeddingLike] = OrderedDict()
        self._bytes = 0
        self.encodes = 0

    def embedding(self, z: int, keep: bool = True) -> EmbeddingLike:
        """The embedding of slice ``z``, from the cache if it is there."""
        if z in self._kept:
            self._kept.move_to_end(z)
            return self._kept[z]
        with self._clock.phase("preprocess"):
            prepared = preprocess.prepare(self._volume[z], self._session.input_size, self._rule)
        with self._clock.phase("encode"):
            found = self._session.encode(prepared.network[None])
        self.encodes += 1
        if keep and found.nbytes <= self._budget:
            self._store(z, found)
        return found

    def _store(self, z: int, found: EmbeddingLike) -> None:
        while self._kept and self._bytes + found.nbytes > self._budget:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        self._kept[z] = found
        self._bytes += found.nbytes


class _Run:
    """One volume being segmented."""

    def __init__(
        self,
        session: Session,
        volume: NDArray[np.uint8],
        boxes: NDArray[np.int64],
        rule: str,
        cache_bytes: int,
        batch: int,
    ) -> None:
        self.clock = Clock()
        self.slices = _Slices(session, volume, rule, cache_bytes, self.clock)
        self.segs = empty_labels(volume.shape, len(boxes))
        self._session, self._batch = session, batch
        self._original_hw = (int(volume.shape[1]), int(volume.shape[2]))
        self._scale_hw = preprocess.longest_side_hw(self._original_hw, session.input_size)
        self._tracks = list(self._start(boxes, len(volume)))

    def _start(self, boxes: NDArray[np.int64], depth: int) -> Iterator[_Track]:
        flat = preprocess.boxes_to_network(boxes[:, [0, 1, 3, 4]], self._original_hw, self._session.input_size)
        for index, given in enumerate(flat):
            z_min, z_max = int(boxes[index, 2]), int(boxes[index, 5])
            z_mid = int((z_max - z_min) / 2 + z_min)
            yield _Track(index + 1, given, max(z_min, 0), z_mid, min(z_max, depth - 1), given)

    def sweep(self) -> None:
        """Up through all slices, then down: the slices needed again first are those used last."""
        for z in range(min(t.z_mid for t in self._tracks), max(t.z_max for t in self._tracks) + 1):
            self._visit(z, [t for t in self._tracks if t.z_mid <= z <= t.z_max])
        for track in self._tracks:
            track.turn()
        for z in range(max(t.z_mid for t in self._tracks) - 1, min(t.z_min for t in self._tracks) - 1, -1):
            self._visit(z, [t for t in self._tracks if t.z_min <= z < t.z_mid])

    def reference(self) -> None:
        """One object after the other, nothing kept."""
        for track in self._tracks:
            for z in range(track.z_mid, track.z_max + 1):
                self._visit(z, [track], keep=False)
            track.turn()
            for z in range(track.z_mid - 1, track.z_min - 1, -1):
                self._visit(z, [track], keep=False)

    def _visit(self, z: int, tracks: list[_Track], keep: bool = True) -> None:
        if not tracks:
            return
        embedding = self.slices.embedding(z, keep)
        for start in range(0, len(tracks), self._batch):
            group = tracks[start : start + self._batch]
            with self.clock.phase("decode"):
                logits, _ = self._session.decode(embedding, np.stack([t.box for t in group]))
            with self.clock.phase("postprocess"):
                for track, mask in zip(group, checked(logits, len(group)), strict=True):
                    self._follow(track, z, mask)

    def _follow(self, track: _Track, z: int, logits: FloatArray) -> None:
        """Write the mask of one object on one slice and derive its box for the next."""
        size = self._session.input_size
        region = positive_region(logits, size, self._scale_hw, self._original_hw)
        if region is not None:
            view = self.segs[z, region.rows, region.columns]
            # The later box wins, whichever was decoded first.
            view[region.values & (view < track.label)] = track.label
        found = None if region is None else propagated_box(region, track.label, self._original_hw, self._scale_hw, size)
        track.box = track.given if found is None else found
        if z == track.z_mid:
            track.after_middle = track.box


def propagated_box(
    region: Region, label: int, original_hw: tuple[int, int], scale_hw: tuple[int, int], size: int
) -> FloatArray | None:
    """Box of the next slice from the mask of this one, or ``None`` if the mask vanishes at network size.

    The baseline resizes the mask with INTER_AREA while it carries the label as its value, and rounding to whole numbers
    follows; so where the image is reduced, label 1 keeps pixels covered by half and label 6 those covered by a twelfth.

    Args:
        region: the mask.
        label: the value it carries.
        original_hw, scale_hw: size of the image, and of its part of the network input.
        size: side of the network input; boxes are clamped to [0, size].

    Returns:
        float32 (4,) x0,y0,x1,y1 in network pixels.
    """
    carrier = np.zeros(original_hw, dtype=np.uint8 if label <= 255 else np.uint16)
    region.paint(carrier, label)
    small = cv2.resize(carrier, (scale_hw[1], scale_hw[0]), interpolation=cv2.INTER_AREA)
    rows, columns = np.flatnonzero(small.any(axis=1)), np.flatnonzero(small.any(axis=0))
    if rows.size == 0:
        return None
    low = np.array([columns[0], rows[0]]) - BOX_SHIFT
    high = np.array([columns[-1], rows[-1]]) + BOX_SHIFT
    return np.concatenate([np.maximum(low, 0), np.minimum(high, size)]).astype(np.float32)
