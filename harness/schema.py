"""The vocabulary of results, as data: modalities, metrics, statuses, phases and the record.

Everything that says which way a metric is better, which unit it has or which words a status may be stands here
and nowhere else.  Imports the standard library alone, so that every other module may import it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["higher", "lower", "none"]
Status = Literal["ok", "oom", "timeout", "crashed", "invalid-output", "unsupported", "skipped"]

STATUSES: tuple[Status, ...] = ("ok", "oom", "timeout", "crashed", "invalid-output", "unsupported", "skipped")

MODALITIES: tuple[str, ...] = (
    "CT",
    "MR",
    "PET",
    "US",
    "X-Ray",
    "Mammography",
    "OCT",
    "Endoscopy",
    "Fundus",
    "Dermoscopy",
    "Microscopy",
)
VOLUME_MODALITIES: frozenset[str] = frozenset({"CT", "MR", "PET"})
UNKNOWN_MODALITY = "unknown"

_SPELLINGS: dict[str, str] = {
    **{name.lower().replace("-", ""): name for name in MODALITIES},
    "mri": "MR",
    "ultrasound": "US",
    "mammo": "Mammography",
    "microscope": "Microscopy",
    "dermatology": "Dermoscopy",
}

PHASES: tuple[str, ...] = (
    "start",
    "interpreter",
    "imports",
    "model load",
    "read",
    "preprocess",
    "encode",
    "decode",
    "postprocess",
    "write",
    "exit",
    "stop",
    "unaccounted",
)

PARTS: tuple[str, ...] = ("image_encoder", "prompt_encoder", "mask_decoder")


def modality_of(case_name: str) -> str:
    """The modality a challenge file name states, ``2DBox_XRay_0001`` → ``X-Ray``; else ``unknown``."""
    for part in case_name.split("_")[1:]:
        found = _SPELLINGS.get(part.lower().replace("-", ""))
        if found:
            return found
    return UNKNOWN_MODALITY


@dataclass(frozen=True)
class Metric:
    """What a metric means: unit, which direction is better, a title for tables, and decimals shown.

    ``failed``: what a case that failed counts as in a mean, the value of an empty prediction; ``None`` where it
    depends on the case, whose record tells it.
    """

    name: str
    unit: str
    direction: Direction
    title: str
    decimals: int = 3
    failed: float | None = None


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("dsc", "1", "higher", "DSC", 3, failed=0.0),
        Metric("nsd", "1", "higher", "NSD", 3, failed=0.0),
        Metric("hd95", "mm, 2D: px", "lower", "HD95", 2),
        Metric("volume_error", "1", "none", "Relative volume error, + too large", 3, failed=-1.0),
        Metric("box_iou", "1", "higher", "Box IoU", 3, failed=0.0),
        Metric("params", "count", "lower", "Parameters", 0),
        Metric("params_unused", "count", "lower", "Parameters never executed", 0),
        Metric("flops", "multiply-adds", "lower", "Multiply-adds", 0),
        Metric("flops_with_prompts", "multiply-adds", "lower", "Multiply-adds with all prompts of the variant", 0),
        Metric("flops_cross_check", "multiply-adds", "none", "Multiply-adds by torch's FlopCounterMode", 0),
        Metric("uncounted_operators", "count", "none", "Operators not counted", 0),
        Metric("activation_peak", "bytes", "lower", "Activation peak", 0),
        Metric("published_params", "count", "none", "Published parameters, recomputed", 0),
        Metric("published_flops", "multiply-adds", "none", "Published FLOPs, recomputed", 0),
        Metric("wall", "s", "lower", "Wall time", 2),
        Metric("phase", "s", "lower", "Phase", 3),
        Metric("peak_memory", "bytes", "lower", "Peak memory, page cache included", 0),
        Metric("peak_anonymous", "bytes", "lower", "Peak memory", 0),
        Metric("memory_limit", "bytes", "none", "Memory limit, read back", 0),
        Metric("cpu_limit", "cpus", "none", "CPU limit, read back", 2),
        Metric("encodes", "count", "none", "Image encodings", 0),
        Metric("encoded_again", "count", "lower", "Slices encoded again", 0),
        Metric("latency", "s", "lower", "Warm latency", 4),
        Metric("throughput", "1/s", "higher", "Warm throughput", 2),
        Metric("gemm_peak", "multiply-adds/s", "none", "The machine's own matrix product", 0),
        Metric("gemm_share", "1", "higher", "Share of the machine's matrix product", 3),
        Metric("train_loss", "1", "lower", "Training loss", 4),
        Metric("validation_loss", "1", "lower", "Validation loss", 4),
        Metric("validation_dsc", "1", "higher", "Validation DSC", 3),
        Metric("learning_rate", "1", "none", "Learning rate", 6),
        Metric("train_steps", "count", "none", "Training steps", 0),
        Metric("converged", "bool", "higher", "Converged", 0),
        Metric("mask_agreement", "1", "higher", "Mask agreement with torch fp32", 4),
        Metric("volume_dsc", "1", "higher", "DSC of volumes to torch fp32", 4),
        Metric("logit_difference", "1", "lower", "Largest logit difference to torch fp32", 4),
        Metric("speed_ratio", "1", "lower", "Time ÷ eager torch fp32", 2),
        Metric("file_size", "bytes", "lower", "Model files", 0),
        Metric("quantised_layers", "count", "none", "Quantised layers", 0),
        Metric("quantised_share", "1", "none", "Quantised share of the multiply-adds", 3),
    )
}


METRICS_OF: dict[Literal["strict", "cvpr24"], tuple[str, ...]] = {
    "strict": ("dsc", "nsd", "hd95", "volume_error", "box_iou"),
    "cvpr24": ("dsc", "nsd"),
}
"""Metrics that compare a segmentation with the truth, as far as a protocol has them, in the order of tables."""

ACCURACY_METRICS: tuple[str, ...] = METRICS_OF["strict"]
"""All of them."""

GATEABLE: tuple[str, ...] = (
    "dsc",
    "nsd",
    "hd95",
    "box_iou",
    "params",
    "flops",
    "wall",
    "peak_memory",
    "peak_anonymous",
    "mask_agreement",
    "volume_dsc",
    "logit_difference",
    "speed_ratio",
    "file_size",
)
"""Metrics that a run has an aggregate of for `bench gate` to compare; a gate on any other could never pass."""


@dataclass(frozen=True)
class Record:
    """One measured value: a row of the tidy table.

    ``unit`` and ``direction`` follow from ``metric`` (see ``METRICS``) and are written out in storage.  Which variant,
    deployment and data set a record belongs to is said by the job it is stored under and added when results are read:
    a result does not change because a suite calls it by another name.

    Attributes:
        metric: a key of ``METRICS``.
        value: the value as measured, unrounded; ``None`` if the status is not ``ok`` or the metric is undefined.
        case: name of the case, ``None`` for values of the whole job.
        object: 1-based label, ``None`` for values of the whole case.
        modality, ndim: of the case (``ndim`` 2 or 3).
        protocol: ``strict`` or ``cvpr24`` where the protocol decides the value.
        phase: a word of ``PHASES``, a model part of ``PARTS`` for params and flops, or ``None`` for the whole.
        repeat: 0-based repeat of a timing, or the step of a training curve.
        status, reason: what happened; a reason accompanies every status but ``ok``.
        detail: JSON text with more (operators not counted, limits read back …).
    """

    metric: str
    value: float | None = None
    case: str | None = None
    object: int | None = None
    modality: str | None = None
    ndim: int | None = None
    protocol: str | None = None
    phase: str | None = None
    repeat: int | None = None
    status: Status = "ok"
    reason: str | None = None
    detail: str | None = None

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"unknown metric {self.metric!r}; known: {', '.join(METRICS)}")
        if self.status != "ok" and not self.reason:
            raise ValueError(f"a record with status {self.status!r} needs a reason")

    @property
    def unit(self) -> str:
        return METRICS[self.metric].unit

    @property
    def direction(self) -> Direction:
        return METRICS[self.metric].direction
