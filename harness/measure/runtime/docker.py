"""The docker sandbox: one cold container a case, through the docker command line."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import BenchError, UnavailableError
from harness.measure.runtime import dockercli, engine, foreign, groups, images, outside
from harness.measure.runtime.bundle import Bundle
from harness.measure.runtime.dockercli import Answer, Mounts, StrictOptions, call
from harness.measure.runtime.engine import Engine
from harness.measure.runtime.foreign import Foreign
from harness.measure.runtime.groups import ParentGroup, Usage
from harness.measure.runtime.outputs import Staged, left_behind, stage
from harness.measure.runtime.outside import LimitsWatch
from harness.measure.runtime.phases import SIDE_FOLDER, Marks, account, read_side_file, work_told
from harness.measure.runtime.sandbox import Limits, Outcome, Progress, RuntimeProtocol, too_many_cpus
from harness.measure.runtime.verdict import TAIL_BYTES, Ended, judge, last_line, with_limits_checked

ENGINE_GONE = "the Docker engine stopped answering"
_NOT_STARTED = (125, 126, 127)
"""Exit statuses of ``docker run`` itself: the engine refused, the command cannot be run, or is not found."""
_TOGETHER = 10
"""Containers that are removed in one call: their removal is work beside every run."""
_NUMBERS = itertools.count()
_OWN_USER = "user: the image's own, with all capabilities dropped"
_NOT_VISIBLE = "not visible: the image is not ours, so of the phases only start and stop are known"
_READ_ONLY = (
    "the image writes to its own files, which protocol strict mounts read-only; `writable_root: true` of its row "
    "(`bench runtime --writable-root`) allows it"
)


@dataclass(frozen=True)
class Ran:
    """One container, seen from outside: the call, its times, and the engine's verdict.

    ``doubtful``: something said that the engine may be gone; ``limits``: as read from outside, of foreign images alone.
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
    limits: dict[str, Any] = field(default_factory=dict)

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
    _foreign: Foreign | None = field(default=None, init=False)
    _engine: Engine | None = field(default=None, init=False)
    _ended: list[str] = field(default_factory=list, init=False)

    def unavailable(self) -> str | None:
        return engine.why_unavailable()

    def refuses(self, limits: Limits) -> str | None:
        if self.protocol == "cvpr24":
            return None  # the challenge's command sets no CPU limit
        return too_many_cpus(limits, self._facts().cpus, "the Docker engine's machine")

    def prepare(self, bundle: Bundle, progress: Progress) -> None:
        _sweep()
        groups.remove_kept()
        images.cache_folder().mkdir(parents=True, exist_ok=True)
        self._foreign = foreign.of(bundle)
        if self._foreign is not None:
            self._image = foreign.bring(self._foreign, progress)
            if self.protocol == "cvpr24":
                try:
                    self._image = foreign.tag(self._image, f"{os.getpid()}n{next(_NUMBERS)}")
                except BenchError:
                    foreign.unload(self._foreign)
                    raise
            return
        self._image = images.ensure_image(images.target_of(bundle.target), progress)
        if self.protocol == "cvpr24":
            # The challenge's command mounts no model and names image and container alike.
            name = f"medsam-bench-{bundle.digest[:12]}-{os.getpid()}"
            images.build_submission(self._image, bundle.folder, name, dockercli.owner_labels())
            self._image = name

    def cleanup(self) -> None:
        dockercli.remove_own()
        self._ended.clear()
        groups.remove_kept()
        if self._foreign is not None and self.protocol == "cvpr24" and self._image:
            foreign.untag(self._image)
            self._image = ""
        elif self.protocol == "cvpr24" and self._image:
            call(["docker", "rmi", "--force", f"{self._image}:latest"])
            self._image = ""
        if self._foreign is not None:
            foreign.unload(self._foreign)
            self._foreign = None

    def run_case(self, bundle: Bundle, case_file: Path, output_folder: Path, limits: Limits) -> Outcome:
        """See ``Sandbox``.

        Raises:
            UnavailableError: the engine is gone; that says nothing about the case.
        """
        side = output_folder / SIDE_FOLDER if self._foreign is None else output_folder
        side.mkdir(parents=True, exist_ok=True)
        for folder in (output_folder, side):
            folder.chmod(0o777)  # the container's user is another one
        if self._foreign is not None and any(output_folder.iterdir()):
            raise BenchError(f"{output_folder}: an earlier run's files are still there; remove the folder")
        with tempfile.TemporaryDirectory(prefix="bench-case-", dir=output_folder.parent) as scratch:
            inputs = Path(scratch) / "inputs"
            staged = Staged.of(stage(case_file, inputs))
            Path(scratch).chmod(0o755)
            ours = bundle.folder.resolve() if self._foreign is None else None
            mounts = Mounts(inputs.resolve(), output_folder.resolve(), ours)
            run = self._cvpr24 if self.protocol == "cvpr24" else self._strict
            ran, usage = run(mounts, limits)
            left = left_behind(staged, output_folder, asked_for=SIDE_FOLDER if self._foreign is None else None)
            self._clear(inputs)
        if ran.doubtful:
            self._wait_for_engine()
        outcome = self._outcome(ran, usage, case_file, output_folder, limits)
        self._clear(output_folder, keep=case_file.name)
        return replace(outcome, detail={**outcome.detail, "left_behind": left}) if left else outcome

    def _wait_for_engine(self) -> None:
        """Go on with an engine that answers and with none of our containers left; ``UnavailableError`` without one."""
        if not dockercli.alive(dockercli.BACK_S):
            raise UnavailableError(f"{ENGINE_GONE}: {dockercli.why_unavailable() or 'it has only just come back'}")
        engine.facts_at.cache_clear()  # what answers now may be another engine
        dockercli.remove_own()
        if self.protocol == "cvpr24":
            call(["docker", "rm", "--force", self._image])

    def _clear(self, folder: Path, keep: str = "") -> None:
        """Remove what a foreign image left in a mounted folder; files of its own user are removed in a container."""
        if self._foreign is None:
            return
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != keep:
                path.unlink(missing_ok=True)
        stubborn = [path.name for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
        if stubborn:
            argv = ["docker", "run", "--rm", "--network", "none", "--user", "0", "--entrypoint", "rm"]
            call([*argv, "--volume", f"{folder}:/left", self._image, "-rf", *(f"/left/{n}" for n in stubborn)])

    def _facts(self) -> Engine:
        if self._engine is None:
            self._engine = engine.facts_at(os.environ.get("DOCKER_HOST", ""))
        return self._engine

    def _strict(self, mounts: Mounts, limits: Limits) -> tuple[Ran, Usage]:
        number = next(_NUMBERS)
        name = f"{dockercli.CASE_NAME}-{os.getpid()}-{number}"
        with (
            self._parent(number) as parent,
            self._watching(parent) as usage_of,
            self._limits_watch(name, parent) as seen,
        ):
            options = StrictOptions(
                cpus=_pinned(limits.cores),
                user=f"{os.getuid()}:{os.getgid()}" if os.getuid() and self._foreign is None else None,
                init=self._foreign is None or self._foreign.init,
                writable_root=self._foreign is not None and self._foreign.writable_root,
                parent=parent.argument if parent else None,
                labels=dockercli.owner_labels(),
            )
            later = False
            try:
                ran = _run(name, dockercli.strict_argv(name, self._image, mounts, limits, options), limits)
                ran, told = _with_state(ran, name)
                if seen:
                    ran = _with_limits(ran, seen, told)
                usage = usage_of(None if parent else told.get("Id"))
                later = self._foreign is None and not ran.doubtful
            finally:
                self._remove(name, later)
        return ran, usage

    def _remove(self, name: str, later: bool) -> None:
        """Remove a container now, or with the next ones if it has ended and holds nothing."""
        if not later:
            dockercli.remove([name])
            return
        self._ended.append(name)
        if len(self._ended) >= _TOGETHER:
            dockercli.remove(self._ended)
            self._ended.clear()
            groups.remove_kept()

    def _cvpr24(self, mounts: Mounts, limits: Limits) -> tuple[Ran, Usage]:
        gone = False
        try:
            with self._limits_watch(self._image, by_name=True) as seen, self._watching() as usage_of:
                ran = _run(self._image, dockercli.cvpr24_argv(self._image, mounts, limits), limits)
            ran, identity = _with_events(ran, self._image)
            if seen:
                ran = replace(ran, limits=outside.merged({}, seen.of(identity)))
            gone = not ran.doubtful  # `--rm` of the command removed it
        finally:
            if not gone:
                call(["docker", "rm", "--force", self._image])
        return ran, usage_of(identity)

    @contextmanager
    def _parent(self, number: int) -> Iterator[ParentGroup | None]:
        if groups.unusable():
            yield None
            return
        parent = ParentGroup(number, self._facts().driver, self._facts().cgroup)
        try:
            yield parent
        finally:
            groups.discard(parent)

    def _watching(self, parent: ParentGroup | None = None) -> AbstractContextManager[Callable[[str | None], Usage]]:
        """Watch the memory of the container from outside; in the end it is asked for by the container's id."""
        return groups.watching(parent, self._facts().driver, self._facts().cgroup)

    @contextmanager
    def _limits_watch(
        self, name: str, parent: ParentGroup | None = None, *, by_name: bool = False
    ) -> Iterator[LimitsWatch | None]:
        """Limits are read from outside where the program is not ours to tell them."""
        if self._foreign is None:
            yield None
            return
        facts, above = self._facts(), parent.argument if parent else None
        with LimitsWatch(facts.driver, facts.cgroup, above, name if by_name else None) as watch:
            yield watch

    def _outcome(self, ran: Ran, usage: Usage, case_file: Path, output_folder: Path, limits: Limits) -> Outcome:
        told = read_side_file(output_folder) if self._foreign is None else {"limits": ran.limits}
        if ran.cut_off:
            return Outcome("crashed", ENGINE_GONE, ran.wall_s, limits_read=told.get("limits", {}))
        marks = Marks(ran.begin, ran.end, ran.wall_s, ran.started, ran.finished)
        detail: dict[str, Any] = {
            "engine": self._facts().version,
            "image": self._image,
            "not_enforced": self._not_enforced(),
            "versions": told.get("versions", {}),
            **work_told(told, case_file.stem),
        }
        if self._foreign is not None:
            detail |= {"source": self._foreign.source, "inside": _NOT_VISIBLE, "init": self._foreign.init}
        if ran.exit_code is None and ran.answer.returncode in _NOT_STARTED:
            said = f"docker could not start the container: {_docker_said(ran.answer.stderr)}"
            return Outcome("crashed", said, ran.wall_s, detail=detail)
        code = ran.answer.returncode if ran.exit_code is None else ran.exit_code
        ended = Ended(code, ran.answer.stderr[-TAIL_BYTES:], ran.answer.timed_out, ran.oom)
        status, reason = judge(ended, told, case_file, output_folder, limits)
        if status in ("crashed", "invalid-output") and self._wants_to_write(ran.answer):
            reason = f"{_READ_ONLY}: {reason}"
        usage = usage.completed(told)
        peak_bytes, detail["peak_memory"] = usage.peak
        anonymous_bytes, detail["peak_anonymous"] = usage.anonymous
        detail["throttled"] = usage.throttled
        outcome = Outcome(
            status=status,
            reason=reason,
            wall_s=ran.wall_s,
            peak_memory_bytes=peak_bytes,
            peak_anonymous_bytes=anonymous_bytes,
            limits_read=told.get("limits", {}),
            phases=account(marks, told),
            detail=detail,
        )
        strict = self.protocol == "strict"
        fixed = strict and not (self._foreign is not None and self._foreign.writable_root)
        enforced = dict.fromkeys(("cpu_quota", "network", "swap", "cpus", "pids"), strict)
        return with_limits_checked(outcome, limits, **enforced, read_only=fixed)

    def _wants_to_write(self, answer: Answer) -> bool:
        """Whether a foreign image failed to write to its own files, which are read-only unless that is allowed."""
        if self._foreign is None or self._foreign.writable_root or self.protocol != "strict":
            return False
        return "read-only file system" in f"{answer.stdout[-TAIL_BYTES:]}{answer.stderr[-TAIL_BYTES:]}".lower()

    def _not_enforced(self) -> list[str]:
        if self.protocol == "strict":
            if self._foreign is None:
                return []
            writable = ["root file system: writable (`writable_root`), every run starts from the image's own"]
            return [_OWN_USER, *(writable if self._foreign.writable_root else [])]
        return [
            "CPUs: the challenge's command sets no limit",
            "network: the challenge's command leaves it on",
            "swap: the challenge's command allows as much again where the machine has swap",
        ]


@cache
def _sweep() -> None:
    """Remove what measuring processes that have ended left behind; once a process, for it does not come back."""
    dockercli.remove_stale()
    groups.remove_stale()
    foreign.remove_stale_tags()


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


def _with_state(ran: Ran, name: str) -> tuple[Ran, dict[str, Any]]:
    """``ran`` with what the engine noted of a container that is still there, and all it tells of it."""
    found = engine.container(name)
    if not found.ok:
        return replace(ran, doubtful=True), {}
    told: dict[str, Any] = json.loads(found.stdout)
    state = told["State"]
    started, finished = _moment(state["StartedAt"]), _moment(state["FinishedAt"])
    code = state["ExitCode"] if started is not None else None
    return replace(ran, started=started, finished=finished, oom=bool(state["OOMKilled"]), exit_code=code), told


def _with_limits(ran: Ran, seen: LimitsWatch, told: dict[str, Any]) -> Ran:
    """``ran`` with the limits its container had: as the kernel held them, else as the engine says."""
    return replace(ran, limits=outside.merged(outside.configured(told) if told else {}, seen.of(told.get("Id"))))


def _with_events(ran: Ran, name: str) -> tuple[Ran, str | None]:
    """``ran`` with what the engine's log of events says of a container that is gone, and the container's id."""
    found = engine.events(name, ran.begin, time.time())
    if not found.ok:
        return replace(ran, doubtful=True), None
    identity = None
    for line in found.stdout.splitlines():
        event: dict[str, Any] = json.loads(line)
        moment = event["timeNano"] / 1e9
        if event["Action"] == "start":
            ran, identity = replace(ran, started=moment), event["Actor"]["ID"]
        elif event["Action"] == "oom":
            ran = replace(ran, oom=True)
        elif event["Action"] == "die":
            ran = replace(ran, finished=moment, exit_code=int(event["Actor"]["Attributes"]["exitCode"]))
    return ran, identity


def _moment(text: str) -> float | None:
    """Seconds since the epoch of the engine's time stamp; ``None`` for its "never" (year 1)."""
    moment = datetime.fromisoformat(text)
    return moment.timestamp() if moment.year > 1 else None


def _docker_said(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.startswith("docker: ")]
    return lines[0].removeprefix("docker: ") if lines else last_line(stderr)
