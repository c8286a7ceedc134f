"""Suite → jobs with digests, in an order in which every job finds what it needs."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import variants
from harness.config import (
    AccuracySettings,
    ComplexitySettings,
    DataSetSpec,
    Deployment,
    FidelitySettings,
    JobKind,
    LatencySettings,
    RuntimeRules,
    RuntimeSettings,
    StoredData,
    Weights,
    canonical,
)
from harness.data import DataSet, dataset_digest, open_dataset
from harness.data.generated import described, generated_count
from harness.data.splits import refuse_common_images
from harness.dependencies import BACKEND_LIBRARIES, CODE, COMPUTES_WITH
from harness.deploy.data import CALIBRATION, COMPARED
from harness.imagejob import image_spec
from harness.jobs import JobSpec, TeacherSpec
from harness.machine import this_machine
from harness.measure.runtime.images import base_image
from harness.protocols import PUBLISHED
from harness.provenance import hash_module_closure, hash_sources, versions
from harness.results import DEPLOYMENT, MODEL, Results
from harness.store import artifact_key
from harness.suite import AccuracyMeasure, LatencyMeasure, Row, RuntimeMeasure, Suite, expand
from harness.training_plan import Outcome, datasets_of, outcomes
from variants import VariantSpec


@dataclass(frozen=True)
class PlannedJob:
    """A job and the names the suite gives to its parts."""

    spec: JobSpec
    row: str
    deployment: str | None = None
    dataset: str | None = None
    sandbox: str | None = None
    needs: tuple[str, ...] = ()
    units: int = 1  # of work: cases, repeats, or images of a training
    cached: bool = False
    stage: str | None = None

    @property
    def digest(self) -> str:
        return self.spec.digest

    @property
    def threads(self) -> str | None:
        """``threads 2`` where the number of threads tells jobs apart."""
        of = self.spec.deployment if self.spec.kind == "latency" else None
        return None if of is None else f"threads {of.threads}"

    @property
    def title(self) -> str:
        words = [self.stage or self.spec.kind, self.row, self.deployment, self.sandbox, self.dataset]
        seed = f"seed {self.spec.seed}" if self.spec.kind == "train" else None
        return " · ".join(w for w in (*words, self.threads, seed) if w)


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
    """Expand a suite into jobs.  Reads npz headers, converts NIfTI and images into the cache, hashes; runs nothing.

    Args:
        fresh: kinds of jobs to do again although they are stored; what depends on them follows.

    Raises:
        BenchError: a data set or checkpoint that cannot be read.
    """
    return Planner(suite, results, fresh).plan()


TEACHER = "teacher:"
"""Begins the stage of a job that trains a row's teacher."""
Trained = dict[str, list[Outcome]]
"""Label of a row → what each of its trainings gives."""


class Planner:
    """Makes the jobs of a suite; ``harness.training_plan`` uses it for those of a training."""

    def __init__(self, suite: Suite, results: Results, fresh: Collection[str]) -> None:
        self.suite, self.results, self.fresh = suite, results, fresh
        self.every_row = expand(suite)
        self.rows = {label: row for label, row in self.every_row.items() if row.image is None}
        self.sealed = {Path(k).stem for k in results.store.list("records/")}
        self.generations = list(results.store.list("generations/"))
        self._data: dict[str, tuple[str, int]] = {}
        self._folders: dict[str, DataSet] = {}
        self.deployed: dict[tuple[str, str, int], PlannedJob] = {}
        used = self._used_data()
        self.datasets = {label: self._describe(label, suite.datasets[label]) for label in used}

    def plan(self) -> Plan:
        jobs: list[PlannedJob] = []
        learned = datasets_of(self)
        for label in learned:
            others = {n: data for n, data in self._folders.items() if n == label or n not in learned}
            refuse_common_images(label, others, self.suite.datasets, self.results.cache)
        trained: Trained = {}
        if self.suite.measure.complexity is not None:
            jobs += [self._complexity(row) for row in self.rows.values()]
        for row in self.rows.values():
            trained[row.label] = list(outcomes(self, row))
            jobs += [job for outcome in trained[row.label] for job in outcome.jobs]
        self.deployed = {(j.row, str(j.deployment), j.spec.seed): j for j in self._deploys(trained)}
        jobs += self.deployed.values()
        if self.suite.measure.accuracy is not None:
            jobs += self._accuracy(self.suite.measure.accuracy, trained)
        if self.suite.measure.latency is not None:
            jobs += self._latency(self.suite.measure.latency, trained)
        if self.suite.measure.runtime is not None:
            jobs += self._runtime(self.suite.measure.runtime, trained)
            jobs += self._images(self.suite.measure.runtime)
        return Plan(self.suite, self.every_row, tuple(jobs), self.datasets)

    def _used_data(self) -> list[str]:
        measure, names = self.suite.measure, list[str]()
        names += datasets_of(self)
        for part in (measure.accuracy, measure.runtime):
            names += part.data if part else ()
        return list(dict.fromkeys(names))

    def _describe(self, label: str, spec: DataSetSpec) -> dict[str, Any]:
        if isinstance(spec, StoredData):
            self._folders[label] = open_dataset(spec, self.results.cache)
        digest = dataset_digest(spec, self.results.cache)
        count = len(self._folders[label].cases) if isinstance(spec, StoredData) else generated_count(spec)
        self._data[label] = (digest, count)
        return {"digest": digest, "kind": spec.kind, "cases": count, "description": described(spec)}

    def _complexity(self, row: Row) -> PlannedJob:
        asked = self.suite.measure.complexity
        settings = ComplexitySettings(published=asked is not None and asked.published)
        return self.planned(self.spec("complexity", row, canonical(settings)), row)

    def _deploys(self, trained: Trained) -> Iterator[PlannedJob]:
        """A job for every deployment that is measured and is not the reference itself."""
        measure = self.suite.measure
        settings = FidelitySettings(**measure.fidelity.model_dump(exclude={"deployments"}) if measure.fidelity else {})
        for row in self.rows.values():
            every = [n for m in (measure.fidelity, measure.accuracy) if m for n in row.deployments or m.deployments]
            timed = (measure.latency, measure.runtime)
            first = [n for m in timed if m for n in row.deployments or m.deployments]
            for place, outcome in enumerate(trained[row.label]):
                for name in dict.fromkeys([*every, *(first if place == 0 else [])]):
                    chosen = self.suite.deployments[name]
                    if not chosen.plain:
                        weights, seed = outcome.weights, outcome.seed
                        spec = self.spec("deploy", row, canonical(settings), None, chosen.prepared, weights, seed)
                        yield self.planned(spec, row, name, needs=_needs(outcome.last))

    def _accuracy(self, measure: AccuracyMeasure, trained: Trained) -> Iterator[PlannedJob]:
        subset = self._subset(measure.subset)
        for row in self.rows.values():
            loop = _loop(row, measure.loop)
            settings = AccuracySettings(protocols=measure.protocols, metrics=measure.metrics, subset=subset, loop=loop)
            for outcome in trained[row.label]:
                for deployment in row.deployments or measure.deployments:
                    for data in measure.data:
                        chosen = self.suite.deployments[deployment]
                        # threads and memory settings may change the last bits of a logit: part of the identity
                        deploy = self.deployed.get((row.label, deployment, outcome.seed))
                        weights, seed = outcome.weights, outcome.seed
                        spec = self.spec("accuracy", row, canonical(settings), data, chosen, weights, seed, deploy)
                        units = self._cases(data, settings)
                        needs = _needs(outcome.last, deploy)
                        yield self.planned(spec, row, deployment, data, needs=needs, units=units)

    def _latency(self, measure: LatencyMeasure, trained: Trained) -> Iterator[PlannedJob]:
        """A job a number of threads; the variants of a deployment one after another, since they are compared."""
        asked = {row.label: row.deployments or measure.deployments for row in self.rows.values()}
        for deployment in dict.fromkeys(name for names in asked.values() for name in names):
            chosen = self.suite.deployments[deployment]
            # compiled ahead means compiled for one number of threads
            for threads in (chosen.threads,) if chosen.compile else dict.fromkeys(measure.threads):
                settings = canonical(LatencySettings(repeats=measure.repeats, threads=(threads,)))
                timed = chosen.prepared.model_copy(update={"threads": threads})
                for row in self.rows.values():
                    if deployment in asked[row.label]:
                        first = trained[row.label][0]
                        deploy = self.deployed.get((row.label, deployment, first.seed))
                        spec = self.spec("latency", row, settings, None, timed, first.weights, deploy=deploy)
                        needs = _needs(first.last, deploy)
                        yield self.planned(spec, row, deployment, needs=needs, units=measure.repeats)

    def _runtime(self, measure: RuntimeMeasure, trained: Trained) -> Iterator[PlannedJob]:
        fields = measure.model_dump(include=set(RuntimeRules.model_fields))
        subset = self._subset(measure.subset)
        for sandbox in measure.sandboxes:
            for row in self.rows.values():
                loop = {"loop": _loop(row, measure.loop)}
                settings = RuntimeSettings(sandbox=sandbox, subset=subset, **fields | loop)
                first = trained[row.label][0]
                for deployment in row.deployments or measure.deployments:
                    for data in measure.data:
                        chosen = self.suite.deployments[deployment]
                        deploy = self.deployed.get((row.label, deployment, first.seed))
                        made = (chosen, first.weights)
                        spec = self.spec("runtime", row, canonical(settings), data, *made, deploy=deploy)
                        units = self._cases(data, settings) * measure.repeats
                        yield self.planned(spec, row, deployment, data, sandbox, _needs(first.last, deploy), units)

    def _images(self, measure: RuntimeMeasure) -> Iterator[PlannedJob]:
        """Cold containers of somebody else's images: nothing of ours but the measuring code decides their results."""
        fields = measure.model_dump(include=set(RuntimeRules.model_fields) - {"loop"})
        settings = RuntimeSettings(sandbox="docker", subset=self._subset(measure.subset), **fields)
        for row in self.every_row.values():
            if row.image is None:
                continue
            for data in measure.data:
                spec = image_spec(row.ref, row.image, self.suite.datasets[data], self._data[data][0], settings)
                spec = spec.model_copy(update={"generation": self._generation(spec)})
                units = self._cases(data, settings) * measure.repeats
                yield self.planned(spec, row, row.image.source, data, "docker", units=units)

    def _subset(self, name: str | None) -> Any:
        return None if name is None else self.suite.subsets[name]

    def _cases(self, label: str, settings: AccuracySettings | RuntimeSettings) -> int:
        total = self._data[label][1]
        subset = settings.subset
        if label in self._folders:  # raises here, not after the training, if the subset names no case
            return len(self._folders[label].select(subset))
        return min(total, subset.spread or len(subset.names)) if subset else total

    def spec(
        self,
        kind: JobKind,
        row: Row,
        settings: dict[str, Any],
        dataset: str | None = None,
        deployment: Deployment | None = None,
        weights: Weights | None = None,
        seed: int = 0,
        deploy: PlannedJob | None = None,
        teacher: TeacherSpec | None = None,
    ) -> JobSpec:
        """What a job of this suite is, with the digests of everything that decides its result."""
        registered = variants.resolve(row.ref.name, row.ref.set)
        backend = deployment.backend if deployment and registered.needs_torch else "torch"
        torch = registered.needs_torch and (backend == "torch" or kind in ("deploy", "latency"))
        libraries = [n for n in (*COMPUTES_WITH[kind], *BACKEND_LIBRARIES[backend]) if torch or n != "torch"]
        inputs = {"variant": hash_module_closure(registered.factory.partition(":")[0])}
        if settings.get("sandbox") == "docker":
            inputs["base_image"] = base_image()
        if kind == "deploy":
            inputs["images"] = dataset_digest(COMPARED, self.results.cache)
            inputs["calibration"] = dataset_digest(CALIBRATION, self.results.cache)
        if dataset:
            inputs["dataset"] = self._data[dataset][0]
        spec = JobSpec(
            kind=kind,
            variant=row.ref,
            model=self.resolved(registered),
            teacher=teacher,
            deployment=deployment,
            dataset=self.suite.datasets[dataset] if dataset else None,
            settings=settings,
            weights=weights or Weights(),
            deploy_job=deploy.digest if deploy else None,
            seed=seed,
            inputs=inputs,
            libraries=versions(libraries) | {"python": platform.python_version()},
            code=hash_sources(CODE[kind]),
            machine=this_machine().fingerprint if kind in ("runtime", "deploy", "latency") else None,
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

    def planned(
        self,
        spec: JobSpec,
        row: Row,
        deployment: str | None = None,
        dataset: str | None = None,
        sandbox: str | None = None,
        needs: tuple[str, ...] = (),
        units: int = 1,
    ) -> PlannedJob:
        """A job under the names the suite gives to its parts."""
        cached = spec.digest in self.sealed
        stage = str(spec.settings["stage"]) if spec.kind == "train" else None
        return PlannedJob(spec, row.label, deployment, dataset, sandbox, needs, units, cached, stage)

    @staticmethod
    def as_teacher(job: PlannedJob) -> PlannedJob:
        """A job of a row that trains the row's teacher."""
        return replace(job, stage=f"{TEACHER} {job.stage}")

    @staticmethod
    def resolved(spec: VariantSpec) -> dict[str, Any]:
        """What a variant is, by whatever name a suite calls it."""
        fields = {"factory": spec.factory, "input_size": spec.input_size, "preprocess": spec.preprocess}
        fields |= {"prompts": list(spec.prompts), "prompt_rule": spec.prompt_rule}
        return fields | {"hyperparameters": dict(spec.hyperparameters)}

    def cases(self, label: str) -> int:
        """Number of cases of a data set."""
        return self._data[label][1]


def generation_key(digest: str, number: int | str) -> str:
    """Key that marks an asked-for repetition of a job (its digest with generation 0)."""
    return f"generations/{digest}/{number}"


def note_generations(plan: Plan, results: Results) -> None:
    """Make the repetitions of a plan the ones that later runs use."""
    for job in plan.unique:
        if job.spec.generation:
            base = job.spec.model_copy(update={"generation": 0})
            results.store.put_if_absent(generation_key(base.digest, job.spec.generation), b"")


def _loop(row: Row, name: str) -> str:
    """The 3D loop of a row: the one asked for, or its authors' own, by name, so that a digest tells them apart."""
    return variants.spec(row.ref.name).loop if name == PUBLISHED else name


def _needs(*jobs: str | PlannedJob | None) -> tuple[str, ...]:
    """Digests of the jobs that must be done before; an accuracy job may need a training and a deployment."""
    return tuple(job if isinstance(job, str) else job.digest for job in jobs if job)


def missing_weights(job: PlannedJob, results: Results) -> bool:
    """Whether the job needs weights, its own or its teacher's, that their training did not leave behind."""
    teacher = job.spec.teacher
    trained = [job.spec.weights.train_job, teacher.weights.train_job if teacher else None]
    return any(train and results.store.local(artifact_key(train, MODEL)) is None for train in trained)


def missing_deployment(job: PlannedJob, results: Results) -> bool:
    """Whether the job needs a deployment that was not prepared."""
    deploy = job.spec.deploy_job
    return deploy is not None and not (
        results.sealed(deploy) and results.store.local(artifact_key(deploy, DEPLOYMENT)) is not None
    )
