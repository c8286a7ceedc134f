"""Where the time of one cold run went: marks from outside and inside, put together to sum to the wall time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIDE_FOLDER = ".bench"
SIDE_FILE = "worker.json"


@dataclass(frozen=True)
class Marks:
    """Times in seconds of the system clock, seen from outside.

    Attributes:
        begin, end: around the whole run; ``wall_s`` is measured between them by a monotonic clock.
        started: the first program of the run began (``None``: not known).
        finished: the last program of the run had ended (``None``: not known).
    """

    begin: float
    end: float
    wall_s: float
    started: float | None = None
    finished: float | None = None


def read_side_file(output_folder: Path) -> dict[str, Any]:
    """What the worker told about itself; empty if it is not our worker or it did not come that far."""
    try:
        told = json.loads((output_folder / SIDE_FOLDER / SIDE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def work_told(told: dict[str, Any], case: str) -> dict[str, Any]:
    """What the worker tells of its work; ``None``: not told.

    ``encodes``: how often it encoded an image of the case; ``encoded_again``: how often one it had encoded before;
    ``cpu_s``: its CPU seconds in all.
    """
    inside = told.get("cases", {}).get(case, {})
    return {**{name: inside.get(name) for name in ("encodes", "encoded_again")}, "cpu_s": told.get("cpu_s")}


def account(marks: Marks, told: dict[str, Any]) -> dict[str, float]:
    """Seconds of every phase that is known, and ``unaccounted``: what is left of the wall time.

    ``exit`` is what ending takes a program that has said its last word: its memory is given back to the machine.
    ``unaccounted`` is never folded into another phase; it can be slightly negative, because the engine writes its
    start time down a little after the program has begun.
    """
    phases: dict[str, float] = {}
    if marks.started is not None:
        phases["start"] = marks.started - marks.begin
        if "started" in told:
            phases["interpreter"] = max(0.0, float(told["started"]) - marks.started)
    for name, seconds in told.get("phases", {}).items():
        phases[name] = float(seconds)
    for case in told.get("cases", {}).values():
        for name, seconds in case.get("phases", {}).items():
            phases[name] = phases.get(name, 0.0) + float(seconds)
    if marks.finished is not None:
        if "finished" in told:
            phases["exit"] = max(0.0, marks.finished - float(told["finished"]))
        phases["stop"] = max(0.0, marks.end - marks.finished)
    phases["unaccounted"] = marks.wall_s - sum(phases.values())
    return phases
