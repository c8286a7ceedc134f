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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import BenchError
from harness.measure.runtime.bundle import Bundle
from harness.measure.runtime.outputs import stage
from harness.measure.runtime.phases import Marks, account, read_side_file
from harness.measure.runtime.sandbox import Limits, Outcome, Progress, RuntimeProtocol, python_path, too_many_cpus
from harness.measure.runtime.verdict import Ended, judge, read_tail, with_limits_checked

_GRACE_S = 60.0
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
        if self.protocol != "strict":
            return f"protocol {self.protocol} is a docker command; use `sandbox: docker`, or `protocol: strict` here"
        refusal = too_many_cpus(limits, len(_cpus()), "this process")
        if refusal or not sys.platform.startswith("linux"):
            return refusal
        from harness.measure.runtime.limits import read_limits

        here = read_limits()["memory_bytes"]
        if here is not None and here < limits.memory_bytes:
            return (
                f"{limits.memory_bytes} bytes of memory asked for, but this process itself is limited to {here}; "
                "set `memory` to less"
            )
        return None

    def prepare(self, bundle: Bundle, progress: Progress) -> None:
        """Nothing to prepare."""

    def cleanup(self) -> None:
        """Nothing to remove: the group of every run is killed at its end."""

    def run_case(self, bundle: Bundle, case_file: Path, output_folder: Path, limits: Limits) -> Outcome:
        output_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="bench-case-", dir=output_folder.parent) as scratch:
            inputs = Path(scratch) / "inputs"
            stage(case_file, inputs)
            argv = [sys.executable, "-m", self.worker, str(inputs), str(output_folder), str(bundle.folder)]
            answer = spawn(argv, environment(bundle), Path(scratch), limits)
            stderr = read_tail(Path(scratch) / "stderr")
        return _outcome(answer, stderr, case_file, output_folder, limits)


def environment(bundle: Bundle) -> dict[str, str]:
    """The environment of a measured process: the bundle's own, and the least of ours."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    path = os.pathsep.join(filter(None, (python_path(), os.environ.get("PYTHONPATH"))))
    return {**inherited, "PYTHONPATH": path, **bundle.environment}


def spawn(argv: Sequence[str], env: Mapping[str, str], scratch: Path, limits: Limits) -> dict[str, Any]:
    """Run a program through the spawner; its answer, see ``harness.measure.runtime.spawn.run``.

    Raises:
        BenchError: the spawner itself failed.
    """
    linux = sys.platform.startswith("linux")
    request = {
        "argv": list(argv),
        "env": dict(env),
        "cwd": str(scratch),
        "stdout": str(scratch / "stdout"),
        "stderr": str(scratch / "stderr"),
        "timeout_s": limits.timeout_s,
        "data_bytes": limits.memory_bytes if linux else None,
        "cpus": _cpus()[: limits.cores] if linux else None,
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
        raise BenchError(f"the process sandbox could not start {argv[0]}: {told}") from error
    return answer


def _cpus() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _outcome(answer: dict[str, Any], stderr: str, case_file: Path, output_folder: Path, limits: Limits) -> Outcome:
    told = read_side_file(output_folder)
    # The kernel's counter is that of the whole machine: only together with a SIGKILL does it tell of this run.
    killed = answer["returncode"] == -9 and answer["kernel_oom"] and not answer["timed_out"]
    ended = Ended(answer["returncode"], answer["problem"] or stderr, answer["timed_out"], killed)
    status, reason = judge(ended, told, case_file, output_folder, limits)
    marks = Marks(answer["begin"], answer["finished"], answer["wall_s"], answer["started"], told.get("finished"))
    not_enforced = list(_NOT_ENFORCED)
    if limits.cores != limits.cpus:
        not_enforced.append(f"CPUs: pinned to {limits.cores}, the fraction of {limits.cpus:g} is not enforced")
    if not sys.platform.startswith("linux"):
        not_enforced.append("memory and CPUs: not limited on this system")
    outcome = Outcome(
        status=status,
        reason=reason,
        wall_s=answer["wall_s"],
        peak_memory_bytes=answer["peak_bytes"],
        limits_read=told.get("limits", {}),
        phases=account(marks, told),
        detail={
            "not_enforced": not_enforced,
            "peak_memory": "largest resident size of the process (ru_maxrss), shared and file-backed pages included",
            "user_s": answer["user_s"],
            "system_s": answer["system_s"],
            "versions": told.get("versions", {}),
            "encodes": told.get("cases", {}).get(case_file.stem, {}).get("encodes"),
        },
    )
    if not sys.platform.startswith("linux"):
        return outcome
    return with_limits_checked(outcome, limits, cpu_quota=False, network=False, swap=False)
