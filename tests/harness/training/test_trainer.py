from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from harness.recipe import Stage
from harness.training.optimise import learning_rate
from harness.training.trainer import DivergedError, Trainer
from tests.harness.training.toys import ToyData, image_case, toy_trainer

RECIPE = Stage(steps=8, batch=2, learning_rate=1e-2, threads=1)
COMPILED = RECIPE.model_copy(update={"compile": True})


def run(trainer: Trainer, until: int) -> Trainer:
    while trainer.steps_taken < until:
        trainer.step()
    return trainer


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    assert isinstance(trainer.model, torch.nn.Module)
    return trainer.model.state_dict()


def assert_same(one: Trainer, other: Trainer) -> None:
    assert one.losses == other.losses
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(other)[name]), name


def test_the_same_seed_gives_the_same_losses_and_weights_bit_for_bit() -> None:
    assert_same(run(toy_trainer(RECIPE), 8), run(toy_trainer(RECIPE), 8))


def test_another_seed_gives_another_run() -> None:
    assert run(toy_trainer(RECIPE), 2).losses != run(toy_trainer(RECIPE, seed=4), 2).losses


@pytest.mark.parametrize("stop", [1, 5, 8])
def test_a_run_resumed_from_its_state_equals_the_undisturbed_one_bit_for_bit(tmp_path: Path, stop: int) -> None:
    run(toy_trainer(RECIPE), stop).save(tmp_path / "state.pt")
    torch.rand(17)  # whatever else uses the global generator does not matter
    resumed = toy_trainer(RECIPE)
    assert resumed.resume(tmp_path / "state.pt")
    assert resumed.steps_taken == stop
    assert_same(run(resumed, 8), run(toy_trainer(RECIPE), 8))


def test_the_state_includes_running_statistics(tmp_path: Path) -> None:
    run(toy_trainer(RECIPE), 2).save(tmp_path / "state.pt")
    resumed = toy_trainer(RECIPE)
    resumed.resume(tmp_path / "state.pt")
    assert weights(resumed)["image_encoder.1.num_batches_tracked"] == 2


def test_saving_replaces_the_old_state_and_leaves_nothing_else(tmp_path: Path) -> None:
    trainer = run(toy_trainer(RECIPE), 1)
    trainer.save(tmp_path / "state.pt")
    run(trainer, 2).save(tmp_path / "state.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]
    resumed = toy_trainer(RECIPE)
    resumed.resume(tmp_path / "state.pt")
    assert resumed.steps_taken == 2


def test_without_a_state_or_with_a_damaged_one_training_starts_at_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    trainer = toy_trainer(RECIPE)
    assert not trainer.resume(path)
    run(toy_trainer(RECIPE), 1).save(path)
    whole = path.read_bytes()
    for damaged in (b"", b"not a state", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        assert not trainer.resume(path)
    assert trainer.steps_taken == 0


def test_the_loss_falls_on_one_case() -> None:
    case = image_case()
    recipe = Stage(steps=60, batch=2, learning_rate=3e-2, flips=0, threads=1)
    losses = run(toy_trainer(recipe, ToyData({case.name: case})), 60).losses
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_a_step_reports_its_terms_and_cases() -> None:
    result = toy_trainer(RECIPE).step()
    assert result.step == 1
    assert list(result.parts) == ["dice", "bce", "iou"]
    assert result.loss == pytest.approx(sum(result.parts.values()), rel=1e-5)
    assert result.rate == RECIPE.learning_rate
    assert len(result.cases) == 2
    assert result.seconds > 0


def test_bfloat16_autocast_stays_near_single_precision() -> None:
    exact = run(toy_trainer(RECIPE), 4).losses
    mixed = run(toy_trainer(RECIPE.model_copy(update={"bf16": True})), 4).losses
    assert mixed != exact
    assert mixed == pytest.approx(exact, rel=0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # of torch's own use
def test_a_compiled_stage_learns_what_the_eager_one_learns() -> None:
    eager, compiled = (run(toy_trainer(changed, dropout=0.0), 4).losses for changed in (RECIPE, COMPILED))
    assert compiled == pytest.approx(eager, rel=1e-3)


def test_a_loss_that_is_not_finite_stops_with_step_and_cases_before_it_harms_the_weights() -> None:
    trainer = run(toy_trainer(RECIPE.model_copy(update={"batch": 1})), 1)
    with torch.no_grad():
        trainer.model.mask_decoder.bias.fill_(torch.nan)  # type: ignore[attr-defined]
    before = {name: t.clone() for name, t in weights(trainer).items() if "running" not in name}
    with pytest.raises(DivergedError, match=r"the loss is nan at step 2; cases of the batch: .*DBox_") as caught:
        trainer.step()
    assert (caught.value.step, trainer.steps_taken) == (2, 1)
    assert torch.equal(weights(trainer)["mask_decoder.weight"], before["mask_decoder.weight"])


def test_a_gradient_that_is_not_finite_stops_before_the_optimiser_step(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = toy_trainer(RECIPE)
    weight = trainer.model.mask_decoder.weight  # type: ignore[attr-defined]
    weight.register_hook(lambda gradient: gradient * torch.inf)
    before = weight.detach().clone()
    with pytest.raises(DivergedError, match="the gradient is not finite at step 1"):
        trainer.step()
    assert torch.equal(weight, before)


def test_a_long_gradient_is_shortened_to_the_largest_norm_and_a_short_one_left_alone() -> None:
    def norm_of(clip: float | None) -> float:
        trainer = toy_trainer(RECIPE.model_copy(update={"clip": clip}))
        trainer.step()
        gradients = [p.grad for p in trainer._module.parameters() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    free = norm_of(None)
    assert norm_of(free / 3) == pytest.approx(free / 3, rel=1e-4)
    assert norm_of(free * 3) == pytest.approx(free, rel=1e-6)


def test_several_objects_of_an_image_train_as_one_step_and_resume_bit_for_bit(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"objects": 3, "clip": 1.0})
    run(toy_trainer(recipe), 4).save(tmp_path / "state.pt")
    resumed = toy_trainer(recipe)
    resumed.resume(tmp_path / "state.pt")
    assert_same(run(resumed, 8), run(toy_trainer(recipe), 8))
    assert run(toy_trainer(recipe), 1).losses != run(toy_trainer(RECIPE), 1).losses


def test_the_process_keeps_its_own_determinism_setting() -> None:
    run(toy_trainer(RECIPE), 1)
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_learning_rate_warms_up_and_falls_as_the_recipe_says() -> None:
    recipe = Stage(steps=10, learning_rate=1.0, warmup=2, schedule="linear")
    rates = [learning_rate(recipe, index, 10) for index in range(10)]
    assert rates[:3] == pytest.approx([0.5, 0.9, 0.8])
    assert rates[-1] == pytest.approx(0.1)
    constant = Stage(steps=10, learning_rate=1.0)
    assert {learning_rate(constant, index, 10) for index in range(10)} == {1.0}


def test_the_optimiser_uses_the_recipes_learning_rate() -> None:
    still = toy_trainer(RECIPE.model_copy(update={"warmup": 10**12, "weight_decay": 0.0}))
    before = still.model.mask_decoder.weight.detach().clone()  # type: ignore[attr-defined]
    still.step()
    assert torch.allclose(still.model.mask_decoder.weight, before, atol=1e-9)  # type: ignore[attr-defined]
