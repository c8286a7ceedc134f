"""The docker command line: what is said to it (pure functions, tested without an engine) and how it answers."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.measure.runtime.sandbox import PIDS, Limits

GIB = 1024**3
OWNER = "medsam-bench.owner"
HOST = "medsam-bench.host"
CASE_NAME = "medsam-bench-run"
CALL_S = 60.0
BACK_S = 30.0
"""Seconds in which an engine that died has to be back for a job to go on."""
_UNREACHABLE = (
    "Cannot connect to the Docker daemon",
    "error during connect",
    "failed to connect to the docker API",
    "connection refused",
    "connection reset by peer",
    "unexpected EOF",
    "error waiting for container",
)


@dataclass(frozen=True)
class Mounts:
    """Folders of one run on the host: staged inputs, empty outputs, and the bundle unless the image needs none."""

    inputs: Path
    outputs: Path
    bundle: Path | None = None


@dataclass(frozen=True)
class StrictOptions:
    """What the strict command needs besides limits and mounts.

    ``cpus`` are the CPU numbers to pin to; ``parent`` is the control group that outlives the container, or ``None``;
    ``init`` puts an init process before the program; ``writable_root`` lets it write to the files of its image.
    """

    cpus: tuple[int, ...]
    init: bool = True
    writable_root: bool = False
    user: str | None = None
    parent: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What one call of the command line came to; ``timed_out``: it did not return in time."""

    returncode: int
    stdout: str
    stderr: str
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        return self.returncode == 0

    @property
    def unreachable(self) -> bool:
        """Whether it says that no engine answered."""
        return not self.ok and any(mark.lower() in self.stderr.lower() for mark in _UNREACHABLE)


def cvpr24_argv(name: str, mounts: Mounts, limits: Limits) -> list[str]:
    """The challenge's command and nothing else (``CVPR24_time_eval.py``); image and container have the same name."""
    whole, rest = divmod(limits.memory_bytes, GIB)
    return [
        *("docker", "container", "run"),
        *("-m", f"{limits.memory_bytes}b" if rest else f"{whole}G"),
        *("--name", name, "--rm"),
        *("-v", f"{mounts.inputs}/:/workspace/inputs/"),
        *("-v", f"{mounts.outputs}/:/workspace/outputs/"),
        f"{name}:latest",
        *("/bin/bash", "-c", "sh predict.sh"),
    ]


def strict_argv(name: str, image: str, mounts: Mounts, limits: Limits, options: StrictOptions) -> list[str]:
    """The hardened command: no swap, pinned CPUs, no network, no privileges, nothing writable but the outputs.

    The container is not removed at its end (no ``--rm``), so that the engine's verdict on it can be read.
    """
    argv = ["docker", "run", "--name", name, *(["--init"] if options.init else []), "--pull", "never"]
    argv += ["--memory", f"{limits.memory_bytes}b", "--memory-swap", f"{limits.memory_bytes}b"]
    argv += ["--cpus", f"{limits.cpus:g}", "--cpuset-cpus", ",".join(map(str, options.cpus))]
    if not limits.network:
        argv += ["--network", "none"]
    if not options.writable_root:
        argv += ["--read-only", "--tmpfs", "/tmp:rw,size=64m"]  # noqa: S108 (inside the container)
    argv += ["--pids-limit", str(PIDS), "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    if options.user:
        argv += ["--user", options.user]
    if options.parent:
        argv += ["--cgroup-parent", options.parent]
    for key, value in options.labels.items():
        argv += ["--label", f"{key}={value}"]
    argv += _mount(mounts.inputs, "/workspace/inputs", read_only=True)
    argv += _mount(mounts.outputs, "/workspace/outputs", read_only=False)
    if mounts.bundle is not None:
        argv += _mount(mounts.bundle, "/workspace/bundle", read_only=True)
    return [*argv, image, "sh", "predict.sh"]


def _mount(source: Path, target: str, *, read_only: bool) -> list[str]:
    quoted = f'"source={source}"' if "," in str(source) else f"source={source}"
    return ["--mount", f"type=bind,{quoted},target={target}{',readonly' if read_only else ''}"]


def call(argv: Sequence[str], timeout_s: float = CALL_S) -> Answer:
    """Run the docker command line; a missing program and a timeout are answers too.

    It runs in a session of its own: Ctrl-C is for the measuring process, which then removes its containers, and not for
    the program in the container, to which the command line would pass it on.
    """
    try:
        done = subprocess.run(
            list(argv),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        return Answer(-1, "", _text(error.stderr), timed_out=True)
    except OSError as error:
        return Answer(127, "", f"{argv[0]}: {error.strerror}")
    return Answer(done.returncode, done.stdout, done.stderr)


def _text(data: bytes | str | None) -> str:
    return data.decode(errors="replace") if isinstance(data, bytes) else data or ""


def why_unavailable() -> str | None:
    """Why no container can be started here and the command that mends it, or ``None``."""
    if shutil.which("docker") is None:
        return (
            "docker is not installed; `.ci/start-docker.sh` (root, Debian) brings an engine, for other systems see "
            "https://docs.docker.com/engine/install"
        )
    answer = call(["docker", "version", "--format", "{{.Server.Version}}"], timeout_s=15)
    if answer.ok:
        return None
    if "permission denied" in answer.stderr.lower():
        return "the Docker engine refuses this user; `sudo usermod -aG docker $USER`, then log in again"
    place = os.environ.get("DOCKER_HOST", "the default socket")
    return (
        f"no Docker engine answers at {place}; start it with `sudo systemctl start docker` or `.ci/start-docker.sh`, "
        "and check DOCKER_HOST if it is set"
    )


def alive(wait_s: float = 0.0) -> bool:
    """Whether the engine answers now, or within that time: an engine that died is usually started again."""
    deadline = time.monotonic() + wait_s
    while not call(["docker", "version", "--format", "{{.Server.Version}}"], timeout_s=15).ok:
        if time.monotonic() >= deadline:
            return False
        time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))
    return True


def owner_labels() -> dict[str, str]:
    """Labels that name the measuring process: its host, and its id with its start time (ids are used again)."""
    return {HOST: socket.gethostname(), OWNER: f"{os.getpid()}:{start_time(os.getpid())}"}


def start_time(pid: int) -> str:
    """When a process started, in the kernel's ticks; empty if there is none (or no ``/proc``)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


def is_stale(owner: str, host: str) -> bool:
    """Whether the labels name a measuring process of this machine that has ended."""
    if host != socket.gethostname():
        return False
    pid, _, started = owner.partition(":")
    if not pid.isdigit():
        return True
    if Path("/proc/self").exists():
        return start_time(int(pid)) != started
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def remove_own() -> None:
    """Remove containers of this process that a killed call may have left, also those that never started."""
    mine = call(["docker", "ps", "--all", "--quiet", "--filter", f"label={OWNER}={owner_labels()[OWNER]}"])
    remove(mine.stdout.split())


def remove(names: Sequence[str]) -> None:
    """Remove containers and their unnamed volumes in one call, running ones too."""
    if names:
        call(["docker", "rm", "--force", "--volumes", *names])


def remove_stale() -> list[str]:
    """Remove containers, then images, of measuring processes that were killed; what was removed."""
    removed = []
    listings = (
        (["docker", "ps", "--all"], ["docker", "rm", "--force", "--volumes"]),
        (["docker", "images"], ["docker", "rmi", "--force"]),
    )
    for listing, removal in listings:
        found = call([*listing, "--quiet", "--no-trunc", "--filter", f"label={OWNER}"])
        for identity in dict.fromkeys(found.stdout.split()):
            kind = "image" if "images" in listing else "container"
            wanted = f'{{{{index .Config.Labels "{OWNER}"}}}}|{{{{index .Config.Labels "{HOST}"}}}}'
            labels = call(["docker", kind, "inspect", "--format", wanted, identity])
            owner, _, host = labels.stdout.strip().partition("|")
            if labels.ok and is_stale(owner, host) and call([*removal, identity]).ok:
                removed.append(identity)
    return removed
