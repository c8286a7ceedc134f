"""The process sandbox: works anywhere with Python, and says what it cannot enforce.

Enforced: wall time (the whole process group is killed), the number of CPUs (affinity, Linux), and memory by
``RLIMIT_DATA``, which covers private writable memory: heap, anonymous maps, thread stacks (Linux 4.7 and later).  That
is what a container's limit is about, for file-backed pages can be dropped there; ``RLIMIT_AS`` would also count
libraries and reserved address space and stop programs that fit, and polling the resident size would miss short peaks.
An allocation beyond the limit fails, so running out shows as a failed allocation and not as a kill.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import BenchError
from harness.measure.runtime.bundle import Bundle
from harness.measure.runtime.outputs import stage
from harness.measure.runtime.phases import Marks, account, read_side_file, work_told
from harness.measure.runtime.sandbox import Limits, Outcome, Progress, RuntimeProtocol, python_path, too_many_cpus
from harness.measure.runtime.spawn import SHARING
from harness.measure.runtime.verdict import Ended, judge, read_tail, with_limits_checked

_GRACE_S = 60.0
_SAMPLE_S = 0.01
_LINUX = sys.platform.startswith("linux")
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "TZ", "VIRTUAL_ENV")
_NOT_ENFORCED = (
    "memory: shared and file-backed pages are not limited",
    "swap: used as for any process where the machine has swap",
    "network: reachable as for any process",
    "isolation: same user and file system as the measuring process",
)


@dataclass(frozen=True)
class ProcessSandbox:
    """Cold runs as child processes; ``worker`` is the module that is run."""

    protocol: RuntimeProtocol = "strict"
    worker: str = "harness.measure.runtime.worker"
    name: str = "process"

    def unavailable(self) -> str | None:
        if sys.platform == "win32":
            return "the process sandbox needs POSIX processes; run inside WSL or use `sandbox: docker`"
        return None

    def refuses(self, limits: Limits) -> str | None:
        return not_here(self.protocol) or beyond_our_own(limits)

    def prepare(self, bundle: Bundle, progress: Progress) -> None:
        """Nothing to prepare."""

    def cleanup(self) -> None:
        """Nothing to remove: the group of every run is killed at its end."""

    def run_case(self, bundle: Bundle, case_file: Path, output_folder: Path, limits: Limits) -> Outcome:
        data_bytes = limits.memory_bytes if _LINUX else None
        ran = cold_run(self.worker, bundle, case_file, output_folder, limits, data_bytes=data_bytes, sample_s=_SAMPLE_S)
        # The kernel's counter is that of the whole machine: only together with a SIGKILL does it tell of this run.
        killed = ran.answer["returncode"] == -9 and ran.answer["kernel_oom"]
        outcome = outcome_of(ran, case_file, output_folder, limits, killed_for_memory=killed)
        outcome = _with_own_peaks(outcome, ran.answer, _not_enforced(limits))
        if not _LINUX:
            return outcome
        return with_limits_checked(outcome, limits, cpu_quota=False, network=False, swap=False)


@dataclass(frozen=True)
class Ran:
    """A worker that has ended: the spawner's answer and the end of the worker's standard error."""

    answer: dict[str, Any]
    stderr: str


def cold_run(worker: str, bundle: Bundle, case_file: Path, output_folder: Path, limits: Limits, **asked: Any) -> Ran:
    """Run one case in a new process; ``asked`` goes to ``spawn``."""
    output_folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-case-", dir=output_folder.parent) as scratch:
        inputs = Path(scratch) / "inputs"
        stage(case_file, inputs)
        argv = [sys.executable, "-m", worker, str(inputs), str(output_folder), str(bundle.folder)]
        answer = spawn(argv, environment(bundle), Path(scratch), limits, **asked)
        return Ran(answer, read_tail(Path(scratch) / "stderr"))


def not_here(protocol: RuntimeProtocol) -> str | None:
    """The refusal of a protocol that is a container's command."""
    if protocol == "strict":
        return None
    return f"protocol {protocol} is a docker command; use `sandbox: docker`, or `protocol: strict` here"


def beyond_our_own(limits: Limits) -> str | None:
    """The refusal if more is asked for than the measuring process itself may use: what it starts gets no more."""
    refusal = too_many_cpus(limits, len(usable_cpus()), "this process")
    if refusal or not _LINUX:
        return refusal
    from harness.measure.runtime.limits import read_limits

    here = read_limits()["memory_bytes"]
    if here is not None and here < limits.memory_bytes:
        return (
            f"{limits.memory_bytes} bytes of memory asked for, but this process itself is limited to {here}; "
            "set `memory` to less"
        )
    return None


def environment(bundle: Bundle) -> dict[str, str]:
    """The environment of a measured process: the bundle's own, and the least of ours."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    path = os.pathsep.join(filter(None, (python_path(), os.environ.get("PYTHONPATH"))))
    return {**inherited, "PYTHONPATH": path, **bundle.environment}


def spawn(
    argv: Sequence[str],
    env: Mapping[str, str],
    scratch: Path,
    limits: Limits,
    *,
    data_bytes: int | None = None,
    sample_s: float | None = None,
    join: Sequence[str] = (),
    no_network: bool = False,
) -> dict[str, Any]:
    """Run a program through the spawner; its answer, see ``harness.measure.runtime.spawn.run``.

    Args:
        argv, env: the program and its environment.
        scratch: an existing folder for its standard output and error; it is the working directory.
        limits: ``cores`` and ``timeout_s`` of these are enforced.
        data_bytes: ``RLIMIT_DATA``.
        sample_s: seconds between two looks at the anonymous memory of the program and its children.
        join: ``cgroup.procs`` files of the control groups that the program enters before its first instruction.
        no_network: give it a network of its own with nothing in it.

    Raises:
        BenchError: the spawner itself failed.
    """
    request = {
        "argv": list(argv),
        "env": dict(env),
        "cwd": str(scratch),
        "stdout": str(scratch / "stdout"),
        "stderr": str(scratch / "stderr"),
        "timeout_s": limits.timeout_s,
        "data_bytes": data_bytes,
        "cpus": usable_cpus()[: limits.cores] if _LINUX else None,
        "sample_s": sample_s if _LINUX else None,
        "join": list(join),
        "no_network": no_network,
        "parent": os.getpid(),
    }
    command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("spawn.py"))]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=limits.timeout_s + _GRACE_S,
            check=True,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", None) or error
        raise BenchError(f"the sandbox could not start {argv[0]}: {told}") from error
    return answer


def usable_cpus() -> list[int]:
    """Numbers of the CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def outcome_of(ran: Ran, case_file: Path, output_folder: Path, limits: Limits, *, killed_for_memory: bool) -> Outcome:
    """Status, times and what the worker told; peaks and limits are the sandbox's to add."""
    answer, told = ran.answer, read_side_file(output_folder)
    killed = killed_for_memory and not answer["timed_out"]
    ended = Ended(answer["returncode"], answer["problem"] or ran.stderr, answer["timed_out"], killed)
    status, reason = judge(ended, told, case_file, output_folder, limits)
    marks = Marks(answer["begin"], answer["finished"], answer["wall_s"], answer["started"], answer["finished"])
    return Outcome(
        status=status,
        reason=reason,
        wall_s=answer["wall_s"],
        limits_read=told.get("limits", {}),
        phases=account(marks, told),
        detail={
            "user_s": answer["user_s"],
            "system_s": answer["system_s"],
            "versions": told.get("versions", {}),
            **work_told(told, case_file.stem),
        },
    )


def _not_enforced(limits: Limits) -> list[str]:
    found = list(_NOT_ENFORCED)
    if limits.cores != limits.cpus:
        found.append(f"CPUs: pinned to {limits.cores}, the fraction of {limits.cpus:g} is not enforced")
    if not _LINUX:
        found.append("memory and CPUs: not limited on this system")
    return found


def _with_own_peaks(outcome: Outcome, answer: dict[str, Any], not_enforced: list[str]) -> Outcome:
    """``outcome`` with the peaks of the process itself, for want of a control group."""
    source = "not known: sampled on Linux alone"
    if answer["anonymous_bytes"] is not None:
        source = (
            f"RssAnon of the process and its children{SHARING}: "
            f"the largest of {answer['samples']} samples, one every {1000 * _SAMPLE_S:g} ms"
        )
    detail = {
        **outcome.detail,
        "not_enforced": not_enforced,
        "peak_memory": "largest resident size of the process (ru_maxrss), shared and file-backed pages included",
        "peak_anonymous": source,
    }
    peaks = {"peak_memory_bytes": answer["peak_bytes"], "peak_anonymous_bytes": answer["anonymous_bytes"]}
    return replace(outcome, detail=detail, **peaks)
