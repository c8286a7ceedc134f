"""A row's training as jobs: a stage each, every one starting from the weights of the one before.

Stages that rows share (the same variant, recipe, data and seed) are one job; so is a teacher that several distil from.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import variants
from harness.checkpoints import find_for
from harness.config import VariantRef, Weights, canonical
from harness.errors import BenchError
from harness.jobs import TeacherSpec
from harness.provenance import hash_module_closure
from harness.recipe import Stage, Teacher
from harness.suite import Row, Training

if TYPE_CHECKING:
    from harness.plan import PlannedJob, Planner


@dataclass(frozen=True)
class Outcome:
    """Weights that a row is measured with, and the jobs that make them, in order."""

    seed: int
    weights: Weights
    jobs: tuple[PlannedJob, ...] = ()

    @property
    def last(self) -> str | None:
        """Digest of the job that writes the weights."""
        return self.jobs[-1].digest if self.jobs else None


def recipe_of(planner: Planner, row: Row) -> str | None:
    """Name of the recipe that trains the row, or its given weights further; ``None`` if nothing is trained."""
    given = row.weights and not row.fine_tune
    if planner.suite.training is None or given or not variants.spec(row.ref.name).needs_torch:
        return None
    asked = row.fine_tune or row.recipe or planner.suite.training.recipe
    name = planner.suite.recipe_for(asked, row.ref.name)
    return name if planner.suite.recipes[name].trains else None


def datasets_of(planner: Planner) -> list[str]:
    """Labels of the data sets that anything is trained on."""
    training = planner.suite.training
    names = [recipe_of(planner, row) for row in planner.rows.values()]
    if training is None:
        return []
    return list(dict.fromkeys(label for name in names if name for label in _labels(planner, name, training.data)))


def _labels(planner: Planner, recipe: str, data: str) -> Iterator[str]:
    """Data sets of a recipe's stages and of the teachers that it trains, ``data`` where a stage names none."""
    for stage in planner.suite.recipes[recipe].chain:
        yield stage.data or data
        if stage.stage == "distil" and stage.teacher is not None and stage.teacher.recipe:
            taught_by = planner.suite.recipe_for(stage.teacher.recipe, stage.teacher.name)
            yield from _labels(planner, taught_by, stage.data or data)


def outcomes(planner: Planner, row: Row) -> Iterator[Outcome]:
    """An outcome a seed, or the one set of weights of a row that is not trained."""
    recipe, training = recipe_of(planner, row), planner.suite.training
    if recipe is None or training is None:
        yield Outcome(0, given(planner, row))
        return
    for seed in training.seeds:
        jobs = list(_chain(planner, row, recipe, training, seed))
        yield Outcome(seed, Weights(train_job=jobs[-1].digest), tuple(jobs))


def given(planner: Planner, row: Row) -> Weights:
    """Weights of a file or an imported checkpoint, else as initialised."""
    return _file(planner, row.weights, row.ref)


def _chain(planner: Planner, row: Row, recipe: str, training: Training, seed: int) -> Iterator[PlannedJob]:
    """The jobs of one training: teachers that have to be trained first, and the stages that take a step."""
    weights, before = given(planner, row), list[str]()
    for stage in planner.suite.recipes[recipe].chain:
        if not (stage.steps or stage.epochs):
            continue
        teacher, needs = None, list(before)
        if stage.stage == "distil" and stage.teacher is not None:
            shown = training.model_copy(update={"data": stage.data or training.data})
            taught = list(_teacher_jobs(planner, row, stage.teacher, shown))
            yield from taught
            needs += [job.digest for job in taught[-1:]]
            teacher = _teacher(planner, stage.teacher, taught)
        job = _job(planner, row, stage, training, seed, weights, tuple(needs), teacher)
        yield job
        weights, before = Weights(train_job=job.digest), [job.digest]


def _teacher_jobs(planner: Planner, row: Row, teacher: Teacher, training: Training) -> Iterator[PlannedJob]:
    """Training of a teacher that names a recipe; one teacher for all of the student's seeds."""
    if teacher.recipe is None:
        return
    own = row.model_copy(update={"ref": _ref(teacher), "weights": None, "fine_tune": None})
    recipe = planner.suite.recipe_for(teacher.recipe, teacher.name)
    for job in _chain(planner, own, recipe, training, seed=0):
        yield planner.as_teacher(job)


def _teacher(planner: Planner, teacher: Teacher, taught: list[PlannedJob]) -> TeacherSpec:
    registered = variants.resolve(teacher.name, teacher.set)
    weights = Weights(train_job=taught[-1].digest) if taught else _file(planner, teacher.weights, _ref(teacher))
    return TeacherSpec(
        variant=_ref(teacher),
        model=planner.resolved(registered),
        code=hash_module_closure(registered.factory.partition(":")[0]),
        weights=weights,
    )


def _job(
    planner: Planner,
    row: Row,
    stage: Stage,
    training: Training,
    seed: int,
    weights: Weights,
    needs: tuple[str, ...],
    teacher: TeacherSpec | None,
) -> PlannedJob:
    label = stage.data or training.data
    spec = planner.spec("train", row, canonical(stage), dataset=label, weights=weights, seed=seed, teacher=teacher)
    steps = stage.steps or -(-planner.cases(label) // stage.batch) * (stage.epochs or 0)
    # Images at the network's side: a smaller one costs about its share of the pixels.
    images = math.ceil(steps * stage.batch * stage.scale**2)
    return planner.planned(spec, row, dataset=label, needs=needs, units=images)


def _ref(teacher: Teacher) -> VariantRef:
    return VariantRef(name=teacher.name, set=teacher.set)


def _file(planner: Planner, weights: str | None, ref: VariantRef) -> Weights:
    if not weights:
        return Weights()
    file = str(find_for(planner.results, weights, ref))
    return Weights(file=file, sha256=_digest_of(file))


@cache
def _digest_of(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BenchError(f"{path}: weights cannot be read ({error.strerror}); give the path of a checkpoint.") from None
