"""Scores of label maps under the two protocols.

Policy of ``strict``
    * Objects are the labels given, or 1..the largest label in either map; every one is counted.
    * Both masks of an object empty: the value is undefined (``nan``) and left out of means.  One empty: 0.
    * Any number of labels; a gap in the labels is an undefined object, not an error.
    * 2D: the surface is the contour, tolerance 2 pixels (spacing 1, 1).
    * 3D: tolerance 2 mm with the spacing in array-axis order (z, y, x).  Without a spacing NSD is undefined.

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
from scipy.ndimage import find_objects

from harness.metrics.dice import BoolArray, dice
from harness.metrics.surface import surface_dice

Protocol = Literal["strict", "cvpr24"]

TOLERANCE = 2.0
"""Tolerance of NSD in both protocols: mm in 3D, pixels in 2D."""
CVPR24_DSC_FLOOR = 0.2
"""The challenge computes NSD only for cases whose DSC is above this."""

Measure = Callable[[BoolArray, BoolArray], float]


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
        metrics: any of ``dsc``, ``nsd``.
        labels: the objects of ``strict``; by default 1..the largest label present.

    Returns:
        The scores; work is done inside the union of the two bounding boxes of each object.

    Raises:
        ValueError: shapes differ, not 2D or 3D, labels not integers, or an unknown metric or protocol.
    """
    wanted = tuple(metrics)
    _check(gts, segs, wanted, protocol)
    boxes_gt, boxes_seg = find_objects(_integers(gts)), find_objects(_integers(segs))
    if protocol == "cvpr24":
        return _score_cvpr24(gts, segs, spacing, wanted, boxes_gt, boxes_seg)
    chosen = tuple(labels) if labels is not None else tuple(range(1, max(len(boxes_gt), len(boxes_seg)) + 1))
    measures = {"dsc": dice, "nsd": _nsd(gts.ndim, spacing, slab=False)}
    objects = _each(gts, segs, chosen, boxes_gt, boxes_seg, {name: measures[name] for name in wanted})
    return CaseScore(objects, {name: _mean_defined(values[name] for values in objects.values()) for name in wanted})


def _score_cvpr24(
    gts: NDArray[Any],
    segs: NDArray[Any],
    spacing: Sequence[float] | None,
    wanted: tuple[str, ...],
    boxes_gt: list[Any],
    boxes_seg: list[Any],
) -> CaseScore:
    labels = tuple(range(1, len(boxes_gt) + 1))
    objects = _each(gts, segs, labels, boxes_gt, boxes_seg, {"dsc": dice})
    dsc = _mean_all([values["dsc"] for values in objects.values()])
    nsd = 0.0
    if "nsd" in wanted:
        surfaces: dict[int, dict[str, float]] = {label: {"nsd": 0.0} for label in labels}
        if dsc > CVPR24_DSC_FLOOR:  # the unrounded value; false for nan
            surfaces = _each(gts, segs, labels, boxes_gt, boxes_seg, {"nsd": _nsd(gts.ndim, spacing, slab=True)})
            nsd = _mean_all([values["nsd"] for values in surfaces.values()])
        objects = {label: objects[label] | surfaces[label] for label in labels}
    case = {"dsc": round(dsc, 4), "nsd": round(nsd, 4)}
    picked = {label: {name: values[name] for name in wanted} for label, values in objects.items()}
    return CaseScore(picked, {name: case[name] for name in wanted})


def _check(gts: NDArray[Any], segs: NDArray[Any], metrics: tuple[str, ...], protocol: str) -> None:
    if gts.shape != segs.shape:
        raise ValueError(f"the label maps differ in shape: ground truth {gts.shape}, prediction {segs.shape}")
    if gts.ndim not in (2, 3):
        raise ValueError(f"label maps have 2 or 3 dimensions, not {gts.ndim}")
    unknown = [name for name in metrics if name not in ("dsc", "nsd")]
    if unknown:
        raise ValueError(f"unknown metric {unknown[0]!r}; known: dsc, nsd")
    if protocol not in ("strict", "cvpr24"):
        raise ValueError(f"unknown protocol {protocol!r}; known: strict, cvpr24")


def _integers(labels: NDArray[Any]) -> NDArray[Any]:
    if labels.dtype == np.bool_:
        return labels.view(np.uint8)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"label maps hold integers, not {labels.dtype}")
    return labels


def _each(
    gts: NDArray[Any],
    segs: NDArray[Any],
    labels: Iterable[int],
    boxes_gt: list[Any],
    boxes_seg: list[Any],
    measures: dict[str, Measure],
) -> dict[int, dict[str, float]]:
    """Every measure of every label, computed inside the union of its two bounding boxes."""
    scores: dict[int, dict[str, float]] = {}
    for label in labels:
        box = _union(_box(boxes_gt, label), _box(boxes_seg, label))
        if box is None:
            scores[label] = dict.fromkeys(measures, math.nan)
            continue
        gt, seg = gts[box] == label, segs[box] == label
        scores[label] = {name: measure(gt, seg) for name, measure in measures.items()}
    return scores


def _box(boxes: list[Any], label: int) -> tuple[slice, ...] | None:
    return boxes[label - 1] if 1 <= label <= len(boxes) else None


def _union(a: tuple[slice, ...] | None, b: tuple[slice, ...] | None) -> tuple[slice, ...] | None:
    if a is None or b is None:
        return a or b
    return tuple(slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in zip(a, b, strict=True))


def _nsd(ndim: int, spacing: Sequence[float] | None, slab: bool) -> Measure:
    """NSD at the protocol's tolerance; ``slab``: 2D as the challenge scores it, (H, W, 1) with spacing 1."""
    if ndim == 3:
        if spacing is None:
            return _undefined
        millimetres = tuple(float(s) for s in spacing)
        return lambda gt, seg: surface_dice(gt, seg, millimetres, TOLERANCE)
    if slab:
        return lambda gt, seg: surface_dice(gt[..., None], seg[..., None], (1.0, 1.0, 1.0), TOLERANCE)
    return lambda gt, seg: surface_dice(gt, seg, (1.0, 1.0), TOLERANCE)


def _undefined(gt: BoolArray, seg: BoolArray) -> float:
    return math.nan


def _mean_all(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _mean_defined(values: Iterable[float]) -> float:
    return _mean_all([v for v in values if not math.isnan(v)])
