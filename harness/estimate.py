"""How long the jobs of a plan will take, from what jobs took on this machine before."""

from __future__ import annotations

import json
from collections.abc import Iterable
from statistics import median

from harness.config import JobKind
from harness.machine import this_machine
from harness.plan import PlannedJob
from harness.results import Results

ROUGH_SECONDS: dict[JobKind, float] = {
    "train": 0.75,
    "deploy": 60.0,
    "accuracy": 3.0,
    "complexity": 5.0,
    "latency": 1.5,
    "runtime": 6.0,
}
"""Seconds a unit of work where nothing is known yet."""


def estimate(jobs: Iterable[PlannedJob], results: Results) -> tuple[float, bool]:
    """Seconds that the uncached jobs will take, and whether all of it comes from earlier runs on this machine."""
    history = _history(results)
    total, sure = 0.0, True
    for job in jobs:
        if job.cached:
            continue
        known = history.get((job.spec.kind, job.spec.variant.name, job.sandbox))
        sure = sure and known is not None
        total += job.units * (median(known) if known else ROUGH_SECONDS[job.spec.kind])
    return total, sure


def _history(results: Results) -> dict[tuple[str, str, str | None], list[float]]:
    history: dict[tuple[str, str, str | None], list[float]] = {}
    if results.durations.exists():
        for line in results.durations.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # a line cut by a kill
                continue
            if row["machine"] == this_machine().fingerprint:
                key = (row["kind"], row["variant"], row["sandbox"])
                history.setdefault(key, []).append(row["seconds"] / row["units"])
    return history
