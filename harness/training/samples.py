"""Training samples: what the model sees at a position of the run, as a function of (seed, position) alone.

Position p = step index x batch + place in the batch.  The case of a position follows from the sampler's rule, the seed
and p (``harness.training.sampling``); object, slice, flips, box jitter, colours, points and scribble are drawn from
(seed, p).  No state is kept and no global random generator is used, so any order of asking, any number of workers and
any resume give the same samples.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.errors import BenchError
from harness.recipe import ColourJitter, Sampler
from harness.training.augment import colour_jittered, is_coloured
from harness.training.decoded import CACHE_BYTES, Decoded, DecodedCases, TrainingData
from harness.training.prompting import (
    box_from_slice_before,
    box_scribble,
    jittered_box,
    mask_to_logits_grid,
    object_points,
)
from harness.training.sampling import DRAW, Part, order_of, part_of, used
from variants import preprocess, prompts

EVERY_CASE = Sampler()


@dataclass(frozen=True)
class Draw:
    """How samples are made.

    Attributes:
        size: network side in pixels.
        rule: of preprocessing.
        box_jitter: largest outward shift of a box side in network pixels.
        flips: probability of each flip.
        objects: how many objects of an image are shown at most.
        colour: how colours change; ``None`` leaves them.
        prompts: what the model is given of ``box``, ``points`` and ``scribble``.
        propagated_boxes: probability that an object's box follows from the slice before, as in the 3D loop.
        loop_starts: probability that a volume is shown where the 3D loop starts, with the boxes it starts from.
        prompt_rule: by which points and scribbles are made from the box as at inference; ``None``: from the truth.
    """

    size: int
    rule: str
    box_jitter: int
    flips: float
    objects: int = 1
    colour: ColourJitter | None = None
    prompts: tuple[str, ...] = ("box",)
    propagated_boxes: float = 0.0
    loop_starts: float = 0.0
    prompt_rule: str | None = None


@dataclass(frozen=True)
class View:
    """What a teacher sees of a case: a slice (0 in 2D) and the axes it is flipped along, 1 horizontally, 0 vertically.

    Colours never differ in it: a teacher's embedding of a view can be stored.
    """

    case: str
    slice: int
    flips: tuple[int, ...]

    @property
    def key(self) -> str:
        """A text of its own for each view, such as ``name/12/hv``, or ``name/12/-`` without flips."""
        flips = "".join(letter for axis, letter in ((1, "h"), (0, "v")) if axis in self.flips)
        return f"{self.case}/{self.slice}/{flips or '-'}"


@dataclass(frozen=True)
class Sample:
    """One prompt of one image.

    Attributes:
        image: float32 (3,S,S) in [0,1].
        mask: uint8 (256,256), 0 or 1, on the grid of the decoder's logits; never empty.
        box: float32 (4,) x0,y0,x1,y1 in network pixels, inclusive maxima.
        view: the case, its slice and flips.
        points: float32 (4,2) x, y in network pixels: one in each quadrant of the box, if drawn.
        scribble: float32 (1,S,S), 0 or 1, if drawn.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.uint8]
    box: NDArray[np.float32]
    view: View
    points: NDArray[np.float32] | None = None
    scribble: NDArray[np.float32] | None = None

    @property
    def case(self) -> str:
        """Name of the case."""
        return self.view.case


@dataclass(frozen=True)
class Batch:
    """Images side by side, and the prompts of all of them.

    Attributes:
        images: float32 (B,3,S,S).
        masks: uint8 (N,1,256,256).
        boxes: float32 (N,4).
        which: int64 (N,), the image that each prompt belongs to.
        cases: names of the images' cases.
        points: float32 (N,4,2) in network pixels, if drawn.
        scribbles: float32 (N,1,S,S), if drawn.
        views: the images' views.
    """

    images: NDArray[np.float32]
    masks: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    which: NDArray[np.int64]
    cases: tuple[str, ...]
    points: NDArray[np.float32] | None = None
    scribbles: NDArray[np.float32] | None = None
    views: tuple[View, ...] = ()


class Samples:
    """Samples of a data set; decoded cases are kept in memory, least recently used first out, up to a byte budget.

    Args:
        data: the cases.
        draw: how a sample is made of one.
        seed: of everything random.
        cache_bytes: budget of the decoded cases.
        sampler: which cases an epoch shows.  Validation shows every case held out once, whatever the sampler.
        held_out: share of the cases kept out of training, see ``harness.training.sampling.part_of``.
        part: the side that these samples are from.

    Raises:
        BenchError: the data set is empty, cannot be divided, or nothing is left of it; later, where samples are asked
            for: a case cannot be read or has no ground truth, or no case shows any object.
    """

    def __init__(
        self,
        data: TrainingData,
        draw: Draw,
        seed: int,
        cache_bytes: int = CACHE_BYTES,
        *,
        sampler: Sampler = EVERY_CASE,
        held_out: float = 0.0,
        part: Part = "train",
    ) -> None:
        if not data.cases:
            raise BenchError(f"Data set {data.name!r} has no cases, so nothing can be trained on it.")
        rule = sampler if part == "train" else EVERY_CASE
        cases = used(part_of(data.cases, held_out, part, data.name), rule.fractions, data.name)
        self._name = data.name
        self._draw = draw
        self._seed = seed
        self._order = order_of(cases, rule, seed)
        self._decoded = DecodedCases(data, cache_bytes)
        self._count = len(cases)

    @property
    def epoch_length(self) -> int:
        """Samples of an epoch."""
        return self._order.epoch_length

    def batch(self, index: int, size: int, first: int = 0, count: int | None = None) -> Batch:
        """Batch ``index`` (0-based step) of ``size`` images, or of them the ``count`` from place ``first`` on: the
        share of a process; ``which`` then counts from the share's first image."""
        behind = size if count is None else first + count
        groups = [self.samples(index * size + place) for place in range(first, behind)]
        prompts = [sample for group in groups for sample in group]
        return Batch(
            images=np.stack([group[0].image for group in groups]),
            masks=np.stack([s.mask for s in prompts])[:, None],
            boxes=np.stack([s.box for s in prompts]),
            which=np.repeat(np.arange(len(groups)), [len(group) for group in groups]),
            cases=tuple(group[0].case for group in groups),
            points=_stacked([s.points for s in prompts]),
            scribbles=_stacked([s.scribble for s in prompts]),
            views=tuple(group[0].view for group in groups),
        )

    def sample(self, position: int) -> Sample:
        """The first sample at a position of the run."""
        return self.samples(position)[0]

    def samples(self, position: int) -> list[Sample]:
        """Objects of one image at a position of the run: one at random, then others that are seen beside it."""
        rng = np.random.default_rng([self._seed, DRAW, position])
        decoded = self._decoded_at(position)
        labels = sorted(decoded.seen)
        label = labels[rng.integers(len(labels))]
        slices = decoded.seen[label]
        place = slices[rng.integers(len(slices))]
        starts = bool(self._draw.loop_starts) and rng.random() < self._draw.loop_starts
        if starts:
            middle = decoded.starts_at(label)
            place = place if middle is None else middle
        image, truth = decoded.plane(place)
        beside = [other for other in labels if other != label and place in decoded.seen[other]]
        chosen = [label, *rng.permutation(beside)[: self._draw.objects - 1]] if self._draw.objects > 1 else [label]
        before = [decoded.mask_before(one, place) for one in chosen] if self._draw.propagated_boxes else None
        whole = [decoded.whole(one) if decoded.starts_at(one) == place else None for one in chosen] if starts else None
        masks = [truth == one for one in chosen]
        return make_samples(image, masks, self._draw, rng, decoded.case.name, place, before, whole)

    def teacher_image(self, view: View, size: int, rule: str) -> NDArray[np.float32]:
        """A view, flipped and in its own colours, prepared for another model: float32 (3,size,size).

        Args:
            view: from a batch, or made for the purpose.
            size: side of the other model's input in pixels.
            rule: its preprocessing.
        """
        image, _ = self._decoded.load(view.case).plane(view.slice)
        return preprocess.prepare(_flipped(image, view.flips), size, rule).network

    def for_workers(self, workers: int) -> Samples:
        """The same samples with an empty cache, whose budget is one of ``workers`` equal shares."""
        shared = copy.copy(self)
        shared._decoded = self._decoded.with_budget(self._decoded.budget // max(1, workers))
        return shared

    def _decoded_at(self, position: int) -> Decoded:
        """The case of a position; one without any object gives way to the next."""
        for name in self._order.candidates(position):
            decoded = self._decoded.load(name)
            if decoded.seen:
                return decoded
        raise BenchError(f"Data set {self._name!r} shows no object in any of its {self._count} cases; check its `gts`.")


def make_samples(
    image: NDArray[np.uint8],
    masks: Sequence[NDArray[np.bool_]],
    draw: Draw,
    rng: np.random.Generator,
    case: str,
    place: int = 0,
    before: Sequence[NDArray[np.bool_] | None] | None = None,
    whole: Sequence[NDArray[np.bool_] | None] | None = None,
) -> list[Sample]:
    """Flip and preprocess one image, change its colours, and prompt every object of it.

    Flips come before preprocessing, so that the padding stays at the bottom and right as it does at inference.
    Colours, points, scribble and propagated boxes have streams of their own: none changes what else is drawn.

    Args:
        image: uint8 (H,W) or (H,W,3).
        masks: (H,W) each, not empty.
        draw: the rules.
        rng: decides flips and jitter.
        case: name the samples carry.
        place: index of the slice, which they carry too.
        before: the objects' masks on the slice from which the 3D loop comes, or ``None`` for each where there is none.
        whole: where any slice shows the objects that the 3D loop starts with here; ``None`` for each other.
    """
    axes = tuple(axis for axis in (1, 0) if rng.random() < draw.flips)
    prepared = preprocess.prepare(_flipped(image, axes), draw.size, draw.rule)

    def on_grid(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
        return mask_to_logits_grid(np.flip(mask, axes), prepared.scale_hw, draw.size)

    grids = [on_grid(mask) for mask in masks]
    boxes = [jittered_box(grid, draw.size, draw.box_jitter, rng) for grid in grids]
    of_colours, of_points, of_scribble, of_boxes = rng.spawn(4)
    for index, mask in enumerate(before or ()):
        if of_boxes.random() < draw.propagated_boxes and mask is not None:
            boxes[index] = box_from_slice_before(on_grid(mask), draw.size, draw.box_jitter, of_boxes)
    for index, mask in enumerate(whole or ()):
        if mask is not None:
            boxes[index] = jittered_box(on_grid(mask), draw.size, draw.box_jitter, of_boxes)
    network = prepared.network
    if draw.colour is not None:
        coloured = is_coloured(image, draw.rule)
        network = colour_jittered(network, prepared.scale_hw, draw.colour, coloured, of_colours)
    from_truth = draw.prompts if draw.prompt_rule is None else ()
    samples = [
        Sample(
            image=network,
            mask=grid,
            box=box,
            view=View(case, place, axes),
            points=object_points(grid, box, draw.size, of_points) if "points" in from_truth else None,
            scribble=box_scribble(network, box, of_scribble) if "scribble" in from_truth else None,
        )
        for grid, box in zip(grids, boxes, strict=True)
    ]
    return samples if draw.prompt_rule is None else _as_at_inference(samples, draw.prompts, draw.prompt_rule, of_points)


def _as_at_inference(
    samples: list[Sample], wanted: tuple[str, ...], rule: str, rng: np.random.Generator
) -> list[Sample]:
    """The samples of one image with points and scribbles made from their boxes."""
    boxes, keys = np.stack([sample.box for sample in samples]), [str(rng.integers(2**62)) for _ in samples]
    made = prompts.make(boxes, samples[0].image, wanted, rule, keys)
    return [
        replace(
            sample,
            points=None if made.points is None else made.points[index],
            scribble=None if made.scribble is None else made.scribble[index],
        )
        for index, sample in enumerate(samples)
    ]


def _flipped(image: NDArray[np.uint8], axes: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.flip(image, axes))


def _stacked(arrays: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
    """The arrays side by side, or nothing where they were not drawn."""
    drawn = [array for array in arrays if array is not None]
    return np.stack(drawn) if drawn else None
