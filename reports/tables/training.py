"""The course of training: one row a stage, and the curves of its losses and of its learning rate.

A teacher's training is told under the name of the rows that it teaches; rows that share a teacher share its training.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports.frame import Run
from reports.runfile import JobInfo
from reports.tables.common import grouped, joined, overall_status
from reports.training import DISTIL, Training, chain, last_stages

TRAINING_COLUMNS: tuple[str, ...] = (
    "variant", "seed", "stage", "steps", "planned", "epochs", "ended_early", "converged", "first_loss", "last_loss",
    "best_step", "best_loss", "best_dsc", "hint", "note", "status", "reason",
)  # fmt: skip
CURVE_COLUMNS: tuple[str, ...] = ("variant", "seed", "stage", "start", "step", "metric", "value")
CURVES: tuple[str, ...] = ("train_loss", "validation_loss", "learning_rate")
_NAMED = 2
"""Rows that the name of a common teacher lists."""


def training(run: Run) -> pd.DataFrame:
    """One row a training job: `TRAINING_COLUMNS`; losses are means over the first and the last tenth of the steps.

    ``stage``: distil, train or finetune; ``planned``: steps, missing where the stage is as long as so many ``epochs``;
    ``best_step``, ``best_loss`` and ``best_dsc``: of the best validation; ``hint``: what held the training up;
    ``note``: training note, at the stage that gives the weights.
    """
    names = _names(run)
    final = last_stages(run.info)
    jobs = {job.digest: job for job in run.info.jobs if job.kind == "train"}
    rows = []
    for key, part in grouped(_of_trainings(run), ["job", "variant"]):
        digest, label = str(key["job"]), str(key["variant"])
        if (label, digest) in names:
            last = (label, digest) in final
            rows.append({"variant": names[label, digest], **_stage(jobs[digest], run.training[digest], part, last)})
    return pd.DataFrame(rows, columns=list(TRAINING_COLUMNS))


def training_curves(run: Run) -> pd.DataFrame:
    """Losses and learning rate per optimiser step: columns `CURVE_COLUMNS`, one row a value of a metric of `CURVES`.

    ``step`` counts within the stage; ``start`` is how many steps the stages before it took that minimise the same loss
    (distillation one, all others another).
    """
    names = _names(run)
    jobs = {job.digest: job for job in run.info.jobs if job.kind == "train"}
    frame = _of_trainings(run)
    frame = frame[frame["metric"].isin(CURVES) & frame["value"].notna() & frame["repeat"].notna()]
    parts = []
    for key, part in grouped(frame, ["job", "variant"]):
        digest, label = str(key["job"]), str(key["variant"])
        if (label, digest) in names:
            stages = chain(jobs[digest], jobs)
            about: dict[str, Any] = {
                "variant": names[label, digest],
                "stage": stages[-1].learns,
                "start": _start(run, stages),
            }
            curve = part.rename(columns={"repeat": "step"})[["seed", "metric", "step", "value"]].assign(**about)
            parts.append(curve.drop_duplicates(["metric", "step"]).sort_values(["metric", "step"], kind="stable"))
    if not parts:
        return pd.DataFrame(columns=list(CURVE_COLUMNS))
    return pd.concat(parts, ignore_index=True)[list(CURVE_COLUMNS)]


def _of_trainings(run: Run) -> pd.DataFrame:
    return run.frame[run.frame["kind"] == "train"]


def _names(run: Run) -> dict[tuple[str, str], str]:
    """Row and digest of every training that is told → the name it is told under; a common teacher is told once."""
    names: dict[tuple[str, str], str] = {}
    taught: dict[str, list[str]] = {}
    for job in run.info.jobs:
        if job.kind == "train" and not job.of_teacher:
            names[job.variant, job.digest] = job.variant
        elif job.kind == "train" and job.variant not in taught.setdefault(job.digest, []):
            taught[job.digest].append(job.variant)
    for digest, labels in taught.items():
        more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
        names.setdefault((labels[0], digest), f"{', '.join(labels[:_NAMED])}{more} (teacher)")
    return names


def _start(run: Run, stages: Sequence[JobInfo]) -> int:
    """Steps of the stages before the last one that minimise its loss."""
    alike = [stage for stage in stages[:-1] if (stage.learns == DISTIL) == (stages[-1].learns == DISTIL)]
    return sum(_own_steps(run.training[stage.digest]) for stage in alike)


def _own_steps(state: Training) -> int:
    return state.stages[-1][1] if state.stages else state.steps


def _stage(job: JobInfo, state: Training, part: pd.DataFrame, last: bool) -> dict[str, Any]:
    losses = part[(part["metric"] == "train_loss") & part["value"].notna()]
    loss = losses.drop_duplicates("repeat").sort_values("repeat")["value"]
    tenth = max(1, len(loss) // 10)
    end = _end(part)
    return {
        "seed": job.seed,
        "stage": job.learns,
        "steps": _own_steps(state),
        "planned": job.settings.get("steps"),
        "epochs": job.settings.get("epochs"),
        "ended_early": end.ended_early,
        "converged": state.converged,
        "first_loss": loss.head(tenth).mean(),
        "last_loss": loss.tail(tenth).mean(),
        "best_step": end.best.get("step"),
        "best_loss": end.best.get("loss"),
        "best_dsc": end.best.get("dsc"),
        "hint": end.hint,
        "note": state.note if last else "",
        "status": overall_status(part["status"]),
        "reason": joined(part["reason"]),
    }


@dataclass(frozen=True)
class _End:
    """What the records of a training's end say beside their values."""

    best: dict[str, Any]
    ended_early: bool
    hint: str


def _end(part: pd.DataFrame) -> _End:
    details = part.loc[part["metric"] == "train_steps", "detail"].dropna()
    try:
        said = json.loads(details.iloc[0]) if len(details) else {}
    except ValueError:
        said = {}
    said = said if isinstance(said, dict) else {}
    return _End(said.get("validation_best") or {}, bool(said.get("ended_early")), str(said.get("hint") or ""))
