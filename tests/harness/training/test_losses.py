from __future__ import annotations

import math
from typing import Literal

import pytest
import torch

from harness.errors import BenchError
from harness.recipe import MaskLoss
from harness.training.losses import LossTerms, dice_loss, imitation_loss, mask_iou, objective

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


def terms(loss: MaskLoss) -> LossTerms:
    dice, bce, iou = (torch.tensor(value) for value in (0.5, 3.0, 0.25))
    return LossTerms(dice, bce, iou, loss)


@pytest.mark.parametrize(
    ("loss", "total"),
    [
        (MaskLoss(), 0.5 + 3 + 0.25),
        (MaskLoss(dice=2, bce=0.5, iou=4), 1 + 1.5 + 1),
        (MaskLoss(squared=True), 0.25 + 9 + 0.0625),
        (MaskLoss(dice=2, bce=0.5, iou=4, squared=True), 0.5 + 4.5 + 0.25),  # 2 * 0.5^2, not (2 * 0.5)^2
        (MaskLoss(iou=0), 0.5 + 3),
    ],
)
def test_the_total_weights_the_terms_which_may_be_squared_first(loss: MaskLoss, total: float) -> None:
    assert terms(loss).total.item() == total  # all of them exact in binary


def test_the_terms_are_told_as_they_are_whatever_their_weights() -> None:
    given = (grid(LN3, LN3, LN3, -LN3), torch.tensor([[0.5]]), grid(1, 1, 0, 0))
    plain, weighted = objective(*given), objective(*given, MaskLoss(dice=3, bce=0, iou=7, squared=True))
    assert (plain.dice, plain.bce, plain.iou) == (weighted.dice, weighted.bce, weighted.iou)
    dice, iou = 1 - 3 / 3.75, (0.5 - 2 / 3) ** 2
    assert weighted.total.item() == pytest.approx(3 * dice**2 + 7 * iou**2, abs=1e-5)


def test_the_usual_total_is_the_plain_sum_to_the_last_bit() -> None:
    drawn = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 16, 16, generator=drawn).requires_grad_()
    found = objective(logits, torch.rand(3, 1, generator=drawn), (torch.rand(3, 1, 16, 16, generator=drawn) > 0.5))
    plain = found.dice + found.bce + found.iou
    assert torch.equal(found.total, plain)
    assert torch.equal(*(torch.autograd.grad(t, logits, retain_graph=True)[0] for t in (found.total, plain)))


def test_a_term_of_weight_zero_teaches_nothing_not_even_zeros() -> None:
    logits, predicted = grid(1, 2, 0, -1).requires_grad_(), torch.tensor([[0.5]], requires_grad=True)
    torch.autograd.backward(objective(logits, predicted, grid(1, 0, 1, 1), MaskLoss(iou=0)).total)
    assert logits.grad is not None
    assert predicted.grad is None


def test_weights_that_are_all_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="give `dice`, `bce` or `iou` a weight above 0"):
        MaskLoss(dice=0, bce=0, iou=0)


@pytest.mark.parametrize(("kind", "distance"), [("mse", (1 + 4 + 0 + 9) / 4), ("l1", (1 + 2 + 0 + 3) / 4)])
def test_imitation_is_the_mean_distance_of_all_elements(kind: Literal["mse", "l1"], distance: float) -> None:
    assert imitation_loss(grid(1, 2, 3, 4), grid(2, 0, 3, 7), kind).item() == distance


@pytest.mark.parametrize("kind", ["mse", "l1"])
def test_imitation_is_computed_in_single_precision(kind: Literal["mse", "l1"]) -> None:
    student = grid(1, 2, 3, 4).bfloat16().requires_grad_()
    loss = imitation_loss(student, grid(1.001, 2, 3, 4), kind)  # 1.001 is 1 in bfloat16
    assert loss.dtype == torch.float32
    assert loss.item() > 0


def test_embeddings_of_two_shapes_cannot_imitate_each_other() -> None:
    with pytest.raises(BenchError, match="student's embedding of an image is 8 x 4 x 4 and the teacher's 8 x 1 x 1"):
        imitation_loss(torch.zeros(2, 8, 4, 4), torch.zeros(2, 8, 1, 1), "mse")
