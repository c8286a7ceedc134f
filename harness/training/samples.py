"""Training samples: what the model sees at a position of the run, as a function of (seed, position) alone.

Position p = step index x batch + place in the batch.  Epoch p // cases visits every case once, in an order drawn from
(seed, epoch); object, slice, flips and box jitter are drawn from (seed, p).  No state is kept and no global random
generator is used, so any order of asking, any number of workers and any resume give the same samples.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.data.case import Case
from harness.errors import BenchError
from variants import preprocess

LOGITS_SIDE = 256
CACHE_BYTES = 2 * 1024**3
_ORDER, _DRAW = 1, 2  # keep the two families of random streams apart


class Named(Protocol):
    """An entry of a data set's list of cases."""

    @property
    def name(self) -> str: ...


class TrainingData(Protocol):
    """What sampling needs of a data set; ``harness.data.DataSet`` is one."""

    @property
    def name(self) -> str: ...

    @property
    def cases(self) -> Sequence[Named]: ...

    def load(self, name: str) -> Case: ...


@dataclass(frozen=True)
class Draw:
    """How samples are made: network side (pixels), preprocessing, box jitter (network pixels), flip probability, and
    how many objects of an image are shown at most."""

    size: int
    rule: str
    box_jitter: int
    flips: float
    objects: int = 1


@dataclass(frozen=True)
class Sample:
    """One prompt of one image.

    Attributes:
        image: float32 (3,S,S) in [0,1].
        mask: uint8 (256,256), 0 or 1, on the grid of the decoder's logits; never empty.
        box: float32 (4,) x0,y0,x1,y1 in network pixels, inclusive maxima.
        case: name of the case.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.uint8]
    box: NDArray[np.float32]
    case: str


@dataclass(frozen=True)
class Batch:
    """Images side by side, and the prompts of all of them.

    Attributes:
        images: float32 (B,3,S,S).
        masks: uint8 (N,1,256,256).
        boxes: float32 (N,4).
        which: int64 (N,), the image that each prompt belongs to.
        cases: names of the images' cases.
    """

    images: NDArray[np.float32]
    masks: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    which: NDArray[np.int64]
    cases: tuple[str, ...]


@dataclass(frozen=True)
class _Decoded:
    """A case in memory and where each of its objects can be seen: label → slices (``(0,)`` in 2D)."""

    case: Case
    truth: NDArray[np.uint16]
    seen: dict[int, tuple[int, ...]]

    @property
    def nbytes(self) -> int:
        return self.case.image.nbytes + self.truth.nbytes


class Samples:
    """Samples of a data set; decoded cases are kept in memory, least recently used first out, up to a byte budget.

    Raises:
        BenchError: the data set is empty, has no ground truth, or shows no object at all.
    """

    def __init__(self, data: TrainingData, draw: Draw, seed: int, cache_bytes: int = CACHE_BYTES) -> None:
        self._data = data
        self._draw = draw
        self._seed = seed
        self._names = tuple(info.name for info in data.cases)
        self._cache: OrderedDict[str, _Decoded] = OrderedDict()
        self._budget = cache_bytes
        self._held = 0
        if not self._names:
            raise BenchError(f"Data set {data.name!r} has no cases, so nothing can be trained on it.")

    def batch(self, index: int, size: int) -> Batch:
        """Batch ``index`` (0-based step) of ``size`` images."""
        groups = [self.samples(index * size + place) for place in range(size)]
        prompts = [sample for group in groups for sample in group]
        return Batch(
            images=np.stack([group[0].image for group in groups]),
            masks=np.stack([s.mask for s in prompts])[:, None],
            boxes=np.stack([s.box for s in prompts]),
            which=np.repeat(np.arange(size), [len(group) for group in groups]),
            cases=tuple(group[0].case for group in groups),
        )

    def sample(self, position: int) -> Sample:
        """The first sample at a position of the run."""
        return self.samples(position)[0]

    def samples(self, position: int) -> list[Sample]:
        """Objects of one image at a position of the run: one at random, then others that are seen beside it."""
        rng = np.random.default_rng([self._seed, _DRAW, position])
        decoded = self._decoded_at(position)
        labels = sorted(decoded.seen)
        label = labels[rng.integers(len(labels))]
        slices = decoded.seen[label]
        place = slices[rng.integers(len(slices))]
        image, truth = _slice(decoded, place)
        beside = [other for other in labels if other != label and place in decoded.seen[other]]
        chosen = [label, *rng.permutation(beside)[: self._draw.objects - 1]] if self._draw.objects > 1 else [label]
        return make_samples(image, [truth == one for one in chosen], self._draw, rng, decoded.case.name)

    def _decoded_at(self, position: int) -> _Decoded:
        """The case of a position; one without any object gives way to the next of the epoch."""
        epoch, place = divmod(position, len(self._names))
        order = _order(self._seed, epoch, len(self._names))
        for ahead in range(len(order)):
            decoded = self._load(self._names[order[(place + ahead) % len(order)]])
            if decoded.seen:
                return decoded
        raise BenchError(
            f"Data set {self._data.name!r} shows no object in any of its {len(order)} cases; check its `gts`."
        )

    def _load(self, name: str) -> _Decoded:
        if name in self._cache:
            self._cache.move_to_end(name)
            return self._cache[name]
        case = self._data.load(name)
        if case.truth is None:
            raise BenchError(
                f"Data set {self._data.name!r}: case {name!r} has no ground truth, so nothing can be trained on it; "
                "store `gts` in its npz or name the folder that holds it in `truth`."
            )
        decoded = _Decoded(case, case.truth, _where_seen(case.truth))
        self._keep(name, decoded)
        return decoded

    def _keep(self, name: str, decoded: _Decoded) -> None:
        if decoded.nbytes > self._budget:
            return
        self._cache[name] = decoded
        self._held += decoded.nbytes
        while self._held > self._budget:
            _, dropped = self._cache.popitem(last=False)
            self._held -= dropped.nbytes


def make_samples(
    image: NDArray[np.uint8], masks: Sequence[NDArray[np.bool_]], draw: Draw, rng: np.random.Generator, case: str
) -> list[Sample]:
    """Flip and preprocess one image, and prompt every object of it.

    Flips come before preprocessing, so that the padding stays at the bottom and right as it does at inference.

    Args:
        image: uint8 (H,W) or (H,W,3).
        masks: (H,W) each, not empty.
        draw: the rules.
        rng: decides flips and jitter.
        case: name the samples carry.
    """
    axes = tuple(axis for axis in (1, 0) if rng.random() < draw.flips)
    prepared = preprocess.prepare(np.ascontiguousarray(np.flip(image, axes)), draw.size, draw.rule)
    grids = [mask_to_logits_grid(np.flip(mask, axes), prepared.scale_hw, draw.size) for mask in masks]
    return [Sample(prepared.network, grid, jittered_box(grid, draw, rng), case) for grid in grids]


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


def jittered_box(mask: NDArray[np.uint8], draw: Draw, rng: np.random.Generator) -> NDArray[np.float32]:
    """The tight box (inclusive maxima) of a mask on the logits' grid, in network pixels, each side moved outward by a
    whole number of 0..``box_jitter`` pixels and clamped to the image."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    tight = np.array([columns[0], rows[0], columns[-1], rows[-1]], np.float32) * (draw.size / LOGITS_SIDE)
    outward = rng.integers(0, draw.box_jitter + 1, 4) * np.array([-1, -1, 1, 1])
    return np.asarray(np.clip(tight + outward, 0, draw.size - 1), np.float32)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, cases: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(cases)


def _slice(decoded: _Decoded, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    if decoded.truth.ndim == 2:
        return decoded.case.image, decoded.truth
    return decoded.case.image[index], decoded.truth[index]


def _where_seen(truth: NDArray[np.uint16]) -> dict[int, tuple[int, ...]]:
    """Label → indices of the slices that show it, ascending."""
    seen: dict[int, list[int]] = {}
    for index, plane in enumerate(truth if truth.ndim == 3 else truth[None]):
        for label in np.flatnonzero(np.bincount(plane.ravel())):
            if label:
                seen.setdefault(int(label), []).append(index)
    return {label: tuple(slices) for label, slices in seen.items()}
