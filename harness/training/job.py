"""The training job: a stage of a recipe in, curves and ``model.safetensors`` out; killed at any moment, it goes on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import tensorboard
from harness.jobs import JobContext, JobSpec
from harness.recipe import Stage
from harness.results import MODEL
from harness.training import outcome
from harness.training.hints import loader_hint
from harness.training.outcome import LAST_GOOD_FILE, write_published

if TYPE_CHECKING:
    from harness.training.setup import Session
    from harness.training.trainer import Trainer

STATE_FILE = "state.pt"

__all__ = ["LAST_GOOD_FILE", "STATE_FILE", "run", "write_published"]


def run(spec: JobSpec, context: JobContext) -> None:
    """Take the stage's steps with the job's variant on its data set.

    Records: ``train_loss`` and ``learning_rate`` of every step (``repeat`` is the 1-based step, key ``step-<n>``),
    ``validation_loss`` and ``validation_dsc`` after the steps that are judged (key ``judged-<n>``), then
    ``train_steps`` and ``converged`` (key ``final``).  Artifact: ``model.safetensors`` with the published parameter
    names.

    A loss or gradient that is not finite ends the training as a result: the step, ``train_steps`` and ``converged``
    get the status ``crashed`` with the step and the batch's cases; no model is stored, but the last saved state's
    weights are, as ``last-good.safetensors``.

    Raises:
        BenchError: the variant has no parameters to train, the data set no ground truth, or the teacher does not fit.
    """
    from harness.training.processes import failing_together

    stage = Stage.model_validate(spec.settings)
    with failing_together():
        _run(spec, context, stage)


def _run(spec: JobSpec, context: JobContext, stage: Stage) -> None:
    from harness.training.setup import session
    from harness.training.trainer import DivergedError

    made = session(spec, context, stage)
    trainer, state = made.trainer, context.work / STATE_FILE
    with made.loader, tensorboard.watcher(spec, context.records()) as watch:
        trainer.resume(state)
        outcome.catch_up(trainer, context)
        try:
            facts = _train(made, stage, context, state, watch)
        except DivergedError as error:
            outcome.record_divergence(error, trainer, state, context)
            return
    trainer.finish()
    path = context.work / MODEL
    write_published(trainer.model, path)
    context.put_artifact(MODEL, path)
    outcome.record_end(trainer, stage, context, facts)


def _train(made: Session, stage: Stage, context: JobContext, state: Path, watch: tensorboard.Watcher) -> dict[str, Any]:
    """The loop; returns what is worth knowing of how it went.

    A step is in the journal before it can be in the saved state, so the journal is never behind.
    """
    trainer, seconds = made.trainer, list[float]()
    begun = time.perf_counter()
    while trainer.steps_taken < trainer.steps and not _ended_early(trainer, stage):
        result = trainer.step()
        outcome.record_step(result.step, result.loss, context, result.rate)
        watch.step(result.step, {"train_loss": result.loss, "learning_rate": result.rate, **result.parts})
        last = result.step == trainer.steps
        if stage.validation is not None and _is_due(result.step, made, stage, last):
            judgement = trainer.judge(made.judged())
            outcome.record_judgement(judgement, context)
            watch.step(result.step, outcome.validation_of(judgement))
        if result.step % stage.checkpoint_every == 0 or last or _ended_early(trainer, stage):
            trainer.save(state)
        seconds.append(result.seconds)
        context.progress(result.step / trainer.steps, outcome.progress(trainer, stage, result, seconds[-20:]))
    facts: dict[str, Any] = {"ended_early": trainer.steps_taken < trainer.steps}
    hint = loader_hint(made.loader.waited, time.perf_counter() - begun, stage.workers)
    if hint:
        context.progress(1.0, hint)
        facts["hint"] = hint
    if made.store is not None:
        facts["embeddings"] = {"stored": len(made.store), "rebuilt": made.store.rebuilt, "notes": made.store.notes}
    return facts


def _is_due(step: int, made: Session, stage: Stage, last: bool) -> bool:
    every = stage.validation.every if stage.validation else None
    return last or step % (every or made.epoch_steps) == 0


def _ended_early(trainer: Trainer, stage: Stage) -> bool:
    """Whether the judgements stopped improving for as long as the stage waits."""
    patience = stage.validation.patience if stage.validation else None
    return patience is not None and trainer.waited_in_vain() >= patience
