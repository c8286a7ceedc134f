"""The other processes of a training under ``torchrun``: they share the first one's steps and write nothing.

The first process plans, records and stores as ever.  Every other one takes part in the same training jobs, in the same
order, with what the first has stored.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BenchError
from harness.jobs import JobSpec
from harness.results import MODEL, Results
from harness.schema import Record
from harness.store import artifact_key

PATIENCE = 600.0
"""Seconds that another process's weights are waited for."""


def follow(specs: Iterable[JobSpec], results: Results) -> None:
    """Take part in every training job that is not stored yet; returns when the last one has ended.

    Raises:
        BenchError: the first process did not store weights that the next job starts from.
    """
    from harness.allocator import keep_pages
    from harness.training import job

    keep_pages()
    for spec in specs:
        if spec.kind == "train" and not results.sealed(spec.digest):
            if not _can_start(spec, results):
                continue
            with _context(results) as context:
                job.run(spec, context)


@dataclass(frozen=True)
class _Context:
    """A job context that reads what is stored and keeps nothing."""

    work: Path
    cache: Path
    results: Results

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()

    def done(self, key: str) -> bool:
        return False

    def records(self) -> list[Record]:
        return []

    def append(self, key: str, records: Iterable[Record]) -> None:
        """The first process does."""

    def progress(self, fraction: float, message: str) -> None:
        """The first process says it."""

    def artifact(self, name: str) -> Path | None:
        return self.results.store.local(f"artifacts/{name}")

    def put_artifact(self, name: str, path: Path) -> None:
        """The first process does."""


@contextmanager
def _context(results: Results) -> Iterator[_Context]:
    with tempfile.TemporaryDirectory() as work:
        yield _Context(Path(work), results.cache, results)


def _can_start(spec: JobSpec, results: Results) -> bool:
    """Waits for the weights a job starts from, its teacher's too: they are stored when the first process has ended the
    job before; ``False`` if that diverged, so that the first process leaves this one out."""
    teacher = spec.teacher.weights.train_job if spec.teacher else None
    for digest in (spec.weights.train_job, teacher):
        deadline = time.monotonic() + PATIENCE
        while digest and results.store.local(artifact_key(digest, MODEL)) is None:
            if results.sealed(digest):
                return False
            if time.monotonic() > deadline:
                raise BenchError(f"the weights of training {digest[:12]} did not appear; see the first process's error")
            time.sleep(0.2)
    return True
