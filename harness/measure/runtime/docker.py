"""The docker sandbox: one cold container a case, through the docker command line."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.errors import UnavailableError
from harness.measure.runtime import dockercli, groups, images
from harness.measure.runtime.bundle import Bundle
from harness.measure.runtime.dockercli import Answer, Mounts, StrictOptions, call
from harness.measure.runtime.groups import ParentGroup
from harness.measure.runtime.outputs import stage
from harness.measure.runtime.phases import SIDE_FOLDER, Marks, account, read_side_file
from harness.measure.runtime.sandbox import Limits, Outcome, Progress, RuntimeProtocol, too_many_cpus
from harness.measure.runtime.verdict import TAIL_BYTES, Ended, judge, last_line, with_limits_checked

ENGINE_GONE = "the Docker engine stopped answering"
_NOT_STARTED = (125, 126, 127)
"""Exit statuses of ``docker run`` itself: the engine refused, the command cannot be run, or is not found."""
_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Engine:
    """What the engine says about itself."""

    cpus: int
    driver: str
    cgroup: str
    version: str


@dataclass(frozen=True)
class Ran:
    """One container, seen from outside: the call, its times, and the engine's verdict.

    ``doubtful``: something said that the engine may be gone.
    """

    answer: Answer
    begin: float
    end: float
    wall_s: float
    started: float | None = None
    finished: float | None = None
    oom: bool = False
    exit_code: int | None = None
    doubtful: bool = False

    @property
    def cut_off(self) -> bool:
        """Whether the call lost the engine, so that how the program ended is not known from it."""
        # The program's own words also stand on standard error; its exit status is then that of the call.
        answer = self.answer
        return answer.unreachable and not answer.timed_out and answer.returncode != self.exit_code


@dataclass
class DockerSandbox:
    """Cold runs in containers; see the module text."""

    protocol: RuntimeProtocol = "strict"
    name: str = "docker"
    _image: str = field(default="", init=False)
    _engine: Engine | None = field(default=None, init=False)

    def unavailable(self) -> str | None:
        return dockercli.why_unavailable()

    def refuses(self, limits: Limits) -> str | None:
        if self.protocol == "cvpr24":
            return None  # the challenge's command sets no CPU limit
        return too_many_cpus(limits, self._facts().cpus, "the Docker engine's machine")

    def prepare(self, bundle: Bundle, progress: Progress) -> None:
        dockercli.remove_stale()
        groups.remove_stale()
        images.cache_folder().mkdir(parents=True, exist_ok=True)
        self._image = images.ensure_image("torch" if bundle.needs_torch else "numpy", progress)
        if self.protocol == "cvpr24":
            # The challenge's command mounts no model and names image and container alike.
            name = f"medsam-bench-{bundle.digest[:12]}-{os.getpid()}"
            images.build_submission(self._image, bundle.folder, name, dockercli.owner_labels())
            self._image = name

    def cleanup(self) -> None:
        dockercli.remove_own()
        if self.protocol == "cvpr24" and self._image:
            call(["docker", "rmi", "--force", f"{self._image}:latest"])
            self._image = ""

    def run_case(self, bundle: Bundle, case_file: Path, output_folder: Path, limits: Limits) -> Outcome:
        """See ``Sandbox``.

        Raises:
            UnavailableError: the engine is gone; that says nothing about the case.
        """
        side = output_folder / SIDE_FOLDER
        side.mkdir(parents=True, exist_ok=True)
        for folder in (output_folder, side):
            folder.chmod(0o777)  # the container's user is another one
        with tempfile.TemporaryDirectory(prefix="bench-case-", dir=output_folder.parent) as scratch:
            inputs = Path(scratch) / "inputs"
            stage(case_file, inputs)
            Path(scratch).chmod(0o755)
            mounts = Mounts(inputs.resolve(), output_folder.resolve(), bundle.folder.resolve())
            run = self._cvpr24 if self.protocol == "cvpr24" else self._strict
            ran, peak = run(mounts, limits)
        if ran.doubtful and not dockercli.alive():
            raise UnavailableError(f"{ENGINE_GONE}: {dockercli.why_unavailable() or 'it has only just come back'}")
        return self._outcome(ran, peak, case_file, output_folder, limits)

    def _facts(self) -> Engine:
        if self._engine is None:
            wanted = "{{.NCPU}}|{{.CgroupDriver}}|{{.CgroupVersion}}|{{.ServerVersion}}"
            answer = call(["docker", "info", "--format", wanted])
            parts = answer.stdout.strip().split("|")
            if len(parts) != 4 or not parts[0].isdigit() or int(parts[0]) == 0:
                raise UnavailableError(f"the Docker engine does not describe itself: {_docker_said(answer.stderr)}")
            self._engine = Engine(int(parts[0]), *parts[1:])
        return self._engine

    def _strict(self, mounts: Mounts, limits: Limits) -> tuple[Ran, tuple[int | None, str]]:
        number = next(_NUMBERS)
        name = f"{dockercli.CASE_NAME}-{os.getpid()}-{number}"
        with self._parent(number) as (parent, why_not):
            options = StrictOptions(
                cpus=_pinned(limits.cores),
                user=f"{os.getuid()}:{os.getgid()}" if os.getuid() else None,
                parent=parent.argument if parent else None,
                labels=dockercli.owner_labels(),
            )
            try:
                ran = _run(name, dockercli.strict_argv(name, self._image, mounts, limits, options), limits)
                ran = _with_state(ran, name)
                peak = parent.peak() if parent else (None, why_not)
            finally:
                call(["docker", "rm", "--force", "--volumes", name])
        return ran, peak

    def _cvpr24(self, mounts: Mounts, limits: Limits) -> tuple[Ran, tuple[int | None, str]]:
        try:
            ran = _run(self._image, dockercli.cvpr24_argv(self._image, mounts, limits), limits)
            ran = _with_events(ran, self._image)
        finally:
            call(["docker", "rm", "--force", self._image])
        return ran, (None, "the challenge's command leaves no control group to read")

    @contextmanager
    def _parent(self, number: int) -> Iterator[tuple[ParentGroup | None, str]]:
        why_not = groups.unusable()
        if why_not:
            yield None, why_not
            return
        parent = ParentGroup(number, self._facts().driver, self._facts().cgroup)
        try:
            yield parent, ""
        finally:
            parent.remove()

    def _outcome(
        self, ran: Ran, peak: tuple[int | None, str], case_file: Path, output_folder: Path, limits: Limits
    ) -> Outcome:
        told = read_side_file(output_folder)
        if ran.cut_off:
            return Outcome("crashed", ENGINE_GONE, ran.wall_s, limits_read=told.get("limits", {}))
        marks = Marks(ran.begin, ran.end, ran.wall_s, ran.started, ran.finished)
        detail: dict[str, Any] = {
            "engine": self._facts().version,
            "image": self._image,
            "not_enforced": self._not_enforced(),
            "versions": told.get("versions", {}),
            "encodes": told.get("cases", {}).get(case_file.stem, {}).get("encodes"),
        }
        if ran.exit_code is None and ran.answer.returncode in _NOT_STARTED:
            said = f"docker could not start the container: {_docker_said(ran.answer.stderr)}"
            return Outcome("crashed", said, ran.wall_s, detail=detail)
        code = ran.answer.returncode if ran.exit_code is None else ran.exit_code
        ended = Ended(code, ran.answer.stderr[-TAIL_BYTES:], ran.answer.timed_out, ran.oom)
        status, reason = judge(ended, told, case_file, output_folder, limits)
        peak_bytes, detail["peak_memory"] = _peak(peak, told)
        outcome = Outcome(status, reason, ran.wall_s, peak_bytes, told.get("limits", {}), account(marks, told), detail)
        strict = self.protocol == "strict"
        return with_limits_checked(outcome, limits, cpu_quota=strict, network=strict, swap=strict, cpus=strict)

    def _not_enforced(self) -> list[str]:
        if self.protocol == "strict":
            return []
        return [
            "CPUs: the challenge's command sets no limit",
            "network: the challenge's command leaves it on",
            "swap: the challenge's command allows as much again where the machine has swap",
        ]


def _pinned(cores: int) -> tuple[int, ...]:
    ours = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return tuple(ours[:cores]) if len(ours) >= cores else tuple(range(cores))


def _run(name: str, argv: list[str], limits: Limits) -> Ran:
    """The measured call; a container that outlasts its time is killed."""
    begin, clock = time.time(), time.monotonic()
    answer = call(argv, limits.timeout_s)
    wall = time.monotonic() - clock
    end = time.time()
    if answer.timed_out:
        call(["docker", "kill", name])
    doubtful = answer.unreachable or answer.timed_out or answer.returncode in _NOT_STARTED
    return Ran(answer, begin, end, wall, doubtful=doubtful)


def _with_state(ran: Ran, name: str) -> Ran:
    """``ran`` with what the engine noted of a container that is still there."""
    found = call(["docker", "inspect", "--format", "{{json .State}}", name])
    if not found.ok:
        return replace(ran, doubtful=True)
    state: dict[str, Any] = json.loads(found.stdout)
    started, finished = _moment(state["StartedAt"]), _moment(state["FinishedAt"])
    return replace(
        ran,
        started=started,
        finished=finished,
        oom=bool(state["OOMKilled"]),
        exit_code=state["ExitCode"] if started is not None else None,
    )


def _with_events(ran: Ran, name: str) -> Ran:
    """``ran`` with what the engine's log of events says of a container that is gone."""
    log = ["docker", "events", "--since", f"{ran.begin:.3f}", "--until", f"{time.time():.3f}"]
    found = call([*log, "--filter", f"container={name}", "--format", "{{json .}}"])
    if not found.ok:
        return replace(ran, doubtful=True)
    for line in found.stdout.splitlines():
        event: dict[str, Any] = json.loads(line)
        moment = event["timeNano"] / 1e9
        if event["Action"] == "start":
            ran = replace(ran, started=moment)
        elif event["Action"] == "oom":
            ran = replace(ran, oom=True)
        elif event["Action"] == "die":
            ran = replace(ran, finished=moment, exit_code=int(event["Actor"]["Attributes"]["exitCode"]))
    return ran


def _moment(text: str) -> float | None:
    """Seconds since the epoch of the engine's time stamp; ``None`` for its "never" (year 1)."""
    moment = datetime.fromisoformat(text)
    return moment.timestamp() if moment.year > 1 else None


def _peak(peak: tuple[int | None, str], told: dict[str, Any]) -> tuple[int | None, str]:
    inside = told.get("cgroup_peak_bytes")
    if peak[0] is None and inside is not None:
        return inside, f"the container's control group, read inside at the worker's end; {peak[1]}"
    return peak


def _docker_said(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.startswith("docker: ")]
    return lines[0].removeprefix("docker: ") if lines else last_line(stderr)
