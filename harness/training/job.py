"""The training job: recipe in, loss curve and ``model.safetensors`` out; killed at any moment, it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from harness.recipe import Stage
from harness.errors import BenchError
from harness.inference.weights import locate
from harness.jobs import JobContext, JobSpec
from harness.results import MODEL
from harness.schema import Record
from harness.training import convergence

if TYPE_CHECKING:
    from harness.training.trainer import DivergedError, StepResult, Trainer
    from variants import PromptableModel, VariantSpec

LAST_GOOD_FILE = "last-good.safetensors"
STATE_FILE = "state.pt"


def run(spec: JobSpec, context: JobContext) -> None:
    """Train the job's variant on its data set.

    Records: ``train_loss`` of every step (``repeat`` is the 1-based step, key ``step-<n>``), then ``train_steps`` and
    ``converged`` (key ``final``).  Artifact: ``model.safetensors`` with the published parameter names.

    A loss or gradient that is not finite ends the training as a result: the step, ``train_steps`` and ``converged``
    get the status ``crashed`` with the step and the batch's cases; no model is stored, but the last saved state's
    weights are, as ``last-good.safetensors``.

    Raises:
        BenchError: the variant has no parameters to train, or the data set no ground truth.
    """
    from harness.training.trainer import DivergedError

    recipe = Stage.model_validate(spec.settings)
    trainer = _trainer(spec, context, recipe)
    state = context.work / STATE_FILE
    trainer.resume(state)
    _catch_up(trainer, context)
    try:
        _train(trainer, recipe, context, state)
    except DivergedError as error:
        _record_divergence(error, trainer, state, context)
        return
    path = context.work / MODEL
    write_published(trainer.model, path)
    context.put_artifact(MODEL, path)
    _record_end(trainer, recipe, context)


def write_published(model: PromptableModel, path: Path) -> None:
    """Write the weights as safetensors under their published names; the same weights give the same bytes."""
    from safetensors.torch import save_file

    import variants

    save_file(variants.to_published(model), str(path))


def _trainer(spec: JobSpec, context: JobContext, recipe: Stage) -> Trainer:
    """The trainer at step 0: checked input first, then data, then the model."""
    from harness.data import open_dataset

    variant = _trainable(spec)
    if spec.dataset is None:
        raise BenchError(f"Training {spec.variant.name!r} needs a data set: name one in the suite's training section.")
    expected = spec.inputs.get("dataset")
    data = open_dataset(spec.dataset, context.cache, lambda _, message: context.progress(0.0, message), expected)

    import torch

    from harness.training.samples import Draw, Samples
    from harness.training.trainer import Trainer

    draw = Draw(variant.input_size, variant.preprocess, recipe.box_jitter, recipe.flips, recipe.objects)
    samples = Samples(data, draw, spec.seed)
    torch.set_num_threads(recipe.threads)  # before the model is made: the bits of some initialisers depend on it
    return Trainer(
        _initial_model(spec, context), recipe, lambda step: samples.batch(step, recipe.batch), seed=spec.seed
    )


def _trainable(spec: JobSpec) -> VariantSpec:
    import variants

    try:
        variant = variants.resolve(spec.variant.name, spec.variant.set)
    except variants.VariantError as error:
        raise BenchError(str(error)) from error
    if not variant.needs_torch:
        raise BenchError(
            f"Variant {spec.variant.name!r} has no parameters, so it cannot be trained; leave it out of the training."
        )
    return variant


def _initial_model(spec: JobSpec, context: JobContext) -> PromptableModel:
    """Drawn from the job's seed, or the given weights: where fine-tuning starts."""
    import variants

    start = locate(spec, context)
    try:
        return variants.create(spec.variant.name, checkpoint=start, seed=spec.seed, **spec.variant.set)
    except variants.VariantError as error:
        raise BenchError(str(error)) from error


def _train(trainer: Trainer, recipe: Stage, context: JobContext, state: Path) -> None:
    """The loop.  A step is in the journal before it can be in the saved state, so the journal is never behind.

    What happens between steps (validation, a schedule) belongs here: a trainer stands still between two steps.
    """
    seconds: list[float] = []
    while trainer.steps_taken < recipe.steps:
        result = trainer.step()
        _record_step(result.step, result.loss, context)
        if result.step % recipe.checkpoint_every == 0 or result.step == recipe.steps:
            trainer.save(state)
        seconds.append(result.seconds)
        context.progress(result.step / recipe.steps, _progress(trainer, recipe, result, seconds[-20:]))


def _progress(trainer: Trainer, recipe: Stage, result: StepResult, seconds: list[float]) -> str:
    """For example ``step 12/60 · loss 0.83 · 1.2 s/step · 0:58 left``; the loss is a moving average."""
    pace = median(seconds)
    left = round(pace * (recipe.steps - result.step))
    loss = convergence.smoothed(trainer.losses[-50:])
    minutes, rest = divmod(left, 60)
    return f"step {result.step}/{recipe.steps} · loss {loss:.2f} · {pace:.2g} s/step · {minutes}:{rest:02d} left"


def _record_step(step: int, loss: float, context: JobContext) -> None:
    key = f"step-{step}"
    if not context.done(key):
        context.append(key, [Record("train_loss", loss, repeat=step)])


def _catch_up(trainer: Trainer, context: JobContext) -> None:
    """Steps of the saved state that the journal does not hold (a journal lost with its machine)."""
    for step, loss in enumerate(trainer.losses, 1):
        _record_step(step, loss, context)


def _record_end(trainer: Trainer, recipe: Stage, context: JobContext) -> None:
    if context.done("final"):
        return
    verdict = convergence.judge(trainer.losses)
    detail = {
        "images_seen": trainer.steps_taken * recipe.batch,
        "loss_first": verdict.first,
        "loss_last": verdict.last,
        "reason": verdict.reason,
        "recipe": recipe.model_dump(mode="json"),
    }
    text = json.dumps(detail, sort_keys=True)
    context.append(
        "final",
        [
            Record("train_steps", float(trainer.steps_taken), detail=text),
            Record("converged", float(verdict.converged), detail=text),
        ],
    )


def _record_divergence(error: DivergedError, trainer: Trainer, state: Path, context: JobContext) -> None:
    good = _keep_last_good(trainer, state, context)
    kept = f"step {good}, stored as {LAST_GOOD_FILE}" if good else "the initial weights"
    reason = f"{error}; last good state: {kept}"
    if not context.done(f"step-{error.step}"):
        context.append(f"step-{error.step}", [Record("train_loss", repeat=error.step, status="crashed", reason=reason)])
    if not context.done("final"):
        context.append("final", [Record(m, status="crashed", reason=reason) for m in ("train_steps", "converged")])


def _keep_last_good(trainer: Trainer, state: Path, context: JobContext) -> int:
    """Store the weights of the last saved state; its step, 0 if there is none."""
    if not trainer.resume(state):
        return 0
    path = context.work / LAST_GOOD_FILE
    write_published(trainer.model, path)
    context.put_artifact(LAST_GOOD_FILE, path)
    return trainer.steps_taken
