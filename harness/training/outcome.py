"""What a training job writes down: a record a step and a judgement, and how it ended."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from harness.jobs import JobContext
from harness.recipe import Stage
from harness.schema import Record
from harness.training import convergence

if TYPE_CHECKING:
    from harness.training.trainer import DivergedError, Judgement, StepResult, Trainer
    from variants import PromptableModel

LAST_GOOD_FILE = "last-good.safetensors"


def write_published(model: PromptableModel, path: Path) -> None:
    """Write the weights as safetensors under their published names; the same weights give the same bytes."""
    from safetensors.torch import save_file

    import variants

    save_file(variants.to_published(model), str(path))


def record_step(step: int, loss: float, context: JobContext, rate: float | None = None) -> None:
    """``train_loss`` of a step and the learning rate it was taken with."""
    key = f"step-{step}"
    if context.done(key):
        return
    rates = [Record("learning_rate", rate, repeat=step)] if rate is not None else []
    context.append(key, [Record("train_loss", loss, repeat=step), *rates])


def validation_of(judgement: Judgement) -> dict[str, float]:
    """Metric → value of a judgement; a distillation has no DSC."""
    dsc = {} if judgement.dsc is None else {"validation_dsc": judgement.dsc}
    return {"validation_loss": judgement.loss, **dsc}


def record_judgement(judgement: Judgement, context: JobContext) -> None:
    """Loss and DSC on the cases that are kept out of training, after a step."""
    key = f"judged-{judgement.step}"
    if context.done(key):
        return
    context.append(
        key, [Record(name, value, repeat=judgement.step) for name, value in validation_of(judgement).items()]
    )


def catch_up(trainer: Trainer, context: JobContext) -> None:
    """Steps and judgements of the saved state that the journal does not hold (a journal lost with its machine)."""
    for step, loss in enumerate(trainer.losses, 1):
        record_step(step, loss, context, trainer.history.rates[step - 1])
        for judgement in trainer.history.judgements:
            if judgement.step == step:
                record_judgement(judgement, context)


def record_end(trainer: Trainer, stage: Stage, context: JobContext, facts: dict[str, Any]) -> None:
    """``train_steps`` and ``converged``, with what explains them."""
    if context.done("final"):
        return
    verdict = convergence.judge(trainer.losses)
    best = trainer.best_judgement()
    detail = {
        "images_seen": trainer.steps_taken * stage.batch,
        "loss_first": verdict.first,
        "loss_last": verdict.last,
        "reason": verdict.reason,
        "stage": stage.stage,
        "recipe": stage.model_dump(mode="json"),
        "validation_best": None if best is None else {"step": best.step, "loss": best.loss, "dsc": best.dsc},
        **facts,
    }
    text = json.dumps(detail, sort_keys=True)
    context.append(
        "final",
        [
            Record("train_steps", float(trainer.steps_taken), detail=text),
            Record("converged", float(verdict.converged), detail=text),
        ],
    )


def record_divergence(error: DivergedError, trainer: Trainer, state: Path, context: JobContext) -> None:
    """The step that was not finite, and that there is no result, as records with the reason."""
    good = _keep_last_good(trainer, state, context)
    kept = f"step {good}, stored as {LAST_GOOD_FILE}" if good else "the initial weights"
    reason = f"{error}; last good state: {kept}"
    if not context.done(f"step-{error.step}"):
        context.append(f"step-{error.step}", [Record("train_loss", repeat=error.step, status="crashed", reason=reason)])
    if not context.done("final"):
        context.append("final", [Record(m, status="crashed", reason=reason) for m in ("train_steps", "converged")])


def progress(trainer: Trainer, stage: Stage, result: StepResult, seconds: list[float]) -> str:
    """For example ``step 12/60 · loss 0.83 · lr 5e-4 · 3.2 images/s · 0:58 left``; the loss is a moving average."""
    pace = median(seconds)
    minutes, rest = divmod(round(pace * (trainer.steps - result.step)), 60)
    loss = convergence.smoothed(trainer.losses[-50:])
    parts = [
        f"step {result.step}/{trainer.steps}",
        f"loss {loss:.2f}",
        *([f"validation {trainer.history.judgements[-1].loss:.2f}"] if trainer.history.judgements else []),
        f"lr {result.rate:.1e}".replace("e-0", "e-"),
        f"{stage.batch / pace:.2g} images/s",
        f"{minutes}:{rest:02d} left",
    ]
    return " · ".join(parts)


def _keep_last_good(trainer: Trainer, state: Path, context: JobContext) -> int:
    """Store the weights of the last saved state; its step, 0 if there is none."""
    if not trainer.resume(state):
        return 0
    path = context.work / LAST_GOOD_FILE
    write_published(trainer.model, path)
    context.put_artifact(LAST_GOOD_FILE, path)
    return trainer.steps_taken
