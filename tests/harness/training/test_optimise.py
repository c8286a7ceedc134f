from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import nn

import variants
from harness.recipe import Plateau, Stage, Validation
from harness.training.optimise import averaged, clipped, epoch_means, plateau_factor
from harness.training.trainer import Trainer
from tests.harness.training.test_trainer import assert_same, run, weights
from tests.harness.training.toys import toy_trainer

STAGE = Stage(steps=12, batch=2, learning_rate=1e-2, threads=1)


def test_a_plateau_lowers_the_rate_after_more_epochs_than_its_patience_without_improvement() -> None:
    rule = Plateau(factor=0.5, patience=2)
    assert plateau_factor([], rule) == 1.0
    assert plateau_factor([1.0, 1.0, 1.0], rule) == 1.0, "two epochs in vain are waited for"
    assert plateau_factor([1.0, 1.0, 1.0, 1.0], rule) == 0.5
    assert plateau_factor([1.0, 1.0, 1.0, 0.9], rule) == 1.0, "an improvement ends the waiting"
    assert plateau_factor([1.0] * 7, rule) == 0.25


def test_an_improvement_below_a_ten_thousandth_is_none() -> None:
    rule = Plateau(factor=0.5, patience=0)
    assert plateau_factor([1.0, 1.0 - 0.9e-4], rule) == 0.5
    assert plateau_factor([1.0, 1.0 - 1.1e-4], rule) == 1.0


def test_only_whole_epochs_have_a_mean() -> None:
    assert epoch_means([1.0, 3.0, 2.0, 4.0, 9.0], 2) == [2.0, 3.0]


def gradient(length: float) -> nn.Parameter:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([0.6, 0.8]) * length
    return parameter


def test_the_percentile_of_all_norms_so_far_is_the_largest_one() -> None:
    stage = Stage(steps=1, clip_percentile=50)
    norms: list[float] = []
    lengths = []
    for length in (1.0, 3.0, 2.0, 10.0):
        parameter = gradient(length)
        assert clipped([parameter], stage, norms)
        assert parameter.grad is not None
        lengths.append(float(parameter.grad.norm()))
    assert norms == pytest.approx([1.0, 3.0, 2.0, 10.0]), "norms are kept as they were before shortening"
    assert lengths == pytest.approx([1.0, 2.0, 2.0, 2.5], rel=1e-4), "medians of 1; 1 3; 1 3 2; 1 3 2 10"


def test_a_gradient_that_is_not_finite_is_told_and_not_remembered() -> None:
    norms: list[float] = []
    assert not clipped([gradient(float("inf"))], STAGE, norms)
    assert norms == []


def changed(**fields: object) -> Stage:
    return Stage.model_validate(STAGE.model_dump() | fields)


@pytest.mark.parametrize(
    "stage",
    [
        changed(schedule="plateau", plateau={"factor": 0.5, "patience": 0}),
        changed(clip_percentile=30),
        changed(ema=0.8),
        changed(micro_batch=1),
        changed(freeze=["image_encoder"]),
        changed(freeze=["image_encoder"], batch_norm="batch"),
        changed(batch_norm="running"),
        changed(loss={"squared": True, "iou": 0.5}),
    ],
    ids=["plateau", "percentile", "ema", "micro-batches", "frozen", "batch-statistics", "running", "squared"],
)
def test_whatever_the_stage_a_resumed_run_equals_the_undisturbed_one_bit_for_bit(stage: Stage, tmp_path: Path) -> None:
    whole = run(toy_trainer(stage), 12)
    assert whole.losses != run(toy_trainer(STAGE), 12).losses or stage.ema, "the stage does something"
    run(toy_trainer(stage), 5).save(tmp_path / "state.pt")
    resumed = toy_trainer(stage)
    assert resumed.resume(tmp_path / "state.pt")
    assert_same(run(resumed, 12), whole)
    for name, tensor in whole.result().items():
        assert torch.equal(resumed.result()[name], tensor), name


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    """Without batch statistics and dropout, which see a part alone, the order of sums is all that differs."""

    def trained(**fields: object) -> Trainer:
        return run(toy_trainer(changed(objects=3, batch_norm="running", **fields), dropout=0.0), 3)

    whole, pieces = trained(), trained(micro_batch=1)
    assert pieces.losses == pytest.approx(whole.losses, rel=1e-5)
    assert pieces.history.norms == pytest.approx(whole.history.norms, rel=1e-4)


def test_frozen_parts_keep_their_weights_and_running_statistics() -> None:
    trainer = toy_trainer(changed(freeze=["image_encoder"]))
    before = {name: tensor.clone() for name, tensor in weights(trainer).items()}
    run(trainer, 3)
    moved = {name.split(".")[0] for name, tensor in weights(trainer).items() if not torch.equal(tensor, before[name])}
    assert moved == {"prompt_encoder", "mask_decoder", "iou_head"}


def moved_buffers(stage: Stage) -> set[str]:
    trainer = toy_trainer(stage)
    before = {name: tensor.clone() for name, tensor in weights(trainer).items()}
    run(trainer, 2)
    return {name for name, tensor in weights(trainer).items() if not torch.equal(tensor, before[name])}


def test_a_frozen_part_may_follow_the_statistics_of_its_batches_all_the_same() -> None:
    moved = moved_buffers(changed(freeze=["image_encoder"], batch_norm="batch"))
    of_encoder = {name.split(".")[-1] for name in moved if name.startswith("image_encoder")}
    assert of_encoder == {"running_mean", "running_var", "num_batches_tracked"}


def test_by_running_statistics_everything_learns_but_they() -> None:
    moved = moved_buffers(changed(batch_norm="running"))
    kinds = {name.split(".")[-1] for name in moved if name.startswith("image_encoder")}
    assert kinds == {"weight", "bias"}


def test_the_average_of_the_weights_is_the_result_and_trails_the_weights() -> None:
    trainer = toy_trainer(changed(ema=0.5))
    name = "mask_decoder.weight"
    expected = None
    for step in range(1, 4):
        run(trainer, step)
        now = weights(trainer)[name].clone()
        expected = now if expected is None else 0.5 * expected + 0.5 * now
    assert torch.allclose(trainer.result()[name], expected, atol=1e-6)
    trainer.finish()
    assert torch.equal(weights(trainer)[name], trainer.result()[name])


def test_tables_of_indices_are_not_averaged() -> None:
    model = variants.create("litemedsam_tiny", seed=0)
    average = averaged(cast(nn.Module, model), 0.9)
    for _ in range(3):
        average.update_parameters(cast(nn.Module, model))
    kept = dict(average.module.named_buffers())
    tables = {name: b for name, b in cast(nn.Module, model).named_buffers() if not b.is_floating_point()}
    assert tables
    assert all(torch.equal(kept[name], table) for name, table in tables.items())


def test_the_best_judged_state_is_what_a_stage_gives() -> None:
    trainer = toy_trainer(changed(validation=Validation().model_dump()))
    batches = [trainer._batches(100)]
    run(trainer, 2)
    good = trainer.judge(batches)
    kept = {name: tensor.clone() for name, tensor in weights(trainer).items()}
    with torch.no_grad():
        trainer.model.mask_decoder.bias.add_(50)  # type: ignore[attr-defined]  # everything is object now
    bad = trainer.judge(batches)
    assert bad.loss > good.loss
    assert trainer.waited_in_vain() == 1
    assert trainer.best_judgement() == good
    trainer.finish()
    assert all(torch.equal(weights(trainer)[name], tensor) for name, tensor in kept.items())


def test_a_judgement_changes_neither_weights_nor_what_comes_after_it() -> None:
    stage = changed(validation=Validation().model_dump())
    judged, alone = toy_trainer(stage), toy_trainer(stage)
    for step in range(1, 5):
        run(judged, step).judge([judged._batches(50)])
    run(alone, 4)
    assert_same(judged, alone)


def test_a_judgement_is_in_evaluation_mode_and_says_loss_and_dsc() -> None:
    trainer = run(toy_trainer(changed(validation=Validation().model_dump())), 3)
    batches = [trainer._batches(index) for index in range(3)]
    one, again = trainer.judge(batches), trainer.judge(batches)
    assert (one.step, one.loss, one.dsc) == (again.step, again.loss, again.dsc), "dropout is off"
    assert one.dsc is not None
    assert 0 <= one.dsc <= 1
    assert np.isfinite(one.loss)
