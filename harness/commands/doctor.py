"""`bench doctor`: what this machine offers, and which command brings what is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.machine import docker_version, this_machine
from harness.provenance import version

INSTALL = "pip install -c constraints.txt"


@dataclass(frozen=True)
class Finding:
    """One thing a user may want: whether it is there, what it is, and the command that brings it."""

    topic: str
    ok: bool
    found: str
    remedy: str = ""


def findings() -> list[Finding]:
    """Everything worth knowing before a suite is run; imports no backend."""
    machine = this_machine()
    memory = machine.memory_bytes / 2**30
    return [
        Finding(
            "Python", sys.version_info[:2] in ((3, 11), (3, 12)), sys.version.split()[0], "use Python 3.11 or 3.12"
        ),
        Finding("CPU", True, f"{machine.cpu}, {machine.cores} usable cores"),
        Finding("Instruction sets", bool(machine.isa), ", ".join(machine.isa) or "none that speed up inference"),
        Finding("Memory", memory >= 8, f"{memory:.1f} GiB", "the challenge's limit of 8 GiB cannot be granted here"),
        Finding("cgroups", machine.cgroup != "none", machine.cgroup, "memory limits need a Linux kernel with cgroups"),
        _cgroup_sandbox(),
        _docker(),
        _torch(),
        *(_package(topic, name, extra) for topic, name, extra in OPTIONAL),
        _compiler(),
        _gpu(),
        _browser(),
    ]


OPTIONAL = (
    ("onnxruntime backend", "onnxruntime", "onnxruntime"),
    ("OpenVINO backend", "openvino", "openvino"),
    ("OpenVINO int8", "nncf", "openvino"),
    ("timm", "timm", "timm"),
    ("NIfTI reading", "nibabel", "medical"),
)


def _cgroup_sandbox() -> Finding:
    from harness.measure.runtime.sandbox import open_sandbox

    reason = open_sandbox("cgroup").unavailable()
    return Finding(
        "Sandbox cgroup", reason is None, "not usable here" if reason else "control groups can be made", reason or ""
    )


def _docker() -> Finding:
    engine = docker_version()
    if engine:
        return Finding("Docker", True, f"engine {engine}")
    if shutil.which("docker") is None:
        return Finding("Docker", False, "not installed", "apt-get install docker.io (or Docker Desktop)")
    return Finding(
        "Docker", False, "client without an engine that answers", "start the engine: sudo systemctl start docker"
    )


def _torch() -> Finding:
    installed = version("torch")
    cuda_packages = [p.name for p in _site_packages().glob("nvidia_*")] if "+cpu" in installed else []
    if cuda_packages:
        remedy = "make clean, then make demo: something installed without `-c constraints.txt`"
        return Finding("torch", False, f"{installed} beside {len(cuda_packages)} CUDA packages", remedy)
    return Finding("torch", installed != "missing", installed, f"{INSTALL} torch")


def _site_packages() -> Path:
    spec = find_spec("torch")
    return Path(spec.origin).parent.parent if spec and spec.origin else Path("/nonexistent")


def _package(topic: str, name: str, extra: str) -> Finding:
    installed = version(name)
    return Finding(topic, installed != "missing", installed, f"{INSTALL} 'medsam-bench[{extra}]'")


def _compiler() -> Finding:
    found = shutil.which(os.environ.get("CXX", "g++"))
    return Finding("C++ compiler (ahead-of-time)", bool(found), found or "not installed", "apt-get install g++")


def _gpu() -> Finding:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding("GPU", False, "none (only training can use one)", "")
    command = [tool, "--query-gpu=name", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    name = answer.stdout.strip().splitlines()
    return Finding("GPU", bool(name), name[0] if name else "nvidia-smi finds none", "")


def _browser() -> Finding:
    found = os.environ.get("MEDSAM_BENCH_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    return Finding("Chromium (report tests)", bool(found), found or "not installed", "apt-get install chromium")


def print_doctor(as_json: bool) -> None:
    rows = findings()
    if as_json:
        machine = this_machine().as_dict()
        print(json.dumps({"machine": machine, "findings": [asdict(r) for r in rows]}, indent=1))  # noqa: T201
        return
    table = Table(title=f"This machine (fingerprint {this_machine().fingerprint})", title_justify="left")
    for column in ("", "What", "Found", "What brings it"):
        table.add_column(column, overflow="fold")
    for row in rows:
        mark = "[green]yes[/]" if row.ok else "[yellow]no[/]"
        table.add_row(mark, row.topic, escape(row.found), "" if row.ok else escape(row.remedy))
    Console().print(table)
