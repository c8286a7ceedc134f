"""Start one measured process and wait for it: limits before its first instruction, exact times, its own peak memory.

Run as a script by the process sandbox, one request (JSON) on standard input, one answer (JSON) on standard output.  It
is a process of its own because (a) limits can only be set safely between fork and exec in a process without threads,
and (b) Linux starts a child's ``ru_maxrss`` at the size of its parent, so the parent must be small.  Standard library
alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def die_with(parent: int) -> None:
    """Be killed when process ``parent``, our parent, dies (Linux); exit at once if it is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def become(request: dict[str, Any], parent: int) -> None:
    """In the child: own session, limits, streams, then the program itself."""
    os.setsid()
    die_with(parent)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if request["cpus"] is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, request["cpus"])
    if request["data_bytes"] is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (request["data_bytes"], request["data_bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir(request["cwd"])
    os.execve(request["argv"][0], request["argv"], request["env"])  # noqa: S606 (a shell is not wanted)


def start(request: dict[str, Any]) -> tuple[int, float, str | None]:
    """Fork and exec; returns the process id, the time at which the program began, and what failed before that."""
    reading, writing = os.pipe()  # closed by exec: end of file here means that the program runs
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.set_inheritable(writing, False)
            become(request, parent)
        except BaseException as error:  # the child must never return into the parent's code
            os.write(writing, str(error).encode())
        finally:
            os._exit(127)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        problem = stream.read().decode(errors="replace")
    return child, time.time(), problem or None


def wait(child: int, deadline: float) -> bool:
    """Wait until ``child`` has ended (it stays unreaped) or the monotonic ``deadline`` passes: whether it ended."""
    if hasattr(os, "pidfd_open"):
        try:
            descriptor = os.pidfd_open(child)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
        else:
            try:
                left = max(0.0, deadline - time.monotonic())
                return bool(select.select([descriptor], [], [], left)[0])
            finally:
                os.close(descriptor)
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def kernel_oom_kills() -> int | None:
    """How often the kernel killed for want of memory since it started, or ``None`` if it does not count."""
    try:
        with Path("/proc/vmstat").open(encoding="ascii") as stream:
            return next((int(line.split()[1]) for line in stream if line.startswith("oom_kill ")), None)
    except OSError:
        return None


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Serve one request; see the module text.  Seconds and bytes in the answer."""
    kills = kernel_oom_kills()
    begin, clock = time.time(), time.monotonic()
    child, started, problem = start(request)
    ended = wait(child, clock + request["timeout_s"])
    wall = time.monotonic() - clock
    finished = time.time()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # the whole group: also what an ended worker left running
    if not ended:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    kills_after = kernel_oom_kills()
    return {
        "problem": problem,
        "timed_out": not ended,
        "returncode": os.waitstatus_to_exitcode(status),
        "begin": begin,
        "started": started,
        "finished": finished,
        "end": time.time(),
        "wall_s": wall,
        "peak_bytes": usage.ru_maxrss * _MAXRSS_UNIT,
        "user_s": usage.ru_utime,
        "system_s": usage.ru_stime,
        "kernel_oom": kills is not None and kills_after is not None and kills_after > kills,
    }


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    die_with(asked["parent"])
    json.dump(run(asked), sys.stdout)
