"""The process that computes jobs: one line of JSON in, progress and one outcome out.

Started by the executor as ``python -m harness.worker``; it dies with its parent, holds the job's lock while it works,
and writes nothing but the journal, the job's scratch folder and, at the end, the store.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.config import JobKind
from harness.errors import BenchError, UnavailableError
from harness.jobs import JobContext, JobSpec
from harness.locks import alone, file_lock, machine_lock_path
from harness.parent import end_with_parent
from harness.results import Results
from harness.schema import Record
from harness.store import Journal, artifact_key, records_key, seal

RUNNERS: dict[JobKind, str] = {
    "train": "harness.training.job:run",
    "deploy": "harness.deploy.job:run",
    "accuracy": "harness.measure.accuracy:run",
    "complexity": "harness.measure.complexity:run",
    "latency": "harness.measure.latency.job:run",
    "runtime": "harness.measure.runtime.job:run",
}

Say = Callable[[float, str], None]
WAITING = "waiting for other work on this machine to end, timings run alone"


def load_runner(kind: JobKind) -> Callable[[JobSpec, JobContext], None]:
    module, _, name = RUNNERS[kind].partition(":")
    runner: Callable[[JobSpec, JobContext], None] = getattr(import_module(module), name)
    return runner


class Context:
    """The executor's side of ``harness.jobs.JobContext``."""

    def __init__(self, digest: str, results: Results, journal: Journal, say: Say, machine: int) -> None:
        self._digest, self._results, self._journal, self._say, self._machine = digest, results, journal, say, machine

    @property
    def work(self) -> Path:
        folder = self._results.work(self._digest)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def cache(self) -> Path:
        self._results.cache.mkdir(parents=True, exist_ok=True)
        return self._results.cache

    def alone(self) -> AbstractContextManager[None]:
        return alone(self._machine, lambda: self._say(0.9, WAITING))

    def done(self, key: str) -> bool:
        return self._journal.done(key)

    def records(self) -> list[Record]:
        return self._journal.records()

    def append(self, key: str, records: Iterable[Record]) -> None:
        self._journal.append(key, records)

    def progress(self, fraction: float, message: str) -> None:
        self._say(fraction, message)

    def artifact(self, name: str) -> Path | None:
        return self._results.store.local(f"artifacts/{name}")

    def put_artifact(self, name: str, path: Path) -> None:
        self._results.store.put_if_absent(artifact_key(self._digest, name), path)


@dataclass(frozen=True)
class Outcome:
    """How a job ended: ``done``, ``cached`` (somebody else had just finished it), ``skipped`` or ``failed``."""

    state: str
    reason: str | None = None
    seconds: float = 0.0


def perform(spec: JobSpec, results: Results, say: Say) -> Outcome:
    """Run one job to its seal, or find it sealed.  Continues the journal of an interrupted attempt."""
    digest, started = spec.digest, time.monotonic()
    with file_lock(results.lock(digest), waiting=lambda: say(0.0, "another run is doing this job; waiting for it")):
        if results.sealed(digest):
            results.tidy(digest)
            return Outcome("cached")
        reason = WAITING if spec.exclusive else "waiting for a timing to end"
        with file_lock(machine_lock_path(), shared=not spec.exclusive, waiting=lambda: say(0.0, reason)) as machine:
            journal = Journal(results.journal(digest))
            try:
                load_runner(spec.kind)(spec, Context(digest, results, journal, say, machine))
            except (BenchError, MemoryError) as error:
                return _unfinished(error, time.monotonic() - started)
            finally:
                journal.close()
            say(1.0, "sealing")
            _seal(results, digest, journal)
    return Outcome("done", None, time.monotonic() - started)


def perform_together(
    specs: Sequence[JobSpec], results: Results, say: Callable[[int, float, str], None]
) -> list[Outcome]:
    """Run runtime jobs in one session, interleaved; an outcome each, in their order.  Continues their journals.

    Args:
        specs: of runtime jobs of one sandbox, each another job.
        results: where they are stored.
        say: told the index of the job at work, its fraction and a message.
    """
    from harness.measure.runtime.job import run_together

    outcomes: dict[int, Outcome] = {}
    with ExitStack() as stack:
        # Everybody takes the locks in one order, so that two sessions with common jobs do not block each other.
        for index in sorted(range(len(specs)), key=lambda i: specs[i].digest):
            busy = partial(say, index, 0.0, "another run is doing this job; waiting for it")
            stack.enter_context(file_lock(results.lock(specs[index].digest), waiting=busy))
        machine = stack.enter_context(file_lock(machine_lock_path(), waiting=partial(say, 0, 0.0, WAITING)))
        journals: dict[int, Journal] = {}
        for index, spec in enumerate(specs):
            if results.sealed(spec.digest):
                results.tidy(spec.digest)
                outcomes[index] = Outcome("cached")
            else:
                journals[index] = Journal(results.journal(spec.digest))
                stack.callback(journals[index].close)
        contexts = {
            i: Context(specs[i].digest, results, journal, partial(say, i), machine) for i, journal in journals.items()
        }
        turns, order = Turns(), list(journals)
        problems = run_together([(specs[i], contexts[i]) for i in order], lambda turn: turns.take(order[turn]))
        turns.end()
        for index, problem in zip(order, problems, strict=True):
            seconds = turns.seconds.get(index, 0.0)
            if problem is None:
                _seal(results, specs[index].digest, journals[index])
            outcomes[index] = Outcome("done", None, seconds) if problem is None else _unfinished(problem, seconds)
    return [outcomes[index] for index in range(len(specs))]


class Turns:
    """Whose turn it is, and the seconds each job had so far."""

    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}
        self._now: int | None = None
        self._since = time.monotonic()

    def take(self, index: int | None) -> None:
        moment = time.monotonic()
        if self._now is not None:
            self.seconds[self._now] = self.seconds.get(self._now, 0.0) + moment - self._since
        self._now, self._since = index, moment

    def end(self) -> None:
        self.take(None)


def _unfinished(problem: BaseException, seconds: float) -> Outcome:
    """A job that could not be finished: to be asked for again, or failed."""
    if isinstance(problem, MemoryError):
        return Outcome("failed", "out of memory", seconds)
    return Outcome("skipped" if isinstance(problem, UnavailableError) else "failed", str(problem), seconds)


def _seal(results: Results, digest: str, journal: Journal) -> None:
    results.store.put_if_absent(records_key(digest), seal(journal.records()))
    results.tidy(digest)


def main() -> None:
    """Serve jobs until standard input ends.  Whatever a library prints goes to the log, not into the protocol."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # lets sandboxes clean up
    protocol = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def send(**message: Any) -> None:
        protocol.write(json.dumps(message) + "\n")

    for line in sys.stdin:
        request = json.loads(line)
        specs = [JobSpec.model_validate(spec) for spec in request["specs"]]
        results = Results(Path(request["results"]))
        try:
            if specs[0].kind == "runtime":
                outcomes = perform_together(specs, results, lambda i, f, m: send(job=i, progress=f, message=m))
            else:
                outcomes = [perform(specs[0], results, lambda f, m: send(job=0, progress=f, message=m))]
        except Exception as error:  # the last line of defence: a defect ends the job, not the run
            traceback.print_exc()
            outcomes = [Outcome("failed", f"{type(error).__name__}: {error}")] * len(specs)
        send(outcomes=[asdict(outcome) for outcome in outcomes])


if __name__ == "__main__":
    main()
