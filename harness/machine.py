"""What this machine is: CPU, memory, instruction sets, cgroups, Docker.  Cheap; imports nothing heavy."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

ISA_FLAGS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd")


@dataclass(frozen=True)
class Machine:
    """Facts that timings depend on.  ``fingerprint`` is stable over reboots and kernel updates."""

    cpu: str
    cores: int
    memory_bytes: int
    isa: tuple[str, ...]
    architecture: str
    os: str
    kernel: str
    cgroup: str

    @property
    def fingerprint(self) -> str:
        """16 hex digits of CPU model, cores usable, instruction sets and memory in whole GiB."""
        facts = f"{self.cpu}|{self.cores}|{','.join(self.isa)}|{round(self.memory_bytes / 2**30)}|{self.architecture}"
        return hashlib.sha256(facts.encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        return {"fingerprint": self.fingerprint, **asdict(self)}


@cache
def this_machine() -> Machine:
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return Machine(
        cpu=info.get("model name") or platform.processor() or platform.machine(),
        cores=usable_cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        isa=tuple(f for f in ISA_FLAGS if f in flags),
        architecture=platform.machine(),
        os=_os_name(),
        kernel=platform.release(),
        cgroup=cgroup_version(),
    )


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _cpuinfo() -> dict[str, str]:
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return f"{platform.system()} {platform.release()}"


def cgroup_version() -> str:
    """``v2``, ``v1``, or ``none``."""
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return "v2"
    return "v1" if Path("/sys/fs/cgroup/memory").is_dir() else "none"


@cache
def docker_version() -> str | None:
    """Version of the Docker engine that answers, or ``None``."""
    if shutil.which("docker") is None:
        return None
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None
