"""The process that computes jobs: one line of JSON in, progress and one outcome out.

Started by the executor as ``python -m harness.worker``; it dies with its parent, holds the job's lock while it works,
and writes nothing but the journal, the job's scratch folder and, at the end, the store.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.config import JobKind
from harness.errors import BenchError, UnavailableError
from harness.jobs import JobContext, JobSpec
from harness.locks import file_lock, machine_lock_path
from harness.results import Results
from harness.schema import Record
from harness.store import Journal, artifact_key, records_key, seal

RUNNERS: dict[JobKind, str] = {
    "train": "harness.training.job:run",
    "accuracy": "harness.measure.accuracy:run",
    "complexity": "harness.measure.complexity:run",
    "runtime": "harness.measure.runtime.job:run",
}

Say = Callable[[float, str], None]


def load_runner(kind: JobKind) -> Callable[[JobSpec, JobContext], None]:
    module, _, name = RUNNERS[kind].partition(":")
    runner: Callable[[JobSpec, JobContext], None] = getattr(import_module(module), name)
    return runner


class Context:
    """The executor's side of ``harness.jobs.JobContext``."""

    def __init__(self, digest: str, results: Results, journal: Journal, say: Say) -> None:
        self._digest, self._results, self._journal, self._say = digest, results, journal, say

    @property
    def work(self) -> Path:
        folder = self._results.work(self._digest)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def cache(self) -> Path:
        self._results.cache.mkdir(parents=True, exist_ok=True)
        return self._results.cache

    def done(self, key: str) -> bool:
        return self._journal.done(key)

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
            _tidy(results, digest)
            return Outcome("cached")
        alone = "other work on this machine to end, timings run alone"
        with file_lock(
            machine_lock_path(),
            shared=not spec.exclusive,
            waiting=lambda: say(0.0, f"waiting for {alone if spec.exclusive else 'a timing to end'}"),
        ):
            journal = Journal(results.journal(digest))
            try:
                load_runner(spec.kind)(spec, Context(digest, results, journal, say))
            except UnavailableError as error:
                return Outcome("skipped", str(error), time.monotonic() - started)
            except BenchError as error:
                return Outcome("failed", str(error), time.monotonic() - started)
            except MemoryError:
                return Outcome("failed", "out of memory", time.monotonic() - started)
            finally:
                journal.close()
            say(1.0, "sealing")
            results.store.put_if_absent(records_key(digest), seal(journal.records()))
            _tidy(results, digest)
    return Outcome("done", None, time.monotonic() - started)


def _tidy(results: Results, digest: str) -> None:
    """Remove what only an unfinished job needs."""
    results.journal(digest).unlink(missing_ok=True)
    shutil.rmtree(results.work(digest), ignore_errors=True)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def main() -> None:
    """Serve jobs until standard input ends.  Whatever a library prints goes to the log, not into the protocol."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # lets sandboxes clean up
    protocol = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def send(**message: Any) -> None:
        protocol.write(json.dumps(message) + "\n")

    for line in sys.stdin:
        request = json.loads(line)
        spec = JobSpec.model_validate(request["spec"])
        results = Results(Path(request["results"]))
        try:
            outcome = perform(spec, results, lambda f, m: send(progress=f, message=m))
        except Exception as error:  # the last line of defence: a defect ends the job, not the run
            traceback.print_exc()
            outcome = Outcome("failed", f"{type(error).__name__}: {error}")
        send(state=outcome.state, reason=outcome.reason, seconds=outcome.seconds)


if __name__ == "__main__":
    main()
