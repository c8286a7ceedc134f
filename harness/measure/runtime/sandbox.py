"""What a sandbox is: a place where one case of one bundle runs cold, under limits that are asked for and read back."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from harness.data.npz import human
from harness.errors import BenchError
from harness.schema import Status

if TYPE_CHECKING:
    from harness.measure.runtime.bundle import Bundle

Progress = Callable[[str], None]
RuntimeProtocol = Literal["strict", "cvpr24"]
PAGE = 1 << 16
"""Engines and kernels round a memory limit to their page size; differences below this are none."""
PIDS = 512
"""Processes and threads a run may have at a time, where the sandbox can limit them."""


@dataclass(frozen=True)
class Limits:
    """What a cold run may use: bytes of memory (no swap beside it), CPUs, seconds of wall time, the network or not."""

    memory_bytes: int
    cpus: float
    timeout_s: float
    network: bool = False

    @property
    def cores(self) -> int:
        """CPUs to pin to: the limit rounded up."""
        return math.ceil(self.cpus)


@dataclass(frozen=True)
class Outcome:
    """What became of one cold run.

    Attributes:
        status, reason: ``ok``, or what went wrong and why.
        wall_s: seconds around the whole run, also if it failed.
        peak_memory_bytes: peak of the run, page cache included; ``None`` if it cannot be known,
            ``detail["peak_memory"]`` says why.
        peak_anonymous_bytes: peak of anonymous memory alone, which is what bars, ranks and gates use; ``None`` if it
            cannot be known, ``detail["peak_anonymous"]`` says how it was taken or why it was not.
        limits_read: the limits of the run: as its program read them inside, or, for an image that is not ours, as read
            from outside; keys as in ``harness.measure.runtime.limits.read_limits``.
        phases: seconds by word of ``harness.schema.PHASES``; they sum to ``wall_s``.
        detail: JSON-ready: ``not_enforced`` (what this sandbox could not enforce), sources, versions, times.
    """

    status: Status
    reason: str | None
    wall_s: float
    peak_memory_bytes: int | None = None
    peak_anonymous_bytes: int | None = None
    limits_read: dict[str, Any] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    detail: dict[str, Any] = field(default_factory=dict)


class Sandbox(Protocol):
    """Where runtime is measured.  Call ``prepare`` once, then ``run_case`` as often as wanted, then ``cleanup``."""

    @property
    def name(self) -> str:
        """``process``, ``cgroup`` or ``docker``."""

    def unavailable(self) -> str | None:
        """Why this sandbox cannot be used here and the command that brings it, or ``None`` if it can."""

    def refuses(self, limits: Limits) -> str | None:
        """Why these limits cannot be had on this machine, or ``None``; limits are never lowered silently."""

    def prepare(self, bundle: Bundle, progress: Progress) -> None:
        """Do everything that is not measured (images, leftovers of killed runs).

        Raises:
            BenchError: it cannot be done here; the message says what to do.
        """

    def run_case(self, bundle: Bundle, case_file: Path, output_folder: Path, limits: Limits) -> Outcome:
        """Run one case cold; its result lands in the empty ``output_folder`` under the name of ``case_file``."""

    def cleanup(self) -> None:
        """Remove what ``prepare`` and ``run_case`` left behind."""


def open_sandbox(name: str, protocol: RuntimeProtocol = "strict") -> Sandbox:
    """The sandbox called ``name``; ``protocol`` decides the command where there is one.

    Raises:
        BenchError: there is no such sandbox.
    """
    if name == "process":
        from harness.measure.runtime.process import ProcessSandbox

        return ProcessSandbox(protocol)
    if name == "cgroup":
        from harness.measure.runtime.cgroup import CgroupSandbox

        return CgroupSandbox(protocol)
    if name == "docker":
        from harness.measure.runtime.docker import DockerSandbox

        return DockerSandbox(protocol)
    raise BenchError(f"sandbox {name!r} is unknown; use `process`, `cgroup` or `docker`")


def too_many_cpus(limits: Limits, available: int, where: str) -> str | None:
    """The refusal if more CPUs are asked for than there are."""
    if limits.cores <= available:
        return None
    return f"{limits.cpus:g} CPUs asked for, but {where} has {available}; set `cpus: {available}` or less"


def differences(
    asked: Limits,
    read: dict[str, Any],
    *,
    cpu_quota: bool,
    network: bool,
    swap: bool,
    pids: bool = False,
    read_only: bool = False,
) -> list[str]:
    """Where the limits read back differ from those asked for, in words.

    Args:
        asked: the limits.
        read: what ``read_limits`` gave inside.
        cpu_quota: whether the sandbox enforces fractions of a CPU; if not, only the number of CPUs is compared.
        network: whether the sandbox takes the network away.
        swap: whether the sandbox takes swap away.
        pids: whether the sandbox limits the number of processes to ``PIDS``.
        read_only: whether the sandbox mounts the root file system read-only.
    """
    found = []
    memory = read.get("memory_bytes")
    if memory is None or abs(memory - asked.memory_bytes) >= PAGE:
        got = "none" if memory is None else f"{human(memory)} ({read.get('memory_source')})"
        found.append(f"memory: asked for {human(asked.memory_bytes)}, read back {got}")
    if len(read.get("cpuset") or []) != asked.cores:
        found.append(f"CPUs: asked for {asked.cpus:g}, read back CPU numbers {read.get('cpuset')}")
    elif cpu_quota and abs((read.get("cpus") or 0.0) - asked.cpus) > 0.01 * asked.cpus:
        found.append(f"CPU time: asked for {asked.cpus:g}, read back {read.get('cpus')}")
    if swap and (problem := _swap_problem(read)):
        found.append(problem)
    if network and not asked.network and read.get("network"):
        found.append(f"network: asked for none, read back {', '.join(read['network'])}")
    if pids and read.get("pids") != PIDS:
        found.append(f"processes: asked for {PIDS} at most, read back {read.get('pids') or 'no limit'}")
    if read_only and read.get("root_writable") is not False:
        found.append("root file system: asked for read-only, read back writable")
    return found


def _swap_problem(read: dict[str, Any]) -> str | None:
    """What is wrong with the swap read back; without a limit it is none where the machine has none."""
    limit, machine = read.get("swap_bytes"), read.get("machine_swap_bytes")
    if limit == 0 or (limit is None and machine == 0):
        return None
    got = "no limit" if limit is None else human(limit)
    has = "an unknown amount" if machine is None else human(machine)
    return f"swap: asked for none, read back {got} on a machine with {has}"


def python_path() -> str:
    """The folder that holds the packages ``harness`` and ``variants``."""
    return str(Path(sys.modules["harness"].__file__ or "").resolve().parent.parent)
