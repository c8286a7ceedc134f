from __future__ import annotations

import math

import pytest
import torch

from harness.training.losses import dice_loss, mask_iou, objective

LN3 = math.log(3)  # sigmoid(ln 3) = 0.75, sigmoid(-ln 3) = 0.25


def grid(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, 2, 2)


def test_dice_has_the_squared_denominator() -> None:
    # overlap 0.75 + 0.75, sizes 3 * 0.5625 + 0.0625 and 2: 1 - 3 / 3.75
    loss = dice_loss(grid(LN3, LN3, LN3, -LN3), grid(1, 1, 0, 0))
    assert loss.item() == pytest.approx(1 - 3 / 3.75, abs=1e-5)


def test_dice_of_a_perfect_mask_is_nearly_zero_and_of_a_disjoint_one_nearly_one() -> None:
    truth = grid(1, 1, 0, 0)
    assert dice_loss(grid(50, 50, -50, -50), truth).item() == pytest.approx(0, abs=1e-5)
    assert dice_loss(grid(-50, -50, 50, 50), truth).item() == pytest.approx(1, abs=1e-5)


def test_dice_is_averaged_over_masks_not_over_their_pixels() -> None:
    logits = torch.cat([grid(50, -50, -50, -50), grid(-50, -50, 50, 50)])
    truth = torch.cat([grid(1, 0, 0, 0), grid(1, 1, 0, 0)])
    assert dice_loss(logits, truth).item() == pytest.approx(0.5, abs=1e-5)


def test_iou_target_thresholds_strictly_above_one_half() -> None:
    # logit 0 is sigmoid 0.5 and does not belong to the mask: prediction {0, 1}, truth {0, 2, 3}
    assert mask_iou(grid(1, 2, 0, -1), grid(1, 0, 1, 1)).item() == pytest.approx(1 / 4)


def test_iou_of_two_empty_masks_is_one() -> None:
    assert mask_iou(grid(-1, -1, -1, -1), grid(0, 0, 0, 0)).item() == 1


def test_total_is_the_unweighted_sum_of_the_three_terms() -> None:
    terms = objective(grid(LN3, LN3, LN3, -LN3), torch.tensor([[0.5]]), grid(1, 1, 0, 0))
    bce = -(3 * math.log(0.75) + math.log(0.25)) / 4
    assert terms.bce.item() == pytest.approx(bce, abs=1e-6)
    assert terms.iou.item() == pytest.approx((0.5 - 2 / 3) ** 2, abs=1e-6)
    assert terms.total.item() == pytest.approx(1 - 3 / 3.75 + bce + (0.5 - 2 / 3) ** 2, abs=1e-5)


def test_the_predicted_iou_teaches_the_iou_head_only() -> None:
    logits = grid(1, 2, 0, -1).requires_grad_()
    predicted = torch.tensor([[0.5]], requires_grad=True)
    (gradient,) = torch.autograd.grad(objective(logits, predicted, grid(1, 0, 1, 1)).iou, predicted)
    assert gradient.item() == pytest.approx(2 * (0.5 - 0.25))
    assert not objective(logits, predicted.detach(), grid(1, 0, 1, 1)).iou.requires_grad


def test_half_precision_input_is_computed_in_single_precision() -> None:
    terms = objective(grid(1, 2, 0, -1).bfloat16(), torch.tensor([[0.5]]).bfloat16(), grid(1, 0, 1, 1).byte())
    assert terms.total.dtype == torch.float32
