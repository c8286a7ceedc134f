"""From an exception to a status and a reason: one rule for the engine and for the measured worker.

Standard library alone, since the measured process imports it.
"""

from __future__ import annotations

from harness.errors import BenchError, OutOfMemoryError
from harness.schema import Status

_NO_MEMORY = (
    "memoryerror",
    "std::bad_alloc",
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "not enough memory",
    "insufficient memory",
)


class InvalidOutputError(ValueError):
    """A model or a submission answered with something that is no segmentation of its input."""


def says_out_of_memory(text: str) -> bool:
    """Whether an error message or a standard error says that memory ran out."""
    lower = text.lower()
    return any(words in lower for words in _NO_MEMORY)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out: Python, torch and OpenCV (code -4) each have their own."""
    if isinstance(error, MemoryError | OutOfMemoryError) or getattr(error, "code", None) == -4:
        return True
    # Other sentences meant for users quote file names, which may hold any words.
    return not isinstance(error, BenchError | InvalidOutputError) and says_out_of_memory(str(error))


def status_of(error: BaseException) -> Status:
    """``invalid-output``, ``oom`` or ``crashed``."""
    if isinstance(error, InvalidOutputError):
        return "invalid-output"
    return "oom" if is_out_of_memory(error) else "crashed"


def first_line(error: BaseException) -> str:
    """The first line of a message that says what happened, cut at 300 characters; empty if there is none.

    OpenVINO begins with the place in its own sources.
    """
    lines = [line for line in str(error).strip().splitlines() if line and not line.startswith("Exception from")]
    return lines[0][:300] if lines else ""


def reason_of(error: BaseException) -> str:
    """One line: a sentence meant for users as it is, else the exception's type and the first line of its text."""
    text = first_line(error)
    if isinstance(error, BenchError | InvalidOutputError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
