"""What training the weights behind a value had: stages, one after another, each a job of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports import text
from reports.runfile import JobInfo, RunFile, VariantInfo

if TYPE_CHECKING:
    import pyarrow as pa

REFERENCE_FAMILIES: frozenset[str] = frozenset({"reference", "dummy"})
DISTIL = "distil"
_DONE = {DISTIL: "distilled", "train": "trained", "finetune": "fine-tuned"}


@dataclass(frozen=True)
class Training:
    """What training a variant's weights had, in optimiser steps.

    ``origin``: ``trained`` (by jobs of this run), ``fine-tuned`` (likewise, from weights that were given), ``file``
    (published or given), ``none`` (as initialised), ``unfinished`` (a stage failed or was not reached) or
    ``reference`` (the variant has nothing to train).  ``steps``: of all stages, those of its teacher not among them;
    ``converged``: whether the last stage did; ``stages``: kind and steps of each, in order.
    """

    origin: str
    steps: int = 0
    converged: bool = False
    stages: tuple[tuple[str, int], ...] = ()

    @property
    def distilled_only(self) -> bool:
        """The encoder imitates another; nothing taught the rest of the model what to do with it."""
        return bool(self.stages) and all(kind == DISTIL for kind, _ in self.stages)

    @property
    def note(self) -> str:
        """The remark that accompanies every accuracy made with these weights; empty if none is due."""
        if self.origin in ("reference", "file"):
            return ""
        if self.steps > 0:
            if self.distilled_only:
                return f"distilled only, {self._steps}"
            word = "fine-tuned" if self.origin == "fine-tuned" else "under-trained"
            return "" if self.converged else f"{word}, {self._steps}"
        return "untrained"

    @property
    def weights(self) -> str:
        """Where the weights come from, for tables."""
        named = {"reference": "none needed", "file": "from file", "unfinished": "training did not finish"}
        if self.origin in named:
            return named[self.origin]
        if not self.steps:
            return "as initialised"
        before = "from file, then " if self.origin == "fine-tuned" else ""
        done = [_DONE.get(kind, kind) for kind, steps in self.stages if steps] or ["trained"]
        return f"{before}{text.listed(done)} here, {self._steps}"

    @property
    def _steps(self) -> str:
        """``240 steps``; of several stages ``120 + 240 steps``: steps of different kinds have no sum."""
        taken = [steps for _, steps in self.stages if steps]
        if len(taken) < 2:
            return text.plural(self.steps, "step")
        return f"{' + '.join(f'{steps:,}' for steps in taken)} steps"


def training_of_jobs(info: RunFile, tables: Mapping[str, pa.Table]) -> dict[str, Training]:
    """Digest of every job → training of the weights it used; for a training job, of those it made.

    Args:
        info: of the run.
        tables: digest → records of the job, where it left any.
    """
    jobs = {job.digest: job for job in info.jobs if job.kind == "train"}
    made = {digest: _trained(chain(job, jobs), tables) for digest, job in jobs.items()}
    return {job.digest: made.get(job.digest) or _used(info.variants[job.variant], job, info, made) for job in info.jobs}


def chain(job: JobInfo, jobs: Mapping[str, JobInfo]) -> list[JobInfo]:
    """The stages up to a training job, in order; ``jobs``: digest → training job of the run."""
    found = [job]
    before = previous(job)
    while before in jobs and all(before != stage.digest for stage in found):
        found.insert(0, jobs[before])
        before = previous(jobs[before])
    return found


def previous(job: JobInfo) -> str:
    """Digest of the stage whose weights a training job goes on with; empty if it is the first."""
    return (job.weights.train_job if job.weights else None) or ""


def last_stages(info: RunFile) -> set[tuple[str, str]]:
    """Row and digest of the training jobs that no stage of their row goes on from, those of teachers among them."""
    jobs = [job for job in info.jobs if job.kind == "train"]
    earlier = {(job.variant, previous(job)) for job in jobs}
    return {(job.variant, job.digest) for job in jobs} - earlier


def _used(variant: VariantInfo, job: JobInfo, info: RunFile, made: Mapping[str, Training]) -> Training:
    if variant.family in REFERENCE_FAMILIES or not variant.trainable:
        return Training("reference")
    if previous(job) in made:
        return made[previous(job)]
    needed = [digest for digest in job.needs if digest in made]
    if needed:
        teachers = {j.digest for j in info.jobs if j.variant == job.variant and j.of_teacher}
        last = {digest for row, digest in last_stages(info) if row == job.variant}
        return made[next((digest for digest in needed if digest in last - teachers), needed[-1])]
    return Training("file") if variant.weights or (job.weights and job.weights.file) else Training("none")


def _trained(stages: Sequence[JobInfo], tables: Mapping[str, pa.Table]) -> Training:
    """Steps and convergence as the records of the stages state them."""
    if any(job.state not in ("done", "cached") for job in stages):
        return Training("unfinished")
    ended = [_end(tables.get(job.digest)) for job in stages]
    origin = "fine-tuned" if stages[0].weights and stages[0].weights.file else "trained"
    kinds = tuple((job.learns, steps) for job, (steps, _) in zip(stages, ended, strict=True))
    return Training(origin, sum(steps for steps, _ in ended), ended[-1][1], kinds)


def _end(table: pa.Table | None) -> tuple[int, bool]:
    """Steps and convergence of one stage.

    Convergence that is not stated counts as not converged; a training that broke off took the steps it has losses of.
    """
    final: dict[str, float] = {}
    losses = 0
    if table is not None:
        for row in table.select(["metric", "value"]).to_pylist():
            if row["value"] is not None:
                final[row["metric"]] = row["value"]
                losses += row["metric"] == "train_loss"
    return int(final.get("train_steps", losses)), final.get("converged", 0) >= 1
