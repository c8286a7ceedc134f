"""Start one measured process and wait for it: limits before its first instruction, exact times, its own peak memory.

Run as a script by the sandboxes that need no engine, one request (JSON) on standard input, one answer (JSON) on
standard output.  It is a process of its own because (a) limits can only be set safely between fork and exec in a
process without threads, and (b) Linux starts a child's ``ru_maxrss`` at the size of its parent, so the parent must be
small.  Standard library alone.
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
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
SHARING = " (pages shared between them count for each)"
"""What sums over several processes are told with."""
_FAMILY_EVERY = 10
"""With every so manieth sample it is looked whether the process has children."""
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def die_with(parent: int) -> None:
    """Be killed when process ``parent``, our parent, dies (Linux); exit at once if it is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def join(groups: list[str]) -> None:
    """Enter control groups, each named by its ``cgroup.procs``; 0 is the process that writes."""
    for procs in groups:
        with Path(procs).open("w", encoding="ascii") as stream:
            stream.write("0")


def leave_network() -> None:
    """Move to a network of our own that has nothing but a loopback interface (root alone may, Linux)."""
    import fcntl
    import socket
    import struct

    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"no network of its own for the program: {os.strerror(number)}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def become(request: dict[str, Any], parent: int) -> None:
    """In the child: own session, limits, streams, then the program itself."""
    os.setsid()
    die_with(parent)
    join(request.get("join", []))
    if request.get("no_network"):
        leave_network()
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


class Family:
    """The anonymous memory of some processes, looked at from outside (Linux).

    It is ``RssAnon`` of ``/proc/<pid>/status``, taken from ``statm``, where it is the resident pages less the shared
    ones: a tenth of the work (proc(5)).
    """

    def __init__(self) -> None:
        self._files: dict[int, int] = {}
        self._page = os.sysconf("SC_PAGE_SIZE")

    def admit(self, pids: Iterable[int]) -> None:
        """Look at these processes too from now on."""
        for pid in set(pids) - set(self._files):
            with contextlib.suppress(OSError):
                self._files[pid] = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)

    def anonymous(self) -> int | None:
        """Their anonymous memory now, in bytes; ``None`` if none of them is there."""
        total = None
        for pid, descriptor in list(self._files.items()):
            try:
                fields = os.pread(descriptor, 256, 0).split()
                total = (total or 0) + (int(fields[1]) - int(fields[2])) * self._page
            except (OSError, IndexError):  # it has ended
                os.close(self._files.pop(pid))
        return total

    def close(self) -> None:
        """Let go of the files."""
        while self._files:
            os.close(self._files.popitem()[1])


class Anonymous:
    """Samples the anonymous memory of a process and of its children; ``peak`` is the largest sum seen, in bytes."""

    def __init__(self, child: int) -> None:
        self.child = child
        self.peak = 0
        self.samples = 0
        self._family = Family()

    def sample(self) -> None:
        """Take one sample."""
        if self.samples % _FAMILY_EVERY == 0:
            self._family.admit({self.child, *descendants(self.child)})
        self.samples += 1
        self.peak = max(self.peak, self._family.anonymous() or 0)

    def close(self) -> None:
        """Let go of the files."""
        self._family.close()


def descendants(pid: int) -> set[int]:
    """All processes below ``pid``; none where the kernel does not tell (no ``CONFIG_PROC_CHILDREN``)."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with (task / "children").open(encoding="ascii") as stream:
                found.update(map(int, stream.read().split()))
    return found.union(*map(descendants, found))


def wait(child: int, deadline: float, watch: Anonymous | None = None, interval: float | None = None) -> bool:
    """Wait until ``child`` has ended (it stays unreaped) or the monotonic ``deadline`` passes: whether it ended.

    ``watch`` takes a sample every ``interval`` seconds; that needs Linux 5.3 and later.
    """
    if hasattr(os, "pidfd_open"):
        try:
            descriptor = os.pidfd_open(child)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
        else:
            try:
                while True:
                    if watch:
                        watch.sample()
                    left = max(0.0, deadline - time.monotonic())
                    turn = min(left, interval) if watch and interval else left
                    if select.select([descriptor], [], [], turn)[0]:
                        return True
                    if turn == left:
                        return False
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
    interval = request.get("sample_s")
    watch = Anonymous(child) if interval else None
    ended = wait(child, clock + request["timeout_s"], watch, interval)
    wall = time.monotonic() - clock
    finished = time.time()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # the whole group: also what an ended worker left running
    if not ended:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    kills_after = kernel_oom_kills()
    if watch:
        watch.close()
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
        "anonymous_bytes": watch.peak if watch and watch.peak else None,
        "samples": watch.samples if watch else 0,
        "user_s": usage.ru_utime,
        "system_s": usage.ru_stime,
        "kernel_oom": kills is not None and kills_after is not None and kills_after > kills,
    }


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    die_with(asked["parent"])
    json.dump(run(asked), sys.stdout)
