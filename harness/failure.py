"""From an exception to a status and a reason: one rule for the engine and for the measured worker.

Standard library alone, since the measured process imports it.
"""

from __future__ import annotations

from harness.errors import BenchError
from harness.schema import Status


class InvalidOutputError(ValueError):
    """A model or a submission answered with something that is no segmentation of its input."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out: Python, torch and OpenCV (code -4) each have their own."""
    text = str(error).lower()
    words = ("can't allocate memory", "not enough memory", "insufficient memory")
    return isinstance(error, MemoryError) or getattr(error, "code", None) == -4 or any(w in text for w in words)


def status_of(error: BaseException) -> Status:
    """``invalid-output``, ``oom`` or ``crashed``."""
    if isinstance(error, InvalidOutputError):
        return "invalid-output"
    return "oom" if is_out_of_memory(error) else "crashed"


def reason_of(error: BaseException) -> str:
    """One line: a sentence meant for users as it is, else the exception's type and the first line of its text."""
    lines = str(error).strip().splitlines()
    text = lines[0][:300] if lines else ""
    if isinstance(error, BenchError | InvalidOutputError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
