"""A control group above the container: it outlives the container, so the peak of a finished run can be read from it.

Sources: ``docker run --cgroup-parent``; Linux ``cgroup-v1/memory.rst`` (``memory.max_usage_in_bytes``, which covers the
groups below where ``memory.use_hierarchy`` is 1) and ``cgroup-v2.rst`` (``memory.peak``, Linux 5.19 and later).
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.measure.runtime.dockercli import start_time
from harness.measure.runtime.watch import INTERVAL_S, SELDOM, Ending, Group, Watch

ROOT = Path("/sys/fs/cgroup")
_TICK_S, _SLOW_S = 0.02, 0.2
"""Seconds between two looks for a container: until one is there, and then for others that came at the same time."""
_CONTAINER = re.compile(r"(docker-)?[0-9a-f]{64}(\.scope)?")
PREFIX = "medsambench"  # no dash: systemd reads a dash in the name of a slice as a level of its tree


@dataclass(frozen=True)
class Usage:
    """What is known from outside of the memory and the CPU time of a run.

    ``peak`` and ``anonymous`` are bytes or ``None``, each with its source or the reason; ``throttled`` is what
    ``harness.measure.runtime.watch.parse_throttled`` gives.
    """

    peak: tuple[int | None, str]
    anonymous: tuple[int | None, str]
    throttled: dict[str, float] | None = None

    @classmethod
    def unknown(cls, why: str) -> Usage:
        """Nothing is known, and why."""
        return cls((None, why), (None, why))

    def completed(self, told: dict[str, Any]) -> Usage:
        """With what the program told of itself in place of what could not be seen from outside.

        A peak told from inside is one; the anonymous memory at the end of a run is none, so it is only mentioned.
        Anonymous memory is part of the group's, so that its peak is never the larger.
        """
        peak, anonymous = self.peak, self.anonymous
        inside, at_end = told.get("cgroup_peak_bytes"), told.get("anonymous_bytes")
        if peak[0] is None and inside is not None:
            peak = inside, f"the container's control group, read inside at the worker's end; {peak[1]}"
        if anonymous[0] is None and at_end is not None:
            anonymous = None, f"{anonymous[1]}; at least the {at_end} bytes that the worker had at its end (RssAnon)"
        if peak[0] is not None and anonymous[0] is not None and anonymous[0] > peak[0]:
            anonymous = peak[0], f"{anonymous[1]}, and at most the peak of the group"
        return Usage(peak, anonymous, self.throttled)


@dataclass(frozen=True)
class ParentGroup:
    """The group of one run.  The engine makes it; we read it, and remove it when the container is gone."""

    number: int
    driver: str
    version: str
    root: Path = ROOT

    @property
    def _stem(self) -> str:
        return f"{PREFIX}{os.getpid()}n{self.number}"

    @property
    def argument(self) -> str:
        """What ``--cgroup-parent`` takes: a slice under systemd, a path under cgroupfs."""
        return f"{self._stem}.slice" if self.driver == "systemd" else f"/{self._stem}"

    @property
    def group(self) -> Group:
        """Its files."""
        name = self.argument.lstrip("/")
        if self.version == "1":
            return Group("1", self.root / "memory" / name, self.root / "cpu" / name)
        return Group("2", self.root / name, self.root / name)

    def peak(self) -> tuple[int | None, str]:
        """Peak memory in bytes or ``None``, and where it is from or why there is none."""
        return self.group.peak()

    def usage(self, watch: Watch) -> Usage:
        """What a finished run used; ends the watch."""
        watch.stop()
        return Usage(self.peak(), watch.anonymous(), watch.throttled)

    def remove(self) -> bool:
        """Remove the group from every hierarchy, as far as that can be done; whether it is gone."""
        name = self.argument.lstrip("/")
        _remove(name, self.root)
        return not any(_folders(name, self.root))


class EngineWatch(Ending):
    """Watches the containers that start while the block runs in the engine's own group, where none above it is ours.

    Nothing is asked of the engine and nothing added to its command; what is read is open to every user of the machine.
    """

    def __init__(self, driver: str, version: str, root: Path = ROOT) -> None:
        usual = engine_folder(driver)
        base = root / "memory" if version == "1" else root
        self._folder = base / usual
        self._cpu = (root / "cpu" if version == "1" else root) / usual
        self._version = version
        self._known: set[str] = set()
        self._watches: dict[str, Watch] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine watch", daemon=True)

    def __enter__(self) -> EngineWatch:
        self._known = self._containers()
        self._thread.start()
        return self

    def stop(self) -> None:
        """Watch no more."""
        self._ended.set()
        self._thread.join()
        for watch in self._watches.values():
            watch.stop()

    def usage(self, identity: str | None) -> Usage:
        """What the container with that id (64 digits) used; ends the watch."""
        self.stop()
        watch = self._watches.get(identity or "")
        if watch is None:
            return Usage.unknown(f"the container's control group was not seen in {self._folder}")
        source = f"the container's control group, read at most {1000 * INTERVAL_S * SELDOM:g} ms before its end"
        return Usage((watch.last_peak, source), watch.anonymous(), watch.throttled)

    def _run(self) -> None:
        while not self._ended.wait(_SLOW_S if self._watches else _TICK_S):
            for name in self._containers() - self._known:
                self._known.add(name)
                group = Group(self._version, self._folder / name, self._cpu / name)
                self._watches[container_id(name)] = Watch(group, fleeting=True).__enter__()

    def _containers(self) -> set[str]:
        try:
            return {entry.name for entry in os.scandir(self._folder) if _CONTAINER.fullmatch(entry.name)}
        except OSError:  # the engine makes the folder with its first container, or is not on this machine
            return set()


@contextlib.contextmanager
def watching(
    parent: ParentGroup | None, driver: str, version: str, root: Path = ROOT
) -> Iterator[Callable[[str | None], Usage]]:
    """Watch one container from here to the end of the block, in the group above it or else in the engine's own.

    Yields:
        What to call when the container has ended, with its id (any, where there is a group above it).
    """
    if parent is not None:
        with Watch(parent.group, below=True) as watch:
            yield lambda _: parent.usage(watch)
    else:
        with EngineWatch(driver, version, root) as engine_watch:
            yield engine_watch.usage


def engine_folder(driver: str) -> str:
    """The engine's own group, below which containers are that have no other parent."""
    return "system.slice" if driver == "systemd" else "docker"


def container_id(folder: str) -> str:
    """The id of a container (64 digits) from the name of its group."""
    return folder.removeprefix("docker-").removesuffix(".scope")


def unusable() -> str | None:
    """Why no group of our own can be used, or ``None``: only root could remove it again."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "a control group above the container needs root"
    if not ROOT.is_dir():
        return f"{ROOT} is not there"
    return None


_KEPT: list[ParentGroup] = []
"""Groups of this process that still held something when their run ended: its container, or an engine was away."""


def discard(parent: ParentGroup) -> None:
    """Remove a group whose run has ended, now or, while it still holds something, with ``remove_kept``."""
    if not parent.remove():
        _KEPT.append(parent)


def remove_kept() -> None:
    """Remove the groups that ``discard`` could not, as far as that can be done by now."""
    _KEPT[:] = [parent for parent in _KEPT if not parent.remove()]


def remove_stale(root: Path = ROOT) -> None:
    """Remove the groups of measuring processes that have ended; to be called before this one makes any.

    A group with this process's own number is an earlier one's: in containers the same few numbers come again.
    """
    for name in {path.name for path in _folders(f"{PREFIX}*", root)}:
        pid = name.removeprefix(PREFIX).partition("n")[0]
        if pid.isdigit() and (int(pid) == os.getpid() or not start_time(int(pid))):
            _remove(name, root)


def _remove(name: str, root: Path) -> None:
    for top in _folders(name, root):
        # An engine that died leaves the group of its container; one with processes in it cannot be removed.
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()


def _folders(pattern: str, root: Path) -> Iterator[Path]:
    yield from [path for path in (*root.glob(pattern), *root.glob(f"*/{pattern}")) if path.is_dir()]
