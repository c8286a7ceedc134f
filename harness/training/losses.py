"""The training objective of LiteMedSAM and its descendants: Dice + BCE on the mask, MSE on the predicted IoU, 1:1:1.

All terms are taken at the decoder's own resolution (256 x 256 logits), per prompt, in float32, and averaged.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

DICE_SMOOTHING = 1e-5


@dataclass(frozen=True)
class LossTerms:
    """The three terms (0-d tensors) of one batch; ``total`` is their unweighted sum."""

    dice: Tensor
    bce: Tensor
    iou: Tensor

    @property
    def total(self) -> Tensor:
        return self.dice + self.bce + self.iou


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Soft Dice loss with squared denominator, the form MONAI calls ``sigmoid=True, squared_pred=True``.

    Per mask, with p = sigmoid(logits) and t the truth, sums over pixels:
    ``1 - (2 Σ p·t + ε) / (Σ p² + Σ t² + ε)``, ε = 1e-5; then the mean over masks (Milletari et al. 2016, V-Net, eq. 3).

    Args:
        logits: (N,1,H,W).
        truth: (N,1,H,W), 0 or 1.
    """
    probability = logits.sigmoid().flatten(1)
    target = truth.flatten(1)
    overlap = (probability * target).sum(1)
    size = probability.square().sum(1) + target.square().sum(1)
    return (1 - (2 * overlap + DICE_SMOOTHING) / (size + DICE_SMOOTHING)).mean()


def mask_iou(logits: Tensor, truth: Tensor) -> Tensor:
    """IoU of the thresholded prediction (sigmoid > 0.5, that is logit > 0) with the truth: (N,1), without gradient.

    Two empty masks agree: 1.
    """
    predicted = logits.detach().flatten(1) > 0
    target = truth.flatten(1) > 0.5
    overlap = (predicted & target).sum(1).float()
    union = (predicted | target).sum(1).float()
    return torch.where(union > 0, overlap / union.clamp(min=1), torch.ones_like(union))[:, None]


def objective(logits: Tensor, predicted_iou: Tensor, truth: Tensor) -> LossTerms:
    """Dice + binary cross-entropy (mean over pixels) + MSE of the predicted IoU against ``mask_iou``.

    Args:
        logits: (N,1,H,W), any floating type.
        predicted_iou: (N,1).
        truth: (N,1,H,W), 0 or 1.
    """
    logits, predicted_iou, truth = logits.float(), predicted_iou.float(), truth.float()
    return LossTerms(
        dice=dice_loss(logits, truth),
        bce=functional.binary_cross_entropy_with_logits(logits, truth),
        iou=functional.mse_loss(predicted_iou, mask_iou(logits, truth)),
    )
