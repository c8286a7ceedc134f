"""Segmentation metrics: overlap (DSC, volume error, box IoU) and surface distances (NSD, HD95), cases in parallel."""

from harness.metrics.cases import CaseResult, LabelMaps, score_cases
from harness.metrics.dice import box_iou, dice, volume_error
from harness.metrics.score import CaseScore, farthest, protocol_spacing, score_case
from harness.metrics.surface import hd95, surface_dice
from harness.schema import METRICS_OF

__all__ = [
    "METRICS_OF",
    "CaseResult",
    "CaseScore",
    "LabelMaps",
    "box_iou",
    "dice",
    "farthest",
    "hd95",
    "protocol_spacing",
    "score_case",
    "score_cases",
    "surface_dice",
    "volume_error",
]
