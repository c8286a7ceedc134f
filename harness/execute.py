"""Executors: where jobs are computed.  The local one keeps a worker process and survives its death."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

from harness.allocator import environment
from harness.jobs import JobSpec
from harness.results import Results
from harness.threads import RESTING
from harness.worker import Outcome

Progress = Callable[[int, float, str], None]
"""Told the index of the job at work, its fraction and a message."""


class Executor(Protocol):
    """Computes jobs one after another; a job that kills its process is an outcome, not an exception."""

    def run(self, specs: Sequence[JobSpec], progress: Progress) -> list[Outcome]:
        """Compute one job, or several runtime jobs in one session; returns when each is sealed or failed."""


class LocalExecutor:
    """One worker process on this machine, started when the first job comes and again after it died."""

    def __init__(self, results: Results, log: Path) -> None:
        self._results, self._log_path = results, log
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, specs: Sequence[JobSpec], progress: Progress) -> list[Outcome]:
        """A session whose worker dies goes on with another worker, as long as its journals grow."""
        while True:
            written = self._written(specs)
            outcomes = self._ask(specs, progress)
            if outcomes is not None:
                return outcomes
            epitaph = self._epitaph()
            if len(specs) == 1 or self._written(specs) <= written:
                return [Outcome("failed", epitaph)] * len(specs)

    def _written(self, specs: Sequence[JobSpec]) -> int:
        """Bytes in the journals of jobs that are not sealed, and something for each that is."""
        journals = (self._results.journal(spec.digest) for spec in specs)
        sizes = sum(path.stat().st_size for path in journals if path.exists())
        return sizes + sum(1 << 40 for spec in specs if self._results.sealed(spec.digest))

    def _ask(self, specs: Sequence[JobSpec], progress: Progress) -> list[Outcome] | None:
        """What the worker answers; ``None`` if it died."""
        process = self._started()
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the worker has no pipes")
        described = [spec.model_dump(mode="json") for spec in specs]
        request = {"specs": described, "results": str(self._results.root)}
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                message = json.loads(line)
                if "outcomes" in message:
                    return [Outcome(**outcome) for outcome in message["outcomes"]]
                progress(message["job"], message["progress"], message["message"])
        except BrokenPipeError:
            pass
        return None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._log_path.parent.mkdir(parents=True, exist_ok=True)
            self._log = self._log or self._log_path.open("a")
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                env={**RESTING, **os.environ, **environment("keep-pages")},
            )
        return self._process

    def _epitaph(self) -> str:
        code = self._forget()
        if code == -9:
            return "the worker process was killed (signal 9), most likely for lack of memory"
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"the worker process ended with {how}; see {self._log_path.name} in the run folder"

    def _forget(self) -> int:
        """Wait for the worker to be gone and close its pipes; returns its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with suppress(BrokenPipeError):
                    pipe.close()
        try:
            return process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def close(self) -> None:
        """End the worker: politely, so that it can stop containers, then for good."""
        if self._process is not None:
            self._process.terminate()
            self._forget()
        if self._log:
            self._log.close()
            self._log = None
