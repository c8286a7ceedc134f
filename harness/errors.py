"""The one exception a user is meant to read."""

from __future__ import annotations


class BenchError(Exception):
    """A mistake in the input, said in one sentence that names the file and field and how to mend it.

    The command line prints the message without a traceback and exits with ``exit_code``.
    """

    exit_code: int = 2


class UnavailableError(BenchError):
    """What a job needs is not to be had on this machine now.

    The job is skipped with the message as its reason, nothing is stored, and the next run asks again.
    """


class OutOfMemoryError(BenchError):
    """The input is sound, but this process may not have the memory it needs."""
