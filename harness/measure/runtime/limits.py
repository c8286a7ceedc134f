"""What limits a process runs under, read from inside: memory, CPUs, swap, network, user.

Standard library alone and a millisecond to run: the measured worker calls it.  Understands control groups v1 and v2,
inside a container (where the own group is the root of the mount) and outside it, and the resource limits of the
process.  Sources: Linux ``Documentation/admin-guide/cgroup-v1/memory.rst``, ``cgroup-v2.rst``, ``setrlimit(2)``,
``netdevice(7)``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CGROUP = "/sys/fs/cgroup"
_UNLIMITED = 1 << 60
_IFF_UP = 0x1


def read_limits(root: str = CGROUP) -> dict[str, Any]:
    """The limits in force for the calling process, as JSON-ready data.

    Keys: ``memory_bytes`` (the smallest of all that apply, or ``None``) and ``memory_source``; ``swap_bytes``
    (``None``: no limit) and ``machine_swap_bytes``; ``cpu_quota`` (CPUs' worth of time, or ``None``),
    ``cpuset`` (CPU numbers) and ``cpus`` (the smaller of both); ``pids``; ``network`` (interfaces that are up, besides
    loopback); ``uid``; ``root_writable``; ``cgroup_version``; ``cgroup_peak_bytes`` (peak of the own group so far).
    """
    version = 2 if Path(root, "cgroup.controllers").exists() else 1
    groups = own_groups()
    memory, source = _memory(version, groups, root)
    cpuset = _cpuset()
    quota = _quota(version, groups, root)
    return {
        "cgroup_version": version,
        "memory_bytes": memory,
        "memory_source": source,
        "swap_bytes": _swap(version, groups, root),
        "machine_swap_bytes": machine_swap(),
        "cpu_quota": quota,
        "cpuset": cpuset,
        "cpus": min([float(len(cpuset)), *([quota] if quota else [])]) if cpuset else quota,
        "pids": _smallest(_files("pids", version, groups, root, "pids.max", "pids.max")),
        "network": _interfaces(),
        "uid": os.getuid() if hasattr(os, "getuid") else None,
        "root_writable": os.access("/", os.W_OK) and not _read_only_root(),
        "cgroup_peak_bytes": cgroup_peak(version, groups, root),
    }


def cgroup_peak(version: int, groups: dict[str, str], root: str = CGROUP) -> int | None:
    """Peak memory of the own control group in bytes, or ``None`` if the kernel does not tell."""
    own = next(_files("memory", version, groups, root, "memory.max_usage_in_bytes", "memory.peak"), None)
    return number(own)


def peak_resident() -> int | None:
    """Peak resident memory of this process since its ``exec``, in bytes (``VmHWM``)."""
    for line in (read_text("/proc/self/status") or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def anonymous_now() -> int | None:
    """Anonymous memory of this process now, in bytes (``RssAnon``): no peak."""
    for line in (read_text("/proc/self/status") or "").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return None


def read_text(path: str | Path) -> str | None:
    """A file of the kernel's, or ``None`` if it cannot be read."""
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def number(text: str | None) -> int | None:
    """The number that a control file begins with; ``None`` for a word, or where it stands for "no limit"."""
    if not text or not text.split()[0].isdigit():
        return None
    value = int(text.split()[0])
    return None if value >= _UNLIMITED else value


def own_groups() -> dict[str, str]:
    """Controller → path of the own group; the unified hierarchy is called ``""``."""
    groups: dict[str, str] = {}
    for line in (read_text("/proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path
    return groups


def _files(controller: str, version: int, groups: dict[str, str], root: str, v1: str, v2: str) -> Iterator[str]:
    """Contents of a control file of the own group and then of all groups above it."""
    base, name = (f"{root}/{controller}", v1) if version == 1 else (root, v2)
    path = groups.get(controller if version == 1 else "", "/").rstrip("/")
    if read_text(f"{base}{path}/{name}") is None:
        path = ""  # in a container the mount shows the own group as its root
    while True:
        text = read_text(f"{base}{path}/{name}")
        if text is not None:
            yield text
        if not path:
            return
        path = path.rpartition("/")[0]


def _smallest(texts: Iterator[str]) -> int | None:
    values = [value for value in map(number, texts) if value is not None]
    return min(values, default=None)


def _memory(version: int, groups: dict[str, str], root: str) -> tuple[int | None, str | None]:
    found: list[tuple[int, str]] = []
    group = _smallest(_files("memory", version, groups, root, "memory.limit_in_bytes", "memory.max"))
    if group is not None:
        found.append((group, f"cgroup v{version}"))
    try:
        import resource
    except ImportError:  # not a POSIX system
        resource = None  # type: ignore[assignment]
    if resource is not None:
        for name in ("RLIMIT_DATA", "RLIMIT_AS"):
            soft = resource.getrlimit(getattr(resource, name))[0]
            if soft != resource.RLIM_INFINITY:
                found.append((soft, name))
    return min(found) if found else (None, None)


def _swap(version: int, groups: dict[str, str], root: str) -> int | None:
    if version == 2:
        return _smallest(_files("memory", version, groups, root, "", "memory.swap.max"))
    memory = _smallest(_files("memory", version, groups, root, "memory.limit_in_bytes", ""))
    both = _smallest(_files("memory", version, groups, root, "memory.memsw.limit_in_bytes", ""))
    return None if both is None or memory is None else max(0, both - memory)


def machine_swap() -> int | None:
    """All swap of the machine (``SwapTotal``), the same inside a container."""
    for line in (read_text("/proc/meminfo") or "").splitlines():
        if line.startswith("SwapTotal:"):
            return int(line.split()[1]) * 1024
    return None


def _cpuset() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 0))


def _quota(version: int, groups: dict[str, str], root: str) -> float | None:
    quotas = []
    if version == 2:
        for text in _files("cpu", version, groups, root, "", "cpu.max"):
            quota, _, period = text.partition(" ")
            if quota.isdigit() and period.isdigit():
                quotas.append(int(quota) / int(period))
    else:
        pairs = zip(
            _files("cpu", version, groups, root, "cpu.cfs_quota_us", ""),
            _files("cpu", version, groups, root, "cpu.cfs_period_us", ""),
            strict=False,
        )
        quotas = [int(quota) / int(period) for quota, period in pairs if quota.isdigit() and period.isdigit()]
    return min(quotas, default=None)


def _interfaces() -> list[str]:
    # /sys shows the network it was mounted in, /proc that of the process, which may have one of its own.
    table = (read_text("/proc/self/net/dev") or "").splitlines()
    names = sorted(line.partition(":")[0].strip() for line in table if ":" in line)
    up = []
    for name in names:
        flags = read_text(f"/sys/class/net/{name}/flags")
        if name != "lo" and flags is not None and int(flags, 16) & _IFF_UP:
            up.append(name)
    return up


def _read_only_root() -> bool:
    if not hasattr(os, "statvfs"):
        return False
    return bool(os.statvfs("/").f_flag & os.ST_RDONLY)
