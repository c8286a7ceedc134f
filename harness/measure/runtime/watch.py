"""Watches the control group of a run from outside while it lasts: anonymous memory, and what the CPU quota held up.

The kernel keeps the peak of a group's whole memory, page cache included, and none of its anonymous memory: that is
sampled, as the sum of ``RssAnon`` of the group's processes.  ``memory.stat`` of the group has such a figure too, but
reading it makes the kernel gather counts from all CPUs, and done often that loses some (seen on Linux 6.18: 7 MiB for
seconds where there were 202).  Sources: Linux ``cgroup-v1/memory.rst``, ``cgroup-v2.rst`` (``cpu.stat``),
``scheduler/sched-bwc.rst``, ``proc_pid_statm(5)``.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from harness.measure.runtime.spawn import SHARING, Family

INTERVAL_S = 0.01
SELDOM = 10
"""With every so manieth sample it is looked which processes there are, and at the throttling, which only grows."""
_UNITS_PER_SECOND = {"throttled_time": 1e9, "throttled_usec": 1e6}


@dataclass(frozen=True)
class Group:
    """The files of one control group: ``version`` of the interface, and its folder of each controller."""

    version: str
    memory: Path
    cpu: Path

    def peak(self) -> tuple[int | None, str]:
        """Peak memory in bytes or ``None``, and where it is from or why there is none."""
        v1 = self.version == "1"
        file = self.memory / ("memory.max_usage_in_bytes" if v1 else "memory.peak")
        try:
            if v1 and (self.memory / "memory.use_hierarchy").read_text(encoding="ascii").strip() != "1":
                return None, f"{self.memory} does not count the groups below it"
            return int(file.read_text(encoding="ascii")), f"control group of the run ({file.name}), page cache included"
        except (OSError, ValueError) as error:
            return None, f"{file} cannot be read ({error})"

    def in_use(self) -> int | None:
        """All memory of the group now, in bytes."""
        file = self.memory / ("memory.usage_in_bytes" if self.version == "1" else "memory.current")
        try:
            return int(file.read_bytes())
        except (OSError, ValueError):
            return None

    def oom_kills(self) -> int | None:
        """How many processes of the group the kernel killed for want of memory, or ``None`` if it does not tell."""
        file = self.memory / ("memory.oom_control" if self.version == "1" else "memory.events")
        try:
            return _fields(file.read_bytes()).get("oom_kill")
        except OSError:
            return None

    def throttled(self) -> dict[str, float] | None:
        """What the CPU quota held up, see ``parse_throttled``."""
        try:
            return parse_throttled((self.cpu / "cpu.stat").read_bytes())
        except OSError:
            return None


def parse_throttled(stat: bytes) -> dict[str, float] | None:
    """``periods`` in which the group ran, how many of them were ``throttled``, and the ``seconds`` it was held up.

    Args:
        stat: ``cpu.stat`` of either version.

    Returns:
        ``None`` if the group has no controller of CPU time.
    """
    fields = _fields(stat)
    if "nr_periods" not in fields or "nr_throttled" not in fields:
        return None
    seconds = sum(fields[name] / per_second for name, per_second in _UNITS_PER_SECOND.items() if name in fields)
    return {"periods": fields["nr_periods"], "throttled": fields["nr_throttled"], "seconds": seconds}


def _fields(text: bytes) -> dict[str, int]:
    pairs = (line.split() for line in text.decode("ascii", errors="replace").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


class Ending(ABC):
    """A watch that ends with its block."""

    @abstractmethod
    def stop(self) -> None:
        """Watch no more."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Watch(Ending):
    """Samples a group from ``__enter__`` to ``__exit__``; the group may come later and go earlier.

    Args:
        group: the group that is watched.
        below: the processes and the quota are those of the only group below ``group`` (a container's below its parent).
        fleeting: the group goes with its last process, so its own peak has to be read while it is there.
    """

    def __init__(self, group: Group, *, below: bool = False, fleeting: bool = False) -> None:
        self.group = group
        self.below = below
        self.fleeting = fleeting
        self.last_peak: int | None = None
        self.peak_bytes: int | None = None
        self.samples = 0
        self.throttled: dict[str, float] | None = None
        self._family = Family()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="control group watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Take no more samples."""
        self._ended = True
        self._thread.join()

    def anonymous(self) -> tuple[int | None, str]:
        """Peak of anonymous memory in bytes or ``None``, and how it was taken or why there is none."""
        if self.peak_bytes is None:
            return None, f"no process was seen in {self.group.memory} while the run lasted"
        taken = f"{self.samples} samples, one every {1000 * INTERVAL_S:g} ms"
        return (
            self.peak_bytes,
            f"RssAnon of the processes in the control group of the run{SHARING}: the largest of {taken}",
        )

    def _run(self) -> None:
        turn = 0
        try:
            while not self._ended:
                if turn % SELDOM == 0:
                    self._look()
                self._sample()
                turn += 1
                time.sleep(INTERVAL_S)  # less work than waiting for an event with a time limit
        finally:
            self._family.close()

    def _look(self) -> None:
        memory, cpu = (_only_one_below(path) if self.below else path for path in (self.group.memory, self.group.cpu))
        if memory is not None:
            self._family.admit(members(memory))
        if cpu is not None:  # the group above a container that has ended would tell of no throttling
            self.throttled = Group(self.group.version, self.group.memory, cpu).throttled() or self.throttled
        if self.fleeting:
            self.last_peak = self.group.peak()[0] or self.last_peak

    def _sample(self) -> None:
        now = self._family.anonymous()
        if now is None:
            return
        self.samples += 1
        if now > (self.peak_bytes or 0):
            self.peak_bytes = min(now, self.group.in_use() or now)
            if self.fleeting:  # the group's peak, read later, is never below it
                self.last_peak = self.group.peak()[0] or self.last_peak


def _only_one_below(folder: Path) -> Path | None:
    try:
        return next((path for path in folder.iterdir() if path.is_dir()), None)
    except OSError:  # not made yet, or gone
        return None


def members(folder: Path) -> list[int]:
    """Processes in a group; one of another namespace of processes reads as 0, which is no process to us."""
    # Opened anew each time: under version 1 an open file shows the list as it was for up to a second.
    try:
        return [pid for pid in map(int, (folder / "cgroup.procs").read_bytes().split()) if pid > 0]
    except OSError:
        return []
