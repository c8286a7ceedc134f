"""Segmentation metrics: Dice similarity coefficient (DSC) and normalised surface distance (NSD)."""

from harness.metrics.dice import dice
from harness.metrics.score import CaseScore, protocol_spacing, score_case
from harness.metrics.surface import surface_dice

__all__ = ["CaseScore", "dice", "protocol_spacing", "score_case", "surface_dice"]
