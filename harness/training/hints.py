"""Advice that a training run gives about itself."""

from __future__ import annotations

import os

TOLERATED = 0.1
"""Share of the time spent waiting for data about which nothing is said."""


def loader_hint(waited: float, total: float, workers: int, processors: int | None = None) -> str | None:
    """What to do where more than 10 % of the time went into waiting for data, in one sentence; else nothing.

    Args:
        waited: seconds spent waiting for batches.
        total: seconds of the steps, waiting included.
        workers: processes that prepared batches.
        processors: those that this process may use; looked up if left out.
    """
    if total <= 0 or waited / total <= TOLERATED:
        return None
    processors = _processors() if processors is None else processors
    lost = f"{waited / total:.0%} of the training time went into waiting for data"
    smaller = "smaller images are decoded faster"
    if workers + 1 >= processors:
        return f"{lost}, and no processor is left for more `workers`: {smaller}."
    return f"{lost}: set `workers: {min(max(2, 2 * workers), processors - 1)}` in the recipe; {smaller}, too."


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
