"""Segmentation of a volume, slice by slice from the middle of each box, the box following the mask.

Which slices an object has and where the box of the next slice comes from is a rule, ``harness.protocols.LOOPS``, as the
authors' scripts changed it from date to date.  Own-mask loops, such as the default: the box is the bounding box of the
object's own mask on the slice before, at network size, widened by 3 pixels.  Merged loops: it is the bounding box of
everything labelled there so far.  Masks enter the label map when an object is finished, so object 1 is always given
its own box, and object n the box around the masks of objects 1..n-1 on that slice, wherever they lie; its own box where
they have none.

How the rule is executed is another matter, and gives the same masks:

``sweep``
    Embeddings are kept in a cache of bounded size.  In own-mask loops every slice is visited once upwards and once
    downwards and its objects are decoded together: their order does not matter, since the largest label wins where
    masks meet.  Merged loops go object after object.
``reference``
    One object after the other, encoding what the script encodes: once per object and slice, or all slices ahead; every
    mask resized to the whole slice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.inference.clock import Clock
from harness.inference.masks import Region, positive_region
from harness.inference.pipeline2d import DECODE_BATCH, decode_boxes, prompt_key
from harness.inference.prediction import Prediction, empty_labels
from harness.inference.rules import Execution, InputRules, checked_execution
from harness.inference.session import EmbeddingLike, FloatArray, Session
from harness.protocols import BOX_SHIFT
from variants import preprocess

Labels = NDArray[np.uint8] | NDArray[np.uint16]

CACHE_BYTES = 1024**3
"""Default budget of the embedding cache."""


def segment_volume(
    session: Session,
    volume: NDArray[np.uint8],
    boxes: NDArray[np.int64],
    rules: InputRules | None = None,
    name: str = "",
    execution: Execution = "sweep",
    cache_bytes: int = CACHE_BYTES,
    batch: int = DECODE_BATCH,
) -> Prediction:
    """Segment every box of a volume; a later box overwrites an earlier one where both masks are true.

    Args:
        session: the model.
        volume: uint8 (D,H,W).
        boxes: (N,6) x0,y0,z0,x1,y1,z1 in voxels, maxima inclusive, the middle slice inside the volume.
        rules: preprocessing, prompts and 3D loop; a box prompt, longest side and the default loop if left out.
        name: of the case; seeds its points and scribbles.
        execution: ``sweep`` or ``reference``, see the description of this module.
        cache_bytes: budget of the embedding cache; the least recently used embedding goes first.
        batch: boxes decoded at once.
    """
    sweep = checked_execution(execution) == "sweep"
    run = _Run(session, volume, boxes, rules or InputRules(), name, cache_bytes, batch, sweep)
    if sweep:
        run.sweep()
    else:
        run.reference()
    return Prediction(run.segs, run.slices.encodes, run.slices.encoded_again, run.clock.seconds)


@dataclass
class _Track:
    """One object on its way through the slices.

    Attributes:
        label: 1-based.
        up, down: its slices; ``up`` begins with the middle one.
        given: the given box in network pixels, for the way up and for the way down.
        found: box that follows from the slice before; ``None`` where nothing is labelled there.
        found_in_middle: box that follows from the middle slice, where the way down starts.
        masks: slice and mask, kept back until the object is finished, in merged loops.
    """

    label: int
    up: range
    down: range
    given: tuple[FloatArray, FloatArray]
    found: FloatArray | None = None
    found_in_middle: FloatArray | None = None
    masks: list[tuple[int, Region]] = field(default_factory=list)

    @property
    def middle(self) -> int:
        return self.up.start

    def box(self, z: int) -> FloatArray:
        """The box of slice ``z``."""
        return self.given[z < self.middle] if self.found is None else self.found

    def turn(self) -> None:
        """Start the way down."""
        self.found = self.found_in_middle


@dataclass(frozen=True)
class _Slice:
    """An encoded slice, with its network input where prompts are made from that."""

    embedding: EmbeddingLike
    image: FloatArray | None

    @property
    def nbytes(self) -> int:
        return self.embedding.nbytes + (0 if self.image is None else self.image.nbytes)


class _Slices:
    """Slices of a volume, prepared and encoded when needed, kept within a budget of bytes."""

    def __init__(
        self, session: Session, volume: NDArray[np.uint8], rules: InputRules, budget: int, clock: Clock
    ) -> None:
        self._session, self._volume, self._rules, self._budget, self._clock = session, volume, rules, budget, clock
        self._kept: OrderedDict[int, _Slice] = OrderedDict()
        self._bytes = 0
        self._seen: set[int] = set()
        self.encodes = 0

    def get(self, z: int, keep: bool = True) -> _Slice:
        """Slice ``z``, from the cache if it is there."""
        if z in self._kept:
            self._kept.move_to_end(z)
            return self._kept[z]
        found = self._encoded(z)
        if keep and found.nbytes <= self._budget:
            self._store(z, found)
        return found

    @property
    def encoded_again(self) -> int:
        """How many encodings were of a slice that had been encoded before."""
        return self.encodes - len(self._seen)

    def encode_ahead(self, zs: range) -> None:
        """Encode slices and keep them all, whatever the budget."""
        self._kept = OrderedDict((z, self._encoded(z)) for z in zs)

    def _encoded(self, z: int) -> _Slice:
        with self._clock.phase("preprocess"):
            prepared = preprocess.prepare(self._volume[z], self._session.input_size, self._rules.preprocess)
        with self._clock.phase("encode"):
            embedding = self._session.encode(prepared.network[None])
        self.encodes += 1
        self._seen.add(z)
        return _Slice(embedding, prepared.network if self._rules.more_than_boxes else None)

    def _store(self, z: int, found: _Slice) -> None:
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
        rules: InputRules,
        name: str,
        cache_bytes: int,
        batch: int,
        sweep: bool,
    ) -> None:
        self.clock = Clock()
        self.slices = _Slices(session, volume, rules, cache_bytes, self.clock)
        self.segs = empty_labels(volume.shape, len(boxes))
        self._session, self._rules, self._name, self._batch = session, rules, name, batch
        self._everywhere = not sweep
        self._loop = rules.propagation
        self._merged = self._loop.neighbour == "merged"
        self._sigmoid_first = preprocess.sigmoid_first(rules.preprocess)
        self._original_hw = (int(volume.shape[1]), int(volume.shape[2]))
        self._scale_hw = preprocess.shown_hw(self._original_hw, session.input_size, rules.preprocess)
        self._all_slices = range(max(int(boxes[:, 2].min()), 0), min(int(boxes[:, 5].max()), len(volume) - 1) + 1)
        self._tracks = list(self._start(boxes, len(volume)))

    def _start(self, boxes: NDArray[np.int64], depth: int) -> Iterator[_Track]:
        size, rule = self._session.input_size, self._rules.preprocess
        flat = boxes[:, [0, 1, 3, 4]]
        given = preprocess.boxes_to_network(flat, self._original_hw, size, rule)
        truncated = self._loop.fallback_down == "truncated"
        downwards = preprocess.boxes_to_network(flat, self._original_hw, size, rule, truncate=truncated)
        for index in range(len(boxes)):
            up, down = self._loop.slices(int(boxes[index, 2]), int(boxes[index, 5]), depth)
            yield _Track(index + 1, up, down, (given[index], downwards[index]))

    def sweep(self) -> None:
        """The fewest encodings that the rule allows."""
        if self._merged:
            self._one_by_one(keep=True)
        else:
            self._together()

    def reference(self) -> None:
        """One object after the other, encoding what the script encodes."""
        ahead = self._loop.encodes == "slice"
        if ahead:
            self.slices.encode_ahead(self._all_slices)
        self._one_by_one(keep=ahead)

    def _together(self) -> None:
        """Up through all slices, then down: the slices needed again first are those used last."""
        for z in sorted({z for track in self._tracks for z in track.up}):
            self._visit(z, [t for t in self._tracks if z in t.up])
        for track in self._tracks:
            track.turn()
        for z in sorted({z for track in self._tracks for z in track.down}, reverse=True):
            self._visit(z, [t for t in self._tracks if z in t.down])

    def _one_by_one(self, keep: bool) -> None:
        for track in self._tracks:
            for z in track.up:
                if self._merged and z != track.middle:
                    track.found = self._merged_box(z - 1)
                self._visit(z, [track], keep)
            track.turn()
            for z in track.down:
                if self._merged:
                    track.found = self._merged_box(z + 1)
                self._visit(z, [track], keep)
            for z, region in track.masks:
                region.paint(self.segs[z], track.label)
            track.masks.clear()

    def _visit(self, z: int, tracks: list[_Track], keep: bool = True) -> None:
        found = self.slices.get(z, keep)
        for start in range(0, len(tracks), self._batch):
            group = tracks[start : start + self._batch]
            boxes = np.stack([track.box(z) for track in group])
            keys = [prompt_key(self._name, z, track.label) for track in group]
            masks = decode_boxes(self._session, found.embedding, boxes, found.image, self._rules, keys, self.clock)
            with self.clock.phase("postprocess"):
                for track, mask in zip(group, masks, strict=True):
                    self._follow(track, z, mask)

    def _follow(self, track: _Track, z: int, logits: FloatArray) -> None:
        """Take the mask of one object on one slice and, from an own mask, derive its box for the next."""
        size = self._session.input_size
        region = positive_region(
            logits, size, self._scale_hw, self._original_hw, self._sigmoid_first, everywhere=self._everywhere
        )
        if self._merged:
            if region is not None:
                track.masks.append((z, region))
            return
        if region is not None:
            view = self.segs[z][region.rows, region.columns]
            view[region.values & (view < track.label)] = track.label
        found = None if region is None else propagated_box(region, track.label, self._original_hw, self._scale_hw, size)
        track.found = found
        if z == track.middle:
            track.found_in_middle = found

    def _merged_box(self, z: int) -> FloatArray | None:
        """The box around all that earlier objects left on slice ``z``."""
        with self.clock.phase("postprocess"):
            carrier = self.segs[z].astype(np.uint16) if self._loop.labels == "uint16" else self.segs[z]
            return box_around(carrier, self._scale_hw, self._session.input_size)


def propagated_box(
    region: Region, label: int, original_hw: tuple[int, int], scale_hw: tuple[int, int], size: int
) -> FloatArray | None:
    """Box of the next slice from the mask of this one, or ``None`` if the mask vanishes at network size.

    The scripts resize the mask with INTER_AREA while it carries the label as its value, and rounding to whole numbers
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
    return box_around(carrier, scale_hw, size)


def box_around(labels: Labels, scale_hw: tuple[int, int], size: int) -> FloatArray | None:
    """The widened bounding box, in network pixels, of a label map (H,W) reduced with INTER_AREA; ``None`` if empty."""
    small = cv2.resize(labels, (scale_hw[1], scale_hw[0]), interpolation=cv2.INTER_AREA)
    rows, columns = np.flatnonzero(small.any(axis=1)), np.flatnonzero(small.any(axis=0))
    if rows.size == 0:
        return None
    low = np.array([columns[0], rows[0]]) - BOX_SHIFT
    high = np.array([columns[-1], rows[-1]]) + BOX_SHIFT
    return np.concatenate([np.maximum(low, 0), np.minimum(high, size)]).astype(np.float32)
