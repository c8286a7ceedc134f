"""The one exception a user is meant to read."""

from __future__ import annotations


class BenchError(Exception):
    """A mistake in the input, said in one sentence that names the file and field and how to mend it.

    The command line prints the message without a traceback and exits with ``exit_code``.
    """

    exit_code: int = 2
