"""Scores of label maps under the two protocols.

Policy of ``strict``
    * Objects are the labels given, or 1..the largest label in either map; every one is counted.
    * Both masks of an object empty: the value is undefined (``nan``) and left out of means.  One empty: 0.
    * Any number of labels; a gap in the labels is an undefined object, not an error.
    * 2D: the surface is the contour, tolerance 2 pixels (spacing 1, 1).
    * 3D: tolerance 2 mm with the spacing in array-axis order (z, y, x).  Without a spacing NSD and HD95 are undefined.
    * HD95 of an object that only one map has is infinite by definition; here it is the largest distance the case
      allows, the diagonal of its field in mm (2D: pixels), so that a missed object makes a mean worse, not meaningless.
    * The relative volume error is positive for a prediction that is too large, and undefined without a true object.

Policy of ``cvpr24`` (the challenge's evaluation, to the letter)
    * Objects are 1..the largest label of the ground truth; labels of the prediction beyond it are not seen.
    * The case DSC is the mean over objects; an object absent from both maps makes it ``nan``.
    * The case NSD is the mean over objects at tolerance 2, but 0 unless the case DSC is above 0.2 (``nan`` is not).
    * 2D: the image is scored as a slab (H, W, 1) with spacing 1, so every pixel of a mask is surface.
    * 3D: the stored spacing (x, y, z) is applied in array-axis order (z, y, x) without conversion.
    * Case values are rounded to 4 decimals.
    * A ground truth without any object: ``nan`` DSC (mean of nothing), NSD 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.metrics.boxes import Box, as_integers, label_boxes
from harness.metrics.dice import pair_box_iou, pair_dice, pair_volume_error
from harness.metrics.pair import MaskPair, pair_of_label
from harness.metrics.surface import pair_hd95, pair_surface_dice
from harness.schema import METRICS_OF

Protocol = Literal["strict", "cvpr24"]

TOLERANCE = 2.0
"""Tolerance of NSD in both protocols: mm in 3D, pixels in 2D."""
CVPR24_DSC_FLOOR = 0.2
"""The challenge computes NSD only for cases whose DSC is above this."""

Measure = Callable[[MaskPair], float]
Boxes = dict[int, Box]


@dataclass(frozen=True)
class CaseScore:
    """Scores of one case.

    Attributes:
        objects: label → metric → value; ``nan`` where undefined.
        case: metric → value of the whole case: under ``strict`` the mean of the defined objects, under ``cvpr24`` the
            challenge's case value.
    """

    objects: dict[int, dict[str, float]]
    case: dict[str, float]


def protocol_spacing(protocol: Protocol, stored_xyz: Sequence[float] | None) -> tuple[float, ...] | None:
    """The spacing a protocol works with, in array-axis order, from the spacing stored in a case (x, y, z).

    ``strict`` reverses it to (z, y, x); ``cvpr24`` passes it on unconverted, as the challenge does.
    """
    if stored_xyz is None:
        return None
    values = tuple(float(s) for s in stored_xyz)
    return values if protocol == "cvpr24" else values[::-1]


def score_case(
    gts: NDArray[Any],
    segs: NDArray[Any],
    spacing: Sequence[float] | None = None,
    protocol: Protocol = "strict",
    metrics: Iterable[str] = ("dsc", "nsd"),
    labels: Iterable[int] | None = None,
) -> CaseScore:
    """Score a predicted label map against the ground truth, per object and for the case.

    Args:
        gts: ground truth, integer label map, (H, W) or (D, H, W), 0 is background.
        segs: prediction, integer label map of the same shape.
        spacing: mm along each array axis of a volume (see ``protocol_spacing``); ignored in 2D, which counts in pixels.
        protocol: ``strict`` or ``cvpr24``; their policies are in the description of this module.
        metrics: those of ``METRICS_OF``: under ``strict`` any, under ``cvpr24`` ``dsc`` and ``nsd``.
        labels: the objects of ``strict``; by default 1..the largest label present.

    Returns:
        The scores; work is done inside the union of the two bounding boxes of each object.

    Raises:
        ValueError: shapes differ, not 2D or 3D, labels not integers or negative, an unknown protocol, or a metric that
            the protocol does not have.
    """
    wanted = tuple(metrics)
    _check(gts, segs, wanted, protocol)
    maps = _Maps(as_integers(gts), as_integers(segs), label_boxes(gts), label_boxes(segs))
    if protocol == "cvpr24":
        return _score_cvpr24(maps, spacing, wanted)
    chosen = labels if labels is not None else range(1, maps.largest + 1)
    measures = _strict_measures(gts.shape, spacing)
    objects = maps.each(chosen, {name: measures[name] for name in wanted})
    return CaseScore(objects, {name: _mean_defined(values[name] for values in objects.values()) for name in wanted})


@dataclass(frozen=True)
class _Maps:
    """Two label maps and where their labels are."""

    gts: NDArray[Any]
    segs: NDArray[Any]
    gt_boxes: Boxes
    seg_boxes: Boxes

    @property
    def largest(self) -> int:
        return max((*self.gt_boxes, *self.seg_boxes), default=0)

    def each(self, labels: Iterable[int], measures: dict[str, Measure]) -> dict[int, dict[str, float]]:
        """Every measure of every label."""
        scores: dict[int, dict[str, float]] = {}
        for label in labels:
            pair = pair_of_label(self.gts, self.segs, label, self.gt_boxes.get(label), self.seg_boxes.get(label))
            scores[label] = {name: measure(pair) for name, measure in measures.items()}
        return scores


def _score_cvpr24(maps: _Maps, spacing: Sequence[float] | None, wanted: tuple[str, ...]) -> CaseScore:
    labels = range(1, max(maps.gt_boxes, default=0) + 1)
    objects = maps.each(labels, {"dsc": pair_dice})
    dsc = _mean_all([values["dsc"] for values in objects.values()])
    nsd = 0.0
    if "nsd" in wanted:
        surfaces: dict[int, dict[str, float]] = {label: {"nsd": 0.0} for label in labels}
        if dsc > CVPR24_DSC_FLOOR:  # the unrounded value; false for nan
            surfaces = maps.each(labels, {"nsd": _nsd(maps.gts.ndim, spacing, slab=True)})
            nsd = _mean_all([values["nsd"] for values in surfaces.values()])
        objects = {label: objects[label] | surfaces[label] for label in labels}
    case = {name: float(np.round(value, 4)) for name, value in (("dsc", dsc), ("nsd", nsd))}  # not Python's round
    picked = {label: {name: values[name] for name in wanted} for label, values in objects.items()}
    return CaseScore(picked, {name: case[name] for name in wanted})


def _check(gts: NDArray[Any], segs: NDArray[Any], metrics: tuple[str, ...], protocol: str) -> None:
    if gts.shape != segs.shape:
        raise ValueError(f"the label maps differ in shape: ground truth {gts.shape}, prediction {segs.shape}")
    if gts.ndim not in (2, 3):
        raise ValueError(f"label maps have 2 or 3 dimensions, not {gts.ndim}")
    if protocol not in METRICS_OF:
        raise ValueError(f"unknown protocol {protocol!r}; known: {', '.join(METRICS_OF)}")
    known = METRICS_OF[protocol]
    unknown = [name for name in metrics if name not in known]
    if unknown:
        raise ValueError(f"protocol {protocol} has no metric {unknown[0]!r}; it has {', '.join(known)}")


def _strict_measures(shape: tuple[int, ...], spacing: Sequence[float] | None) -> dict[str, Measure]:
    return {
        "dsc": pair_dice,
        "nsd": _nsd(len(shape), spacing, slab=False),
        "hd95": _hd95(shape, spacing),
        "volume_error": pair_volume_error,
        "box_iou": pair_box_iou,
    }


def _nsd(ndim: int, spacing: Sequence[float] | None, slab: bool) -> Measure:
    """NSD at the protocol's tolerance; ``slab``: 2D as the challenge scores it, (H, W, 1) with spacing 1."""
    if ndim == 3:
        if spacing is None:
            return _undefined
        millimetres = tuple(float(s) for s in spacing)
        return lambda pair: pair_surface_dice(pair, millimetres, TOLERANCE)
    if slab:
        return lambda pair: pair_surface_dice(pair.slab(), (1.0, 1.0, 1.0), TOLERANCE)
    return lambda pair: pair_surface_dice(pair, (1.0, 1.0), TOLERANCE)


def _hd95(shape: tuple[int, ...], spacing: Sequence[float] | None) -> Measure:
    largest = farthest(shape, spacing)
    if largest is None:
        return _undefined
    steps = _steps(shape, spacing)
    return lambda pair: min(pair_hd95(pair, steps), largest) if not pair.empty else math.nan


def farthest(shape: Sequence[int], spacing: Sequence[float] | None) -> float | None:
    """The largest distance of a case under ``strict``, its diagonal: the HD95 of an object that was not found.

    Args:
        shape: (H, W) or (D, H, W).
        spacing: mm along each array axis of a volume; ignored in 2D, which counts in pixels.

    Returns:
        mm, in 2D pixels; ``None`` for a volume without a spacing.
    """
    if len(shape) == 3 and spacing is None:
        return None
    return math.hypot(*(n * s for n, s in zip(shape, _steps(shape, spacing), strict=True)))


def _steps(shape: Sequence[int], spacing: Sequence[float] | None) -> tuple[float, ...]:
    return tuple(float(s) for s in spacing) if len(shape) == 3 and spacing is not None else (1.0, 1.0)


def _undefined(pair: MaskPair) -> float:
    return math.nan


def _mean_all(values: list[float]) -> float:
    return float(np.add.reduce(values) / len(values)) if values else math.nan  # NumPy's mean to the bit, without checks


def _mean_defined(values: Iterable[float]) -> float:
    return _mean_all([v for v in values if not math.isnan(v)])
