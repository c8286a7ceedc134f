"""Control groups that we make ourselves, one a run, for versions 1 and 2 of the kernel's interface.

A group is made as near to the measuring process as the kernel allows, so that what a scheduler or a service manager
granted to us still bounds the run: version 1 below our own group; version 2, where a group with processes cannot hold
others that share out its resources, below the nearest group above us, or below our own after its processes have moved
to a leaf (a delegated subtree is all ours).  Sources: Linux ``Documentation/admin-guide/cgroup-v1``,
``cgroup-v2.rst`` ("Delegation", "No Internal Process Constraint").
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BenchError, UnavailableError
from harness.measure.runtime.dockercli import start_time
from harness.measure.runtime.groups import PREFIX, ROOT
from harness.measure.runtime.limits import own_groups
from harness.measure.runtime.sandbox import PIDS, Limits
from harness.measure.runtime.watch import Group, members

NEEDED = ("memory", "cpu")
WANTED = ("cpuset", "pids")
_PERIOD_US = 100_000
_LEAF = f"{PREFIX}_rest"
_NAME = re.compile(rf"{PREFIX}(\d+)r\d+")
_GONE_WITHIN_S = 10.0
_TAKEN_AWAY = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENODEV)
"""What a write says where control groups are no longer mounted or no longer ours."""
_ELSE = "see `bench doctor`, or use `sandbox: docker`"
_DELEGATE = "`systemd-run --user --scope -p Delegate=yes bench run ...` delegates them"


@dataclass(frozen=True)
class Place:
    """Where groups can be made.

    Attributes:
        version: ``1`` or ``2``.
        folders: controller → the folder below which groups are made (version 2: the same one for all).
        crowded: version 2: this folder is our own group, and its processes must move to a leaf first.
    """

    version: str
    folders: dict[str, Path]
    crowded: bool = False

    @property
    def missing(self) -> list[str]:
        """Controllers that are wanted and not here."""
        return [name for name in WANTED if name not in self.folders]


def find_place(root: Path = ROOT) -> Place:
    """Look for a place; changes nothing.

    Raises:
        UnavailableError: there is none; the message says what would bring one.
    """
    if (root / "cgroup.controllers").exists():
        return _unified(root)
    if (root / "memory").is_dir():
        return _by_controller(root)
    raise UnavailableError(f"no control groups are mounted at {root}; use `sandbox: process`")


def make_room(place: Place) -> None:
    """Version 2: let the groups below the place have its controllers; version 1 needs nothing.

    Raises:
        UnavailableError: the kernel refuses.
    """
    if place.version == "1":
        return
    folder = place.folders["memory"]
    try:
        if place.crowded:
            _move_to_leaf(folder)
        control = folder / "cgroup.subtree_control"
        for name in sorted(set(place.folders) - set(control.read_text(encoding="ascii").split())):
            _write(control, f"+{name}")
    except OSError as error:
        raise UnavailableError(f"{folder} cannot share out its resources ({error}); use `sandbox: docker`") from error


def _by_controller(root: Path) -> Place:
    folders = {}
    groups = own_groups()
    for name in (*NEEDED, *WANTED):
        nearest = Path(f"{root / name}{groups.get(name, '/')}")
        folder = (
            nearest if nearest.is_dir() else root / name
        )  # in a container the mount shows our own group as its root
        if os.access(folder, os.W_OK) and (folder / "cgroup.procs").exists():
            folders[name] = folder
    absent = [name for name in NEEDED if name not in folders]
    if absent:
        raise UnavailableError(
            f"control groups cannot be made below {root} for {' and '.join(absent)}; run as root (`sudo -E bench run "
            "...`), in a container with /sys/fs/cgroup mounted writable, or use `sandbox: docker`"
        )
    return Place("1", folders)


def _unified(root: Path) -> Place:
    path = own_groups().get("", "/").rstrip("/")
    own = Path(f"{root}{path}") if Path(f"{root}{path}").is_dir() else root
    if own.name == _LEAF:
        own = own.parent  # moved there by an earlier call
    above = [own, *own.parents][: len(own.relative_to(root).parts) + 1]
    if os.geteuid() != 0:
        above = above[:1]  # beyond a delegated subtree nothing is ours, whatever the mode of the folder says
    for folder in above:
        if _offers(folder) and not _has_processes(folder):
            return Place("2", _folders(folder))
    if _offers(own):
        return Place("2", _folders(own), crowded=True)
    raise UnavailableError(
        f"the controllers {' and '.join(NEEDED)} are not ours to share out in {own}; {_DELEGATE}, root has them "
        "(`sudo -E bench run ...`), or use `sandbox: docker`"
    )


def _offers(folder: Path) -> bool:
    writable = all(os.access(folder / name, os.W_OK) for name in (".", "cgroup.procs", "cgroup.subtree_control"))
    return writable and set(NEEDED) <= _controllers(folder)


def _controllers(folder: Path) -> set[str]:
    try:
        return set((folder / "cgroup.controllers").read_text(encoding="ascii").split())
    except OSError:
        return set()


def _folders(folder: Path) -> dict[str, Path]:
    return {name: folder for name in (*NEEDED, *WANTED) if name in _controllers(folder)}


def _has_processes(folder: Path) -> bool:
    """Whether processes in the folder keep it from sharing out resources; the root of all groups is exempt."""
    return (folder / "cgroup.type").exists() and bool(members(folder))


def _move_to_leaf(folder: Path) -> None:
    leaf = folder / _LEAF
    leaf.mkdir(exist_ok=True)
    for pid in members(folder):
        with contextlib.suppress(ProcessLookupError):  # it has ended in the meantime
            _write(leaf / "cgroup.procs", str(pid))


@dataclass(frozen=True)
class RunGroup:
    """The group of one run, made by us."""

    place: Place
    number: int

    @property
    def folders(self) -> dict[str, Path]:
        """Controller → folder of this group."""
        return {name: folder / f"{PREFIX}{os.getpid()}r{self.number}" for name, folder in self.place.folders.items()}

    @property
    def group(self) -> Group:
        """Its files that tell what a run used."""
        return Group(self.place.version, self.folders["memory"], self.folders["cpu"])

    @property
    def entrances(self) -> list[str]:
        """The files into which a process writes itself to enter."""
        return [str(folder / "cgroup.procs") for folder in dict.fromkeys(self.folders.values())]

    def make(self, limits: Limits, cpus: Sequence[int]) -> None:
        """Make the group with its limits; ``cpus`` are the numbers of the CPUs to pin to.

        Raises:
            UnavailableError: the group cannot be made, or has not the files it needs: that is the machine's state.
            BenchError: the kernel refuses a limit.
        """
        try:
            for folder in dict.fromkeys(self.folders.values()):
                folder.mkdir()
            settings = list(self._settings(limits, cpus))
        except OSError as error:
            raise UnavailableError(f"a control group can no longer be made ({error}); {_ELSE}") from error
        for file, value in settings:
            try:
                _write(file, value)
            except OSError as error:
                if error.errno in _TAKEN_AWAY:
                    raise UnavailableError(f"{file} can no longer be written ({error}); {_ELSE}") from error
                raise BenchError(f"the kernel refuses {value!r} for {file} ({error}); ask for less") from error

    def _settings(self, limits: Limits, cpus: Sequence[int]) -> Iterator[tuple[Path, str]]:
        memory, cpu = self.folders["memory"], self.folders["cpu"]
        quota = max(1000, round(limits.cpus * _PERIOD_US))
        if self.place.version == "1":
            yield memory / "memory.limit_in_bytes", str(limits.memory_bytes)
            yield from _if_there(memory / "memory.memsw.limit_in_bytes", str(limits.memory_bytes))
            yield cpu / "cpu.cfs_period_us", str(_PERIOD_US)
            yield cpu / "cpu.cfs_quota_us", str(quota)
        else:
            yield memory / "memory.max", str(limits.memory_bytes)
            yield from _if_there(memory / "memory.swap.max", "0")
            yield cpu / "cpu.max", f"{quota} {_PERIOD_US}"
        if "pids" in self.folders:
            yield self.folders["pids"] / "pids.max", str(PIDS)
        if "cpuset" in self.folders:
            if self.place.version == "1":  # a new group has neither until it is given them
                nodes = (self.place.folders["cpuset"] / "cpuset.mems").read_text(encoding="ascii").strip()
                yield self.folders["cpuset"] / "cpuset.mems", nodes
            yield self.folders["cpuset"] / "cpuset.cpus", ",".join(map(str, cpus))

    def remove(self) -> bool:
        """Kill what is left in the group and remove it; whether it is gone."""
        return _empty_and_remove(list(dict.fromkeys(self.folders.values())))


def _if_there(file: Path, value: str) -> Iterator[tuple[Path, str]]:
    """A limit that only kernels with swap accounting have."""
    if file.exists():
        yield file, value


def remove_stale_runs(root: Path = ROOT) -> None:
    """Kill and remove the groups of measuring processes that have ended; to be called before this one makes any.

    A group with this process's own number is an earlier one's: in containers the same few numbers come again.
    """
    for folder, names, _ in os.walk(root):
        for name in names:
            found = _NAME.fullmatch(name)
            if found and (int(found[1]) == os.getpid() or not start_time(int(found[1]))):
                _empty_and_remove([Path(folder, name)])


def _empty_and_remove(folders: list[Path]) -> bool:
    deadline = time.monotonic() + _GONE_WITHIN_S
    while folders:
        for folder in folders:
            _kill(folder)
        folders = [folder for folder in folders if not _removed(folder)]
        if folders and time.monotonic() > deadline:
            return False
        if folders:
            time.sleep(0.002)
    return True


def _kill(folder: Path) -> None:
    left = members(folder)
    if not left:
        return
    try:
        _write(folder / "cgroup.kill", "1")  # version 2, Linux 5.14 and later: all at once
    except OSError:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # its last process is not gone yet
        return False
    return True


def _write(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY)  # never creates: a file that is not there is an error
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)
