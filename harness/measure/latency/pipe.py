"""A child process that answers a line of JSON with a line of JSON: both ends of the pipe, standard library alone."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.failure import reason_of, says_out_of_memory, status_of
from harness.schema import Status

ANSWER_S = 900.0
"""Seconds an answer may take; loading and warming up the largest model on one thread takes a fraction of it."""
_TAIL = 4000
_GRACE_S = 10.0


class ChildError(Exception):
    """A child process could not do what it was asked.

    Attributes:
        status: ``oom``, ``timeout``, ``crashed`` or ``invalid-output``.
        reason: one line.
    """

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Child:
    """A Python module as a child process; ended with the block it is used in.

    Args:
        module: to run; it calls `serve`.
        environment: all of its environment variables.
        log: file that receives what it prints.
    """

    def __init__(self, module: str, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=dict(environment),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        pipes = (self._process.stdin, self._process.stdout)
        for pipe in pipes:
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S if kind is None else 0.1)
            return
        self._process.kill()
        self._process.wait()

    def ask(self, what: str, **more: Any) -> dict[str, Any]:
        """Have something done and wait for the answer.

        Raises:
            ChildError: it failed, the process died, or there was no answer within `ANSWER_S`.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the child process has no pipes")
        line = ""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": what, **more}) + "\n")
            self._process.stdin.flush()
            # An answer is one line, written at once: nothing of it is left in a buffer that select cannot see.
            if not select.select([self._process.stdout], [], [], ANSWER_S)[0]:
                raise ChildError("timeout", f"no answer to {what!r} within {ANSWER_S:g} s")
            line = self._process.stdout.readline()
        if not line:
            raise self._epitaph()
        answer: dict[str, Any] = json.loads(line)
        if "status" in answer:
            raise ChildError(answer["status"], answer["reason"])
        return answer

    def _epitaph(self) -> ChildError:
        """How the process died: by a signal, or with the last line it printed."""
        code = self._process.wait()
        said = self._log.read_text(encoding="utf-8", errors="replace")[-_TAIL:].strip()
        if says_out_of_memory(said):
            return ChildError("oom", said.splitlines()[-1])
        if code == -9:
            return ChildError("crashed", "the process was killed (signal 9), most likely for lack of memory")
        how = f"the process ended with signal {-code}" if code < 0 else f"the process ended with exit code {code}"
        return ChildError("crashed", f"{how}: {said.splitlines()[-1]}" if said else how)


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """In the child: answer every line until the parent closes the pipe; what libraries print goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            found = answer(json.loads(line))
        except Exception as error:  # a failure is an answer
            found = {"status": status_of(error), "reason": reason_of(error)}
        replies.write(json.dumps(found) + "\n")
