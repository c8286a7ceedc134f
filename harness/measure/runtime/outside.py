"""The limits of a container, read from outside: for images that are not ours and tell nothing about themselves.

While the container runs, its control group and its first process are read: what the kernel holds, not what was asked
for.  Where the groups are not visible (an engine in a virtual machine, a rootless one), the engine's own account of the
container stands in, and ``memory_source`` says so.  The keys are those of ``harness.measure.runtime.limits``.

Sources: Linux ``cgroup-v1/memory.rst``, ``cgroup-v2.rst``, ``proc_pid_mountinfo(5)``, ``proc_net(5)``; the engine's API
``ContainerInspect`` (``HostConfig``).
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.measure.runtime import engine
from harness.measure.runtime.groups import container_id, engine_folder
from harness.measure.runtime.limits import machine_swap, number, read_text

ROOT = Path("/sys/fs/cgroup")
_TICK_S = 0.02
_READINGS = 25
"""The limits are put in force while the container starts: read until two readings agree, half a second at most."""
_ASK_AFTER_S = 1.0
_RUNTIMES = ("runc", "crun")


class LimitsWatch:
    """Reads the limits of the containers that start while the block runs.

    Args:
        driver, version: of the engine's control groups.
        parent: the group above the container, as ``--cgroup-parent`` takes it; ``None``: the engine's own.
        name: of a container that is removed at its end, to ask the engine once, while it runs, where no group shows
            up; ``None``: do not ask.
    """

    def __init__(self, driver: str, version: str, parent: str | None, name: str | None, root: Path = ROOT) -> None:
        self._root, self._version, self._name = root, version, name
        self._base = root / "memory" if version == "1" else root
        self._exclusive = parent is not None
        self._folder = self._base / (parent.lstrip("/") if parent else engine_folder(driver))
        self._known: set[str] = set()
        self._found: dict[str, dict[str, Any]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._known = set(self._containers())
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def of(self, identity: str | None) -> dict[str, Any]:
        """What was read of the container with that id, or without one of the only one below ``parent``; or nothing."""
        if identity is None and self._exclusive and len(self._found) == 1:
            return next(iter(self._found.values()))
        return self._found.get(identity or "", {})

    def _containers(self) -> dict[str, Path]:
        try:
            folders = [Path(entry.path) for entry in os.scandir(self._folder) if entry.is_dir()]
        except OSError:  # the engine makes the group when it starts the container
            return {}
        return {name: path for path in folders if len(name := container_id(path.name)) == 64}

    def _look(self) -> None:
        readings, began = 0, time.monotonic()
        last: dict[str, dict[str, Any]] = {}
        while readings < _READINGS and not self._stop.wait(_TICK_S):
            fresh = {name: path for name, path in self._containers().items() if name not in self._known}
            now = {name: read_group(path, self._base, self._root, self._version) for name, path in fresh.items()}
            for name, found in now.items():
                self._found.setdefault(name, {}).update(found)
            if now and now == last and all(map(_complete, now.values())):
                return  # every further look would take time from the program
            readings, last = readings + bool(now), now
            if not now and self._name and time.monotonic() - began > _ASK_AFTER_S:
                told = inspected(self._name)
                if told:
                    self._found[told["Id"]] = configured(told)
                return


def _complete(found: dict[str, Any]) -> bool:
    """Whether a reading is one of the program, not of the runtime that starts it; only root can tell by the process."""
    return "uid" in found or ("memory_bytes" in found and os.geteuid() != 0)


def read_group(folder: Path, base: Path, root: Path, version: str) -> dict[str, Any]:
    """What the control group of a container holds, as far as it can be read; bytes, CPUs."""
    inside = folder.relative_to(base)

    def read(controller: str, name: str) -> str | None:
        return read_text((root / controller if version == "1" else root) / inside / name)

    memory = number(read("memory", "memory.limit_in_bytes" if version == "1" else "memory.max"))
    if version == "1":
        both = number(read("memory", "memory.memsw.limit_in_bytes"))
        swap = max(0, both - memory) if both is not None and memory is not None else None
        quota, period = number(read("cpu", "cpu.cfs_quota_us")), number(read("cpu", "cpu.cfs_period_us"))
    else:
        swap = number(read("memory", "memory.swap.max"))
        quota, period = (number(part) for part in ((read("cpu", "cpu.max") or "") + " -").split(" ")[:2])
    pinned = read("cpuset", "cpuset.cpus" if version == "1" else "cpuset.cpus.effective")
    found = {
        "cgroup_version": int(version),
        "memory_bytes": memory,
        "memory_source": f"cgroup v{version}, read from outside" if memory is not None else None,
        "swap_bytes": swap,
        "cpu_quota": quota / period if quota and period else None,
        "cpuset": numbers(pinned) if pinned else None,
        "pids": number(read("pids", "pids.max")),
        **_process(read("memory", "cgroup.procs")),
    }
    return {key: value for key, value in found.items() if value is not None}


def _process(listed: str | None) -> dict[str, Any]:
    """User, network and root file system of the first process of a group, once it is the container's program."""
    pid = (listed or "").split()[0] if listed else ""
    try:
        if not pid or pid == "0" or _is_starting(pid):
            return {}
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        routes = Path(f"/proc/{pid}/net/route").read_text(encoding="ascii", errors="replace").splitlines()[1:]
        mounts = Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # another user's, or gone
        return {}
    root = [line.split()[5].split(",") for line in mounts if line.split()[4] == "/"]
    uid = next((line.split()[1] for line in status.splitlines() if line.startswith("Uid:")), "")
    return {
        "uid": int(uid) if uid else None,
        "network": sorted({line.split()[0] for line in routes if line.strip()}),
        "root_writable": "rw" in root[-1] if root else None,
    }


def _is_starting(pid: str) -> bool:
    """Whether a process is still the runtime's own, which has neither the program's user nor its root file system.

    It names itself (``runc:[2:INIT]``), wherever its file is; until late it is in the mount namespace of the machine.
    """
    command = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace")
    file = str(Path(f"/proc/{pid}/exe").readlink())
    if command.startswith(_RUNTIMES) or any(name in file for name in _RUNTIMES):
        return True
    return Path(f"/proc/{pid}/ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink()


def inspected(name: str) -> dict[str, Any]:
    """The engine's account of a container; empty if it has none."""
    answer = engine.container(name)
    told: dict[str, Any] = json.loads(answer.stdout) if answer.ok and answer.stdout.strip() else {}
    return told


def configured(told: dict[str, Any]) -> dict[str, Any]:
    """The limits that the engine says a container has."""
    host = told.get("HostConfig", {})
    memory, both = host.get("Memory") or None, host.get("MemorySwap") or 0
    mode = host.get("NetworkMode", "")
    found = {
        "memory_bytes": memory,
        "memory_source": "docker inspect, HostConfig" if memory else None,
        "swap_bytes": both - memory if memory and both > 0 else None,
        "cpu_quota": host["NanoCpus"] / 1e9 if host.get("NanoCpus") else None,
        "cpuset": numbers(host["CpusetCpus"]) if host.get("CpusetCpus") else None,
        "pids": host.get("PidsLimit") or None,
        "network": [] if mode == "none" else [mode],
        "root_writable": not host.get("ReadonlyRootfs", False),
    }
    return {key: value for key, value in found.items() if value is not None}


def merged(configuration: dict[str, Any], group: dict[str, Any]) -> dict[str, Any]:
    """The limits of a run: what the kernel held, and the engine's word where that is not known; ``cpus`` of both."""
    if not configuration and not group:
        return {}
    found = {**configuration, **group}
    bounds = [float(len(found["cpuset"]))] if found.get("cpuset") else []
    bounds += [found["cpu_quota"]] if found.get("cpu_quota") else []
    return {**found, "cpus": min(bounds, default=None), "machine_swap_bytes": machine_swap()}


def numbers(text: str) -> list[int]:
    """``0-2,5`` → ``[0, 1, 2, 5]``."""
    found: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
