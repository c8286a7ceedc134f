"""Everything a training job needs before its first step: checked input first, then data, model, and teacher."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import torchrun
from harness.dependencies import COMPUTES_WITH, READING
from harness.errors import BenchError
from harness.inference.weights import locate, locate_weights
from harness.jobs import JobContext, JobSpec
from harness.provenance import hash_sources, versions
from harness.recipe import Stage
from harness.training import processes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from harness.data import DataSet
    from harness.training.embeddings import EmbeddingStore
    from harness.training.loader import Loader
    from harness.training.samples import Batch, Draw, Samples, View
    from harness.training.tasks import Task
    from harness.training.trainer import Trainer
    from variants import PromptableModel, VariantSpec

EMBEDDINGS = "embeddings"


@dataclass(frozen=True)
class Session:
    """A trainer at step 0, what feeds it, and the batches it is judged by (none if the stage has no validation).

    ``store``: of the teacher's embeddings, where a distillation keeps them.
    """

    trainer: Trainer
    loader: Loader
    epoch_steps: int
    judged: Callable[[], Iterator[Batch]]
    store: EmbeddingStore | None = None


def session(spec: JobSpec, context: JobContext, stage: Stage) -> Session:
    """Set up the job's training.

    Raises:
        BenchError: the variant has no parameters to train, the data set no ground truth, the teacher's embedding
            another shape than the student's, or the batch cannot be shared between the processes.
    """
    variant = _trainable(spec)
    data = _data(spec, context)

    import torch

    from harness.training.loader import Loader
    from harness.training.trainer import Trainer

    samples = _samples(data, variant, spec, stage)
    first, count = _share(stage)
    loader = Loader(samples, stage.batch, stage.workers, first, count)
    torch.set_num_threads(stage.threads)  # before the model is made: the bits of some initialisers depend on it
    model = _initial_model(spec, context)
    store = _store(spec, context, stage, _grid(model)) if stage.stage == "distil" else None
    task = _task(model, spec, context, stage, samples, store)
    epoch_steps = -(-samples.epoch_length // stage.batch)
    steps = stage.steps if stage.steps is not None else epoch_steps * (stage.epochs or 0)
    trainer = Trainer(task, stage, loader, seed=spec.seed, steps=steps, epoch_steps=epoch_steps)
    return Session(trainer, loader, epoch_steps, _judged(data, variant, spec, stage), store)


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


def _data(spec: JobSpec, context: JobContext) -> DataSet:
    from harness.data import open_dataset

    if spec.dataset is None:
        raise BenchError(f"Training {spec.variant.name!r} needs a data set: name one in the suite's training section.")
    expected = spec.inputs.get("dataset")
    return open_dataset(spec.dataset, context.cache, lambda _, message: context.progress(0.0, message), expected)


def _samples(data: DataSet, variant: VariantSpec, spec: JobSpec, stage: Stage) -> Samples:
    from harness.training.samples import Samples

    draw = _draw(variant, spec, stage)
    return Samples(data, draw, spec.seed, sampler=stage.sampler, held_out=_held_out(stage))


def _draw(variant: VariantSpec, spec: JobSpec, stage: Stage) -> Draw:
    """How the stage makes samples for the variant."""
    from harness.training.samples import Draw

    return Draw(
        variant.input_size,
        _rule(variant, spec, stage),
        stage.box_jitter,
        stage.flips,
        stage.objects,
        stage.colour,
        _prompts(variant, stage),
        stage.propagated_boxes,
        stage.loop_starts,
        variant.prompt_rule if stage.prompts == "box" else None,
    )


def _judged(data: DataSet, variant: VariantSpec, spec: JobSpec, stage: Stage) -> Callable[[], Iterator[Batch]]:
    """Gives the cases kept out of training, each once: neither flipped nor coloured, the same in every judgement."""
    from harness.training.samples import Samples

    if stage.validation is None:
        return lambda: iter(())
    draw = replace(_draw(variant, spec, stage), flips=0.0, colour=None)
    samples = Samples(data, draw, spec.seed, held_out=_held_out(stage), part="validation")
    cases, size = samples.epoch_length, stage.batch
    batches = min(stage.validation.batches, -(-cases // size))

    def batches_of_cases() -> Iterator[Batch]:
        for index in range(batches):
            yield samples.batch(index, size, 0, min(size, cases - index * size))

    return batches_of_cases


def _held_out(stage: Stage) -> float:
    return stage.validation.share if stage.validation else 0.0


def _prompts(variant: VariantSpec, stage: Stage) -> tuple[str, ...]:
    return ("box",) if stage.stage == "distil" else variant.prompts


def _rule(variant: VariantSpec, spec: JobSpec, stage: Stage) -> str:
    """How images are prepared: the variant's way, but for a distillation as its teacher is shown them, since the two
    embeddings must show the same places (the baseline's distillation stretches both)."""
    teacher = spec.teacher
    return str(teacher.model["preprocess"]) if stage.stage == "distil" and teacher else variant.preprocess


def _share(stage: Stage) -> tuple[int, int]:
    """First image of every batch that this process takes, and how many."""
    several = torchrun.count()
    if stage.batch % several:
        raise BenchError(f"`batch` {stage.batch} cannot be shared by {several} processes; give a multiple of {several}")
    count = stage.batch // several
    return torchrun.rank() * count, count


def _initial_model(spec: JobSpec, context: JobContext) -> PromptableModel:
    """Drawn from the job's seed, or the given weights: where fine-tuning starts."""
    import variants

    start = locate(spec, context)
    try:
        return variants.create(spec.variant.name, checkpoint=start, seed=spec.seed, **spec.variant.set)
    except variants.VariantError as error:
        raise BenchError(str(error)) from error


def _task(
    model: PromptableModel,
    spec: JobSpec,
    context: JobContext,
    stage: Stage,
    samples: Samples,
    store: EmbeddingStore | None,
) -> Task:
    from harness.training.tasks import Imitating, Segmenting

    if stage.stage != "distil":
        if stage.scale != 1:
            _check_scale(model, spec.variant.name, stage.scale)
        return Segmenting(model, stage.loss, stage.scale)
    return Imitating(model, stage, _targets(model, spec, context, samples, store), consistent=stage.consistent)


def _check_scale(model: PromptableModel, name: str, scale: float) -> None:
    """Show the model one black image of the side: windows and grids that do not fit say so before the first step."""
    import torch

    import variants
    from harness.training.tasks import resized

    resizable: Any = model
    if not hasattr(model, "encode_resized"):
        raise BenchError(f"{name!r} has no `encode_resized`, so it learns from whole images only; leave out `scale`.")
    try:
        with torch.no_grad():
            resizable.eval().encode_resized(resized(torch.zeros(1, 3, model.input_size, model.input_size), scale))
    except (variants.VariantError, RuntimeError) as error:
        reason = f": {error}" if isinstance(error, variants.VariantError) else ""
        raise BenchError(f"`scale` {scale:g} does not suit {name!r}{reason}; 0.5 suits most variants.") from error


def _targets(
    student: PromptableModel, spec: JobSpec, context: JobContext, samples: Samples, store: EmbeddingStore | None
) -> Callable[[list[View]], Tensor]:
    """The teacher's embeddings of views, from its store or computed."""
    import variants
    from harness.training.teacher import Teaching

    teacher = spec.teacher
    if teacher is None:
        raise BenchError("A stage `distil` needs a `teacher`: name a variant whose embeddings are imitated.")
    ref = teacher.variant
    try:
        registered = variants.resolve(ref.name, ref.set)
        weights = locate_weights(teacher.weights, context)
        model = variants.create(ref.name, checkpoint=weights, seed=teacher.weights.seed, **ref.set)
    except variants.VariantError as error:
        raise BenchError(f"teacher: {error}") from error
    if _grid(model) != _grid(student):
        raise BenchError(
            f"teacher {ref.name!r} gives embeddings {_grid(model)}, {spec.variant.name!r} {_grid(student)}; "
            "a student imitates a teacher of the same shape"
        )
    teaching = Teaching(model, processes.device(), store)
    size, rule = registered.input_size, registered.preprocess

    def targets(views: list[View]) -> Tensor:
        def images(places: list[int]) -> NDArray[np.float32]:
            return np.stack([samples.teacher_image(views[place], size, rule) for place in places])

        return teaching.targets([view.key for view in views], images)

    return targets


def _store(spec: JobSpec, context: JobContext, stage: Stage, shape: tuple[int, ...]) -> EmbeddingStore | None:
    """Where the teacher's embeddings of the job's data are kept; jobs of the same teacher and data share it."""
    from harness.training.embeddings import EmbeddingStore
    from harness.training.teacher import execution, store_name

    if stage.embeddings != "cached" or spec.teacher is None:
        return None
    model = spec.teacher.model
    identity = json.dumps(spec.teacher.identity, sort_keys=True)
    name = store_name(
        identity,
        spec.inputs.get("dataset", ""),
        model["preprocess"],
        model["input_size"],
        execution(processes.device()),
        hash_sources(READING),
        json.dumps(versions(COMPUTES_WITH["train"])),
    )
    return EmbeddingStore(Path(context.cache) / EMBEDDINGS / name, shape)


def _grid(model: PromptableModel) -> tuple[int, ...]:
    """Shape (C,g,g) of a model's image embedding."""
    prompts: Any = model.prompt_encoder  # type: ignore[attr-defined]  # every torch variant has one
    return (int(prompts.no_mask_embed.weight.shape[1]), int(prompts.grid), int(prompts.grid))
