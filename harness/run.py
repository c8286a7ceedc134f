"""One execution of a suite: a folder with provenance, job states and a log, kept true at every moment."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import variants
from harness.config import ImageRef, canonical
from harness.errors import BenchError
from harness.execute import Executor, LocalExecutor
from harness.files import write_atomic
from harness.locks import file_lock, is_locked
from harness.machine import docker_version, this_machine
from harness.plan import Plan, PlannedJob, missing_deployment, missing_weights, note_generations
from harness.provenance import git_state, versions
from harness.results import MODEL, Results, read_run
from harness.store import artifact_key, records_key, seal, unseal

FORMAT = 1


class Watcher(Protocol):
    """Who is told what a run does: the terminal, a log, a test."""

    def started(self, job: PlannedJob, index: int, total: int) -> None: ...

    def progress(self, job: PlannedJob, fraction: float, message: str) -> None: ...

    def ended(self, job: PlannedJob, state: str, reason: str | None, seconds: float) -> None: ...


def precheck(job: PlannedJob) -> str | None:
    """Why a job cannot be done on this machine now, or ``None``.  Such a job is skipped and asked again next time."""
    if job.spec.kind != "runtime":
        return None
    from harness.measure.runtime.job import precheck as sandbox_missing

    return sandbox_missing(job.spec)


class Run:
    """The run folder of a plan; continues the folder of an interrupted run of the same plan."""

    def __init__(
        self, plan: Plan, results: Results, command: Sequence[str], overrides: Sequence[str] = (), path: str = ""
    ) -> None:
        self.plan, self.results = plan, results
        self.states: dict[str, tuple[str, str | None, float]] = {j.digest: ("pending", None, 0.0) for j in plan.jobs}
        self.folder = _unfinished(plan, results) or results.runs / _new_id(plan.suite.name)
        self.resumed = self.folder.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._begun = time.monotonic()
        self._data = self._describe(command, overrides, path)

    def execute(self, watcher: Watcher, check: Callable[[PlannedJob], str | None] = precheck) -> int:
        """Do every job that is not stored yet; returns the number of failed jobs.

        Ctrl-C leaves the run ``interrupted``: everything finished so far is kept.
        """
        with (
            file_lock(self.folder / ".lock"),
            LocalExecutor(self.results, self.folder / "log.txt") as executor,
        ):
            self._save("running")
            self.results.sweep()
            note_generations(self.plan, self.results)
            try:
                for group in sessions(self.plan.unique):
                    self._do(group, executor, watcher, check)
            except BaseException:
                self._save("interrupted")
                raise
            self._save("finished")
        return sum(self._counts_as_failed(job) for job in self.plan.unique)

    def _counts_as_failed(self, job: PlannedJob) -> bool:
        """Failed, or skipped although the suite insists on the sandbox, or for want of a deployment's library."""
        state = self.states[job.digest][0]
        measure = self.plan.suite.measure.runtime
        insists = job.spec.kind == "runtime" and measure is not None and measure.missing_sandbox == "error"
        missing = state == "skipped" and (insists or job.spec.kind == "deploy")
        return state == "failed" or missing

    def _do(
        self,
        group: Sequence[PlannedJob],
        executor: Executor,
        watcher: Watcher,
        check: Callable[[PlannedJob], str | None],
    ) -> None:
        """Do one job, or the timings of a session together, as far as they are not stored and can be done."""
        todo = [job for job in group if self._is_to_do(job, watcher, check)]
        if not todo:
            return
        for job in todo:
            watcher.started(job, self.plan.unique.index(job), len(self.plan.unique))
            self.event("start", job)
        outcomes = executor.run([job.spec for job in todo], lambda i, f, m: watcher.progress(todo[i], f, m))
        for job, outcome in zip(todo, outcomes, strict=True):
            failure = outcome.reason or training_failure(job, self.results)
            state = "failed" if failure and outcome.state == "done" else outcome.state
            self.states[job.digest] = (state, failure, outcome.seconds)
            self.event(outcome.state, job)
            if outcome.state == "done":
                _note_duration(job, outcome.seconds, self.results)
            watcher.ended(job, *self.states[job.digest])
        self._save("running")

    def _is_to_do(self, job: PlannedJob, watcher: Watcher, check: Callable[[PlannedJob], str | None]) -> bool:
        """Whether a job is neither stored nor impossible; if it is, its state says so."""
        if job.cached:
            failure = training_failure(job, self.results)
            self.states[job.digest] = ("failed", failure, 0.0) if failure else ("cached", None, 0.0)
            return False
        reason = self._unmet(job) or check(job)
        if reason:
            self.states[job.digest] = ("skipped", reason, 0.0)
            watcher.ended(job, *self.states[job.digest])
            self._save("running")
        return not reason

    def _unmet(self, job: PlannedJob) -> str | None:
        """What the job needs and another job did not leave behind."""
        if missing_weights(job, self.results):
            return "the training it needs did not finish"
        if not missing_deployment(job, self.results):
            return None
        why = self.states.get(str(job.spec.deploy_job), ("", None, 0.0))[1]
        return "the deployment it needs could not be prepared" + (f": {why}" if why else "")

    def event(self, what: str, job: PlannedJob | None = None) -> None:
        """Add a line to the run's history (``events.jsonl``)."""
        line = {"at": _now(), "pid": os.getpid(), "event": what}
        if job:
            line |= {"job": job.digest, "kind": job.spec.kind}
        with (self.folder / "events.jsonl").open("a") as out:
            out.write(json.dumps(line) + "\n")

    def _save(self, status: str) -> None:
        finished = _now() if status != "running" else None
        jobs = [self._job(j) for j in self.plan.jobs]
        seconds = time.monotonic() - self._begun
        data = self._data | {"status": status, "finished": finished, "seconds": round(seconds, 1), "jobs": jobs}
        write_atomic(self.folder / "run.json", json.dumps(data, indent=1))

    def _job(self, job: PlannedJob) -> dict[str, Any]:
        state, reason, seconds = self.states[job.digest]
        return {
            "digest": job.digest,
            "kind": job.spec.kind,
            "stage": job.stage,
            "variant": job.row,
            "deployment": job.deployment,
            "dataset": job.dataset,
            "sandbox": job.sandbox,
            "seed": job.spec.seed,
            "needs": list(job.needs),
            "state": state,
            "reason": reason,
            "seconds": round(seconds, 2),
            "settings": job.spec.settings,
            "weights": job.spec.weights.model_dump(mode="json"),
        }

    def _describe(self, command: Sequence[str], overrides: Sequence[str], path: str) -> dict[str, Any]:
        suite = self.plan.suite
        started = read_run(self.folder)["started"] if (self.folder / "run.json").is_file() else _now()
        seeds = sorted({job.spec.seed for job in self.plan.jobs})
        return {
            "format": FORMAT,
            "id": self.folder.name,
            "plan": self.plan.digest,
            "suite": {k: getattr(suite, k) for k in ("name", "title", "description", "takes")} | {"path": path},
            "started": started,
            "command": list(command),
            "overrides": list(overrides),
            "provenance": {
                "git": git_state(),
                "versions": {"python": sys.version.split()[0], "medsam-bench": _own_version(), **versions()},
                "machine": this_machine().as_dict() | {"docker": docker_version()},
                "seeds": seeds,
                "datasets": self.plan.datasets,
            },
            "gates": [canonical(rule) for rule in suite.gates.values()],
            "variants": {label: self._row(label) for label in self.plan.rows},
            "resolved": canonical(suite),
        }

    def _row(self, label: str) -> dict[str, Any]:
        row = self.plan.rows[label]
        if row.image:
            return _image_row(label, row.image)
        spec = variants.resolve(row.ref.name, row.ref.set)
        return {
            "name": row.ref.name,
            "set": dict(row.ref.set),
            "summary": spec.summary,
            "source": spec.source,
            "family": spec.family,
            "tiny": row.ref.name.endswith("_tiny"),
            "trainable": spec.needs_torch,
            "weights": row.weights,
            "base": row.base,
            "ablation": row.ablation,
        }


def sessions(jobs: Iterable[PlannedJob]) -> Iterator[list[PlannedJob]]:
    """Jobs in order: the timings of one sandbox together, which are measured in turns, every other job alone."""

    groups: dict[str, list[PlannedJob]] = {}
    for job in jobs:
        name = f"runtime in {job.sandbox}" if job.spec.kind == "runtime" else job.digest
        groups.setdefault(name, []).append(job)
    yield from groups.values()


def _image_row(label: str, image: ImageRef) -> dict[str, Any]:
    """What reports know of a row that is somebody else's image."""
    settings = image.model_dump(exclude={"source"}, exclude_defaults=True)
    said = {"summary": "an image that is not ours, measured as it is", "source": image.source, "family": "image"}
    flags = {"tiny": False, "trainable": False, "weights": None, "base": None, "ablation": None}
    return {"name": label, "set": settings, **said, **flags}


def training_failure(job: PlannedJob, results: Results) -> str | None:
    """Why a training that is stored left no weights behind (it diverged), else ``None``."""
    if job.spec.kind != "train" or results.store.local(artifact_key(job.digest, MODEL)) is not None:
        return None
    records = unseal(results.store.get(records_key(job.digest)) or seal([]))
    return next((r.reason for r in records if r.status != "ok"), None)


def _unfinished(plan: Plan, results: Results) -> Path | None:
    for folder in results.run_folders():
        data = read_run(folder)
        if data.get("plan") == plan.digest and data["status"] in ("running", "interrupted"):
            return None if is_locked(folder / ".lock") else folder
    return None


def _note_duration(job: PlannedJob, seconds: float, results: Results) -> None:
    row = {
        "machine": this_machine().fingerprint,
        "kind": job.spec.kind,
        "variant": job.spec.variant.name,
        "sandbox": job.sandbox,
        "units": job.units,
        "seconds": round(seconds, 3),
    }
    with results.durations.open("a") as out:
        out.write(json.dumps(row) + "\n")


def _new_id(name: str) -> str:
    return f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _own_version() -> str:
    return versions(["medsam-bench"])["medsam-bench"]


WITHOUT = "with `measure.runtime.missing_sandbox=skip` the rest is measured without it"


def require_sandboxes(plan: Plan, remedy: str = WITHOUT) -> None:
    """Refuse a suite that insists on a sandbox this machine does not have, before any time is spent.

    Args:
        plan: of the suite.
        remedy: how to go on, the end of the message.

    Raises:
        BenchError: naming the sandbox, what is missing and how to go on without.
    """
    measure = plan.suite.measure.runtime
    if measure is None or measure.missing_sandbox == "skip":
        return
    for job in plan.unique:
        reason = None if job.cached else precheck(job)
        if reason:
            raise BenchError(f"the suite measures runtime in the {job.sandbox} sandbox, but {reason}; {remedy}.")
