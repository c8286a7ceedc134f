"""What is minimised: Dice + BCE on the mask and MSE on the predicted IoU, or the distance to a teacher's embedding.

The terms of the mask are taken at the decoder's own resolution (256 x 256 logits), per prompt, in float32, and
averaged.  LiteMedSAM and its descendants add them 1:1:1; Rep-MedSAM's code adds their squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from harness.errors import BenchError
from harness.recipe import MaskLoss

DICE_SMOOTHING = 1e-5
PLAIN_SUM = MaskLoss()


@dataclass(frozen=True)
class LossTerms:
    """The three terms (0-d tensors) of one batch, neither weighted nor squared, and how ``total`` combines them."""

    dice: Tensor
    bce: Tensor
    iou: Tensor
    loss: MaskLoss = PLAIN_SUM

    @property
    def total(self) -> Tensor:
        """``Σ weight · term``, or ``Σ weight · term²``.

        A term of weight 0 is left out, so that what it alone teaches gets no gradient, instead of one of zeros that
        weight decay would act beside.
        """
        weighted = ((self.loss.dice, self.dice), (self.loss.bce, self.bce), (self.loss.iou, self.iou))
        terms = [weight * (term.square() if self.loss.squared else term) for weight, term in weighted if weight]
        return sum(terms[1:], terms[0])


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


def objective(logits: Tensor, predicted_iou: Tensor, truth: Tensor, loss: MaskLoss = PLAIN_SUM) -> LossTerms:
    """Dice + binary cross-entropy (mean over pixels) + MSE of the predicted IoU against ``mask_iou``.

    Args:
        logits: (N,1,H,W), any floating type.
        predicted_iou: (N,1).
        truth: (N,1,H,W), 0 or 1.
        loss: weights of the terms in the total, and whether they are squared first.
    """
    logits, predicted_iou, truth = logits.float(), predicted_iou.float(), truth.float()
    return LossTerms(
        dice=dice_loss(logits, truth),
        bce=functional.binary_cross_entropy_with_logits(logits, truth),
        iou=functional.mse_loss(predicted_iou, mask_iou(logits, truth)),
        loss=loss,
    )


def imitation_loss(student: Tensor, teacher: Tensor, kind: Literal["mse", "l1"]) -> Tensor:
    """Mean over all elements of the squared (Rep-MedSAM, section 2.3, eq. 1) or absolute (Swin-LiteMedSAM, table 3)
    difference of two embeddings; 0-d, float32.

    Args:
        student: (B,C,g,g), any floating type.
        teacher: of the same shape.
        kind: ``mse`` or ``l1``.

    Raises:
        BenchError: the shapes differ.
    """
    if student.shape != teacher.shape:
        shapes = (" x ".join(map(str, tensor.shape[1:])) for tensor in (student, teacher))
        raise BenchError(
            "The student's embedding of an image is {} and the teacher's {}: name a `teacher` in the recipe whose "
            "embedding has the student's shape.".format(*shapes)
        )
    distance = functional.mse_loss if kind == "mse" else functional.l1_loss
    return distance(student.float(), teacher.float())
