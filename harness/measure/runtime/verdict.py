"""From how a run ended to a status and a reason: one place for all sandboxes."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.failure import says_out_of_memory
from harness.measure.runtime.outputs import output_problem
from harness.measure.runtime.sandbox import Limits, Outcome, differences
from harness.schema import Status

TAIL_BYTES = 8192
REASON_LENGTH = 400


@dataclass(frozen=True)
class Ended:
    """How the program of a run ended, seen from outside.

    Attributes:
        returncode: its exit status; negative: the signal that killed it.
        stderr: the end of its standard error.
        timed_out: it was stopped because its time was over.
        killed_for_memory: the kernel or the engine says that it was killed for want of memory.
    """

    returncode: int
    stderr: str
    timed_out: bool = False
    killed_for_memory: bool = False


def judge(
    ended: Ended, told: dict[str, Any], case_file: Path, output_folder: Path, limits: Limits
) -> tuple[Status, str | None]:
    """Status and reason of a run that has ended."""
    if ended.timed_out:
        return "timeout", f"not finished after {limits.timeout_s:g} s"
    if ended.killed_for_memory:
        return "oom", f"killed for want of memory (limit {limits.memory_bytes} bytes)"
    if ended.returncode != 0:
        failure = told.get("failure") or told.get("cases", {}).get(case_file.stem) or {}
        line = _shorten(failure.get("reason") or last_line(ended.stderr))
        if failure.get("status") == "oom" or says_out_of_memory(ended.stderr):
            return "oom", f"memory could not be had (limit {limits.memory_bytes} bytes): {line}"
        if failure.get("status") == "invalid-output":
            return "invalid-output", line
        return "crashed", f"{_exit(ended.returncode)}: {line}"
    problem = output_problem(case_file, output_folder)
    return ("invalid-output", problem) if problem else ("ok", None)


def with_limits_checked(
    outcome: Outcome,
    asked: Limits,
    *,
    cpu_quota: bool,
    network: bool,
    swap: bool,
    cpus: bool = True,
    pids: bool = False,
    read_only: bool = False,
) -> Outcome:
    """``outcome``, but ``crashed`` if it is ``ok`` and the limits read back are not those asked for.

    The words for what a sandbox enforces are those of ``harness.measure.runtime.sandbox.differences``.
    """
    if not outcome.limits_read:
        return replace(outcome, detail={**outcome.detail, "limits": "not read back: the program does not tell them"})
    enforced = {"cpu_quota": cpu_quota, "network": network, "swap": swap, "pids": pids, "read_only": read_only}
    found = differences(asked, outcome.limits_read, **enforced)
    if not cpus:
        found = [text for text in found if not text.startswith("CPU")]
    if not found:
        return outcome
    detail = {**outcome.detail, "limits": found}
    if outcome.status != "ok":
        return replace(outcome, detail=detail)
    return replace(outcome, status="crashed", reason=f"limit not in force: {'; '.join(found)}", detail=detail)


def read_tail(path: Path) -> str:
    """The last ``TAIL_BYTES`` of a text file, empty if there is none."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - TAIL_BYTES))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""


def last_line(text: str) -> str:
    """The last line of a text that is not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "nothing on standard error"


def _shorten(text: str) -> str:
    return text if len(text) <= REASON_LENGTH else f"{text[:REASON_LENGTH]}…"


def _exit(returncode: int) -> str:
    number = -returncode if returncode < 0 else returncode - 128
    if returncode < 0 or returncode > 128:
        try:
            return f"killed by {signal.Signals(number).name}"
        except ValueError:
            pass
    return f"exit status {returncode}"
