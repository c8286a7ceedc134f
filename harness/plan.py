"""Suite → jobs with digests, in an order in which every job finds what it needs."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import variants
from harness.config import (
    AccuracySettings,
    ComplexitySettings,
    DataSetSpec,
    Deployment,
    JobKind,
    PhantomData,
    RuntimeRules,
    RuntimeSettings,
    Weights,
    canonical,
)
from harness.data import DataSet, dataset_digest, open_dataset
from harness.errors import BenchError
from harness.jobs import JobSpec
from harness.machine import this_machine
from harness.measure.runtime.images import base_image
from harness.provenance import hash_module_closure, hash_sources, versions
from harness.results import MODEL, Results
from harness.schema import VOLUME_MODALITIES
from harness.store import artifact_key
from harness.suite import AccuracyMeasure, Row, RuntimeMeasure, Suite, expand
from variants import VariantSpec

READING = (
    "harness/data/case.py",
    "harness/data/dataset.py",
    "harness/data/npz.py",
    "harness/schema.py",
    "variants/preprocess.py",
)
WEIGHTS = ("variants/creation.py", "variants/checkpoints.py")
CODE: dict[JobKind, tuple[str, ...]] = {
    "train": ("harness/training", *READING, *WEIGHTS),
    "accuracy": (
        "harness/measure/accuracy.py",
        "harness/failure.py",
        "harness/inference",
        "harness/metrics",
        *READING,
        *WEIGHTS,
    ),
    "complexity": ("harness/measure/complexity.py",),
    "runtime": (
        "harness/measure/runtime",
        "harness/measure/runtime/predict.sh",
        "harness/inference",
        "harness/allocator.py",
        "harness/failure.py",
        "Dockerfile.cpu",
        *READING,
        *WEIGHTS,
    ),
}
COMPUTES_WITH: dict[JobKind, tuple[str, ...]] = {
    "train": ("numpy", "opencv-python-headless", "torch", "lightning-fabric"),
    "accuracy": ("numpy", "opencv-python-headless", "scipy", "torch"),
    "complexity": ("fvcore", "torch"),
    "runtime": ("numpy", "opencv-python-headless", "safetensors", "torch"),
}
ROUGH_SECONDS: dict[JobKind, float] = {"train": 3.0, "accuracy": 3.0, "complexity": 5.0, "runtime": 6.0}


@dataclass(frozen=True)
class PlannedJob:
    """A job and the names the suite gives to its parts."""

    spec: JobSpec
    row: str
    deployment: str | None = None
    dataset: str | None = None
    sandbox: str | None = None
    needs: tuple[str, ...] = ()
    units: int = 1
    cached: bool = False

    @property
    def digest(self) -> str:
        return self.spec.digest

    @property
    def title(self) -> str:
        words = [self.spec.kind, self.row, self.deployment, self.sandbox, self.dataset]
        seed = f"seed {self.spec.seed}" if self.spec.kind == "train" else None
        return " · ".join(w for w in (*words, seed) if w)


@dataclass(frozen=True)
class Plan:
    """All jobs of a suite, and what the views need to name them."""

    suite: Suite
    rows: dict[str, Row]
    jobs: tuple[PlannedJob, ...]
    datasets: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Same jobs under the same names: a run that was interrupted is the same run."""
        text = json.dumps([self.suite.name, [(j.row, j.deployment, j.dataset, j.sandbox, j.digest) for j in self.jobs]])
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def unique(self) -> list[PlannedJob]:
        """Jobs to execute: rows that are equal share one."""
        return list({j.digest: j for j in reversed(self.jobs)}.values())[::-1]


def make_plan(suite: Suite, results: Results, fresh: Collection[str] = ()) -> Plan:
    """Expand a suite into jobs.  Reads headers of npz folders and hashes inputs; generates and runs nothing.

    Args:
        fresh: kinds of jobs to do again although they are stored; what depends on them follows.

    Raises:
        BenchError: a data set or checkpoint that cannot be read.
    """
    return _Planner(suite, results, fresh).plan()


class _Planner:
    def __init__(self, suite: Suite, results: Results, fresh: Collection[str]) -> None:
        self.suite, self.results, self.fresh = suite, results, fresh
        self.rows = expand(suite)
        self.sealed = {Path(k).stem for k in results.store.list("records/")}
        self.generations = list(results.store.list("generations/"))
        self._data: dict[str, tuple[str, int]] = {}
        self._folders: dict[str, DataSet] = {}
        used = self._used_data()
        self.datasets = {label: self._describe(label, suite.datasets[label]) for label in used}

    def plan(self) -> Plan:
        jobs: list[PlannedJob] = []
        trained: dict[str, list[tuple[int, Weights, str | None]]] = {}
        if self.suite.measure.complexity is not None:
            jobs += [self._complexity(row) for row in self.rows.values()]
        for row in self.rows.values():
            training = list(self._training(row))
            jobs += [job for job, _, _ in training if job]
            trained[row.label] = [(seed, weights, job.digest if job else None) for job, seed, weights in training]
        if self.suite.measure.accuracy is not None:
            jobs += self._accuracy(self.suite.measure.accuracy, trained)
        if self.suite.measure.runtime is not None:
            jobs += self._runtime(self.suite.measure.runtime, trained)
        return Plan(self.suite, self.rows, tuple(jobs), self.datasets)

    def _used_data(self) -> list[str]:
        measure, names = self.suite.measure, list[str]()
        if self.suite.training and any(self._recipe(row) for row in self.rows.values()):
            names.append(self.suite.training.data)
        for part in (measure.accuracy, measure.runtime):
            names += part.data if part else ()
        return list(dict.fromkeys(names))

    def _describe(self, label: str, spec: DataSetSpec) -> dict[str, Any]:
        if spec.kind == "npz":
            self._folders[label] = open_dataset(spec, self.results.cache)
        digest = dataset_digest(spec, self.results.cache)
        count = phantom_count(spec) if spec.kind == "phantoms" else len(self._folders[label].cases)
        self._data[label] = (digest, count)
        what = f"generated, seed {spec.seed}" if spec.kind == "phantoms" else spec.path
        return {"digest": digest, "kind": spec.kind, "cases": count, "description": what}

    def _recipe(self, row: Row) -> str | None:
        """Name of the recipe that trains the row; ``None`` for rows with weights of their own or nothing to train."""
        if self.suite.training is None or row.weights or not variants.spec(row.ref.name).needs_torch:
            return None
        name = row.recipe or self.suite.training.recipe
        return name if self.suite.recipes[name].steps > 0 else None

    def _training(self, row: Row) -> Iterator[tuple[PlannedJob | None, int, Weights]]:
        """A training job a seed, or the one set of weights of a row that is not trained."""
        recipe = self._recipe(row)
        if recipe is None or self.suite.training is None:
            weights = Weights(file=row.weights, sha256=_file_digest(row.weights)) if row.weights else Weights()
            yield None, 0, weights
            return
        label = self.suite.training.data
        for seed in self.suite.training.seeds:
            settings = canonical(self.suite.recipes[recipe])
            spec = self._spec("train", row, settings, dataset=label, seed=seed)
            steps = self.suite.recipes[recipe].steps
            job = self._planned(spec, row, dataset=label, units=steps)
            yield job, seed, Weights(train_job=job.digest)

    def _complexity(self, row: Row) -> PlannedJob:
        return self._planned(self._spec("complexity", row, canonical(ComplexitySettings())), row)

    def _accuracy(self, measure: AccuracyMeasure, trained: dict[str, Any]) -> Iterator[PlannedJob]:
        settings = AccuracySettings(protocols=measure.protocols, subset=self._subset(measure.subset))
        for row in self.rows.values():
            for seed, weights, train in trained[row.label]:
                for deployment in row.deployments or measure.deployments:
                    for data in measure.data:
                        chosen = self.suite.deployments[deployment]
                        # threads and memory settings may change the last bits of a logit: part of the identity
                        spec = self._spec("accuracy", row, canonical(settings), data, chosen, weights, seed)
                        needs = (train,) if train else ()
                        yield self._planned(spec, row, deployment, data, needs=needs, units=self._cases(data, settings))

    def _runtime(self, measure: RuntimeMeasure, trained: dict[str, Any]) -> Iterator[PlannedJob]:
        fields = measure.model_dump(include=set(RuntimeRules.model_fields))
        subset = self._subset(measure.subset)
        for sandbox in measure.sandboxes:
            settings = RuntimeSettings(sandbox=sandbox, subset=subset, **fields)
            for row in self.rows.values():
                _, weights, train = trained[row.label][0]
                for deployment in row.deployments or measure.deployments:
                    for data in measure.data:
                        chosen = self.suite.deployments[deployment]
                        spec = self._spec("runtime", row, canonical(settings), data, chosen, weights)
                        units = self._cases(data, settings) * measure.repeats
                        needs = (train,) if train else ()
                        yield self._planned(spec, row, deployment, data, sandbox, needs, units)

    def _subset(self, name: str | None) -> Any:
        return None if name is None else self.suite.subsets[name]

    def _cases(self, label: str, settings: AccuracySettings | RuntimeSettings) -> int:
        total = self._data[label][1]
        subset = settings.subset
        if label in self._folders:  # raises here, not after the training, if the subset names no case
            return len(self._folders[label].select(subset))
        return min(total, subset.spread or len(subset.names)) if subset else total

    def _spec(
        self,
        kind: JobKind,
        row: Row,
        settings: dict[str, Any],
        dataset: str | None = None,
        deployment: Deployment | None = None,
        weights: Weights | None = None,
        seed: int = 0,
    ) -> JobSpec:
        registered = variants.resolve(row.ref.name, row.ref.set)
        libraries = [n for n in COMPUTES_WITH[kind] if registered.needs_torch or n != "torch"]
        inputs = {"variant": hash_module_closure(registered.factory.partition(":")[0])}
        if settings.get("sandbox") == "docker":
            inputs["base_image"] = base_image()
        if dataset:
            inputs["dataset"] = self._data[dataset][0]
        spec = JobSpec(
            kind=kind,
            variant=row.ref,
            model=_resolved(registered),
            deployment=deployment,
            dataset=self.suite.datasets[dataset] if dataset else None,
            settings=settings,
            weights=weights or Weights(),
            seed=seed,
            inputs=inputs,
            libraries=versions(libraries) | {"python": platform.python_version()},
            code=hash_sources(CODE[kind]),
            machine=this_machine().fingerprint if kind == "runtime" else None,
        )
        return spec.model_copy(update={"generation": self._generation(spec)})

    def _generation(self, spec: JobSpec) -> int:
        prefix = generation_key(spec.digest, "")
        latest = max((int(Path(k).name) for k in self.generations if k.startswith(prefix)), default=0)
        if spec.kind not in self.fresh:
            return latest
        begun = spec.model_copy(update={"generation": latest})
        unfinished = latest > 0 and begun.digest not in self.sealed
        return latest if unfinished else latest + 1  # an interrupted `--fresh` goes on

    def _planned(
        self,
        spec: JobSpec,
        row: Row,
        deployment: str | None = None,
        dataset: str | None = None,
        sandbox: str | None = None,
        needs: tuple[str, ...] = (),
        units: int = 1,
    ) -> PlannedJob:
        cached = spec.digest in self.sealed
        return PlannedJob(spec, row.label, deployment, dataset, sandbox, needs, units, cached)


def _resolved(spec: VariantSpec) -> dict[str, Any]:
    """What a variant is, by whatever name a suite calls it."""
    fields = {"factory": spec.factory, "input_size": spec.input_size, "preprocess": spec.preprocess}
    return fields | {"prompts": list(spec.prompts), "hyperparameters": dict(spec.hyperparameters)}


def generation_key(digest: str, number: int | str) -> str:
    """Key that marks an asked-for repetition of a job (its digest with generation 0)."""
    return f"generations/{digest}/{number}"


def note_generations(plan: Plan, results: Results) -> None:
    """Make the repetitions of a plan the ones that later runs use."""
    for job in plan.unique:
        if job.spec.generation:
            base = job.spec.model_copy(update={"generation": 0})
            results.store.put_if_absent(generation_key(base.digest, job.spec.generation), b"")


def phantom_count(spec: PhantomData) -> int:
    """Number of cases that a specification of phantoms asks for; generates nothing."""
    volumes = [m for m in spec.modalities if m in VOLUME_MODALITIES]
    return spec.per_modality * len(spec.modalities) + spec.volumes * len(volumes)


@cache
def _file_digest(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BenchError(f"{path}: weights cannot be read ({error.strerror}); give the path of a checkpoint.") from None


def missing_weights(job: PlannedJob, results: Results) -> bool:
    """Whether the job needs weights that its training did not leave behind."""
    train = job.spec.weights.train_job
    return train is not None and results.store.local(artifact_key(train, MODEL)) is None


def estimate(jobs: Iterable[PlannedJob], results: Results) -> tuple[float, bool]:
    """Seconds that the uncached jobs will take, and whether all of it comes from earlier runs on this machine."""
    history = _history(results)
    total, sure = 0.0, True
    for job in jobs:
        if job.cached:
            continue
        known = history.get((job.spec.kind, job.spec.variant.name, job.sandbox))
        sure = sure and known is not None
        total += job.units * (median(known) if known else ROUGH_SECONDS[job.spec.kind])
    return total, sure


def _history(results: Results) -> dict[tuple[str, str, str | None], list[float]]:
    history: dict[tuple[str, str, str | None], list[float]] = {}
    if results.durations.exists():
        for line in results.durations.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # a line cut by a kill
                continue
            if row["machine"] == this_machine().fingerprint:
                key = (row["kind"], row["variant"], row["sandbox"])
                history.setdefault(key, []).append(row["seconds"] / row["units"])
    return history
