"""Whether the machine was left alone while a run was timed: read before and after it, a few milliseconds each time.

Sources: ``proc(5)`` (``/proc/stat``), Linux ``Documentation/admin-guide/pm/`` and ``x86/x86_64`` sysfs
(``thermal_throttle/core_throttle_count``).  What a system does not tell is left out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STEAL = 0.02
"""Share of the CPU time that the hypervisor may give to others."""
OTHERS = 0.15
"""Share of the CPU time during a run that other work may take, beside what an engine needs for a container."""
ENGINE_S = 0.5
"""CPU seconds that a container engine may take to start and stop one container."""
SLOWER = 1.3
"""How much longer than the fastest so far of its session the probe may take."""
FIRST_PROBES = 20
"""Probes at the beginning of a session; later ones are held against the fastest of them."""
_PROBE = 30_000
_CPU_FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


@dataclass(frozen=True)
class State:
    """One reading: CPU seconds of all cores by field of ``/proc/stat``, throttling events so far, load, the probe's
    seconds."""

    cpu: Mapping[str, float]
    throttled: int | None
    load: tuple[float, ...] | None
    probe_s: float


def read_state(cores: int | None = None) -> State:
    """The machine now, or only the first ``cores`` of the CPUs this process may use, which runs are pinned to.

    The probe is a fixed piece of work of this process; contention and throttling lengthen it.
    """
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return State(_cpu_seconds(cores), _throttle_count(), load, _probe())


def compare(before: State, after: State, fastest_s: float, own_s: float | None = None) -> dict[str, Any]:
    """What happened to the machine meanwhile, as JSON data; ``disturbed`` lists, in words, what makes a run suspect.

    Args:
        before, after: readings around the run.
        fastest_s: the fastest probe of the session so far.
        own_s: CPU seconds of the run itself, if they are known.
    """
    found: dict[str, Any] = {"load_average": before.load, "probe_s": round(before.probe_s, 5)}
    why: list[str] = []
    spent = {name: after.cpu[name] - before.cpu[name] for name in before.cpu if name in after.cpu}
    if sum(spent.values()) > 0:
        steal = spent.get("steal", 0.0) / sum(spent.values())
        found["steal"] = round(steal, 4)
        if steal > STEAL:
            why.append(f"the hypervisor took {steal:.0%} of the CPU time")
        others = spent_by_others(spent, own_s)
        if others is not None:
            found["others"] = round(others / sum(spent.values()), 4)
            if others > ENGINE_S + OTHERS * sum(spent.values()):
                why.append(f"other work took {found['others']:.0%} of the CPU time")
    if before.throttled is not None and after.throttled is not None and after.throttled > before.throttled:
        why.append(f"the CPU was throttled {after.throttled - before.throttled} times for heat")
    slower = max(before.probe_s, after.probe_s) / fastest_s if fastest_s > 0 else 1.0
    if slower > SLOWER:
        why.append(f"a fixed piece of work took {slower:.1f} times its fastest")
    return found | {"disturbed": why}


def spent_by_others(spent: Mapping[str, float], own_s: float | None) -> float | None:
    """CPU seconds that neither the run nor idleness took; the engine's and the harness's own are among them."""
    if own_s is None:
        return None
    busy = sum(seconds for name, seconds in spent.items() if name not in ("idle", "iowait", "steal"))
    return max(0.0, busy - own_s)


def fastest_probe() -> float:
    """The fastest of some probes, seconds."""
    return min(_loop() for _ in range(FIRST_PROBES))


def _probe() -> float:
    """Seconds of the better of two identical loops: a single hiccup of the scheduler is no disturbance."""
    return min(_loop(), _loop())


def _loop() -> float:
    begin, total = time.perf_counter(), 0
    for number in range(_PROBE):
        total += number & 7
    return time.perf_counter() - begin


def _cpu_seconds(cores: int | None) -> dict[str, float]:
    """CPU seconds by field, of all CPUs or of the first of those this process may use."""
    names = {"cpu"}
    if cores is not None and hasattr(os, "sched_getaffinity"):
        names = {f"cpu{number}" for number in sorted(os.sched_getaffinity(0))[:cores]}
    try:
        with Path("/proc/stat").open(encoding="ascii") as stream:
            lines = [words for words in map(str.split, stream) if words[0] in names]
    except OSError:
        return {}
    hertz = os.sysconf("SC_CLK_TCK")
    return {
        name: sum(int(words[place]) for words in lines) / hertz
        for place, name in enumerate(_CPU_FIELDS, start=1)
        if lines and all(len(words) > place for words in lines)
    }


def _throttle_count() -> int | None:
    folder = Path("/sys/devices/system/cpu")
    counts = []
    for path in folder.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"):
        try:
            counts.append(int(path.read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return sum(counts) if counts else None
