"""The cgroup sandbox: cold runs in control groups, without an engine.

Enforced: memory with the page cache and without swap, CPU time down to fractions of a CPU, the CPUs themselves, the
number of processes, wall time, and no network where we are root.  The worker is in its group before its first
instruction, and the group is killed as a whole.  The file system and the user are those of the measuring process.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from harness.errors import UnavailableError
from harness.measure.runtime.bundle import Bundle
from harness.measure.runtime.groups import ROOT, Usage
from harness.measure.runtime.hierarchy import Place, RunGroup, find_place, make_room, remove_stale_runs
from harness.measure.runtime.process import beyond_our_own, cold_run, not_here, outcome_of, usable_cpus
from harness.measure.runtime.sandbox import Limits, Outcome, Progress, RuntimeProtocol
from harness.measure.runtime.verdict import with_limits_checked
from harness.measure.runtime.watch import Watch

_NUMBERS = itertools.count()
_SHARED = "isolation: same user and file system as the measuring process"
_NETWORK = "network: reachable as for any process, only root can take it away"
_WITHOUT = {
    "cpuset": "CPUs: pinned by affinity, which the program could undo; the controller cpuset is not ours",
    "pids": "processes: their number is not limited, the controller pids is not ours",
}


@dataclass(frozen=True)
class CgroupSandbox:
    """Cold runs as child processes in groups of their own; ``worker`` is the module that is run."""

    protocol: RuntimeProtocol = "strict"
    worker: str = "harness.measure.runtime.worker"
    name: str = "cgroup"
    root: Path = ROOT

    def unavailable(self) -> str | None:
        try:
            find_place(self.root)
        except UnavailableError as error:
            return str(error)
        return None

    def refuses(self, limits: Limits) -> str | None:
        return not_here(self.protocol) or beyond_our_own(limits)

    def prepare(self, bundle: Bundle, progress: Progress) -> None:
        _sweep(self.root)
        make_room(find_place(self.root))

    def cleanup(self) -> None:
        """Nothing to remove: the group of every run is removed at its end."""

    def run_case(self, bundle: Bundle, case_file: Path, output_folder: Path, limits: Limits) -> Outcome:
        """See ``Sandbox``.

        Raises:
            UnavailableError: groups can no longer be made here; that says nothing about the case.
        """
        place = find_place(self.root)
        make_room(place)
        group = RunGroup(place, next(_NUMBERS))
        offline = not limits.network and _root()
        try:
            group.make(limits, usable_cpus()[: limits.cores])
            with Watch(group.group) as watch:
                ran = cold_run(
                    self.worker,
                    bundle,
                    case_file,
                    output_folder,
                    limits,
                    join=group.entrances,
                    no_network=offline,
                )
                watch.stop()
                usage = Usage(group.group.peak(), watch.anonymous(), group.group.throttled())
            kills = group.group.oom_kills()
        finally:
            removed = group.remove()
        outcome = outcome_of(ran, case_file, output_folder, limits, killed_for_memory=bool(kills))
        outcome = _with_usage(outcome, usage, _not_enforced(place, limits), kills)
        if not removed:
            outcome = replace(outcome, detail={**outcome.detail, "left_behind": str(group.group.memory)})
        return with_limits_checked(outcome, limits, cpu_quota=True, network=offline, swap=True)


@cache
def _sweep(root: Path) -> None:
    """Once a process: what others left behind does not come back."""
    remove_stale_runs(root)


def _with_usage(outcome: Outcome, usage: Usage, not_enforced: list[str], kills: int | None) -> Outcome:
    peak, peak_source = usage.peak
    anonymous, anonymous_source = usage.anonymous
    detail = {
        **outcome.detail,
        "not_enforced": not_enforced,
        "peak_memory": peak_source,
        "peak_anonymous": anonymous_source,
        "throttled": usage.throttled,
        "oom_kills": kills,
    }
    return replace(outcome, peak_memory_bytes=peak, peak_anonymous_bytes=anonymous, detail=detail)


def _not_enforced(place: Place, limits: Limits) -> list[str]:
    network = [] if limits.network or _root() else [_NETWORK]
    return [*(_WITHOUT[name] for name in place.missing), *network, _SHARED]


def _root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
