"""A session: jobs that are timed together take turns, until every case has its repeats or its median is precise."""

from __future__ import annotations

import os
import random
import shutil
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.config import RuntimeSettings
from harness.errors import BenchError, UnavailableError
from harness.failure import reason_of, status_of
from harness.measure.attempts import ATTEMPTS, DIED, Attempts
from harness.measure.runtime import disturbance
from harness.measure.runtime.bundle import Bundle
from harness.measure.runtime.sandbox import Limits, Outcome, Sandbox
from harness.stats import relative_half_width

if TYPE_CHECKING:
    from harness.data import CaseInfo
    from harness.jobs import JobContext
    from harness.schema import Record

Slot = tuple[str, str]
"""Digest of a data set, and a case of it."""
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


class ToRecords(Protocol):
    """What turns the outcome of a run into rows."""

    def __call__(
        self, outcome: Outcome, repeat: int, info: CaseInfo, settings: RuntimeSettings, extra: dict[str, Any]
    ) -> list[Record]: ...


@dataclass
class Member:
    """A job of a session, ready to be measured.

    Attributes:
        index: which of the jobs it is.
        data: digest of its data set; cases of different data sets may have one name.
        cases: by name, in order.
        walls: wall times of a case's runs; ``None`` for a run that failed.
    """

    index: int
    data: str
    context: JobContext
    settings: RuntimeSettings
    cases: dict[str, CaseInfo]
    sandbox: Sandbox
    limits: Limits
    bundle: Bundle
    to_records: ToRecords
    walls: dict[str, list[float | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.settings.precision is not None:
            for record in self.context.records():
                if record.metric == "wall" and record.case:
                    self.walls.setdefault(record.case, []).append(record.value)

    @property
    def most(self) -> int:
        """Repeats of a case at most."""
        settings = self.settings
        return settings.repeats if settings.precision is None else max(settings.repeats, settings.max_repeats)

    @property
    def spent_s(self) -> float:
        """Seconds that earlier sessions spent on it."""
        return sum(wall for walls in self.walls.values() for wall in walls if wall is not None)

    def imprecise(self, case: Slot) -> bool:
        """Whether the median of a case is to be made more precise; a case that fails is not tried again for it."""
        walls = self.walls.get(case[1], [])
        if not self.has(case) or self.settings.precision is None or None in walls:
            return False
        width = relative_half_width([wall for wall in walls if wall is not None])
        return width is None or width > self.settings.precision

    def has(self, case: Slot) -> bool:
        return case[0] == self.data and case[1] in self.cases

    def todo(self, repeat: int, case: Slot) -> bool:
        return self.has(case) and not self.context.done(unit_key(repeat, case[1]))


class Session:
    """Runs of several jobs, interleaved; see the module text of ``job``."""

    def __init__(self, members: Sequence[Member], turn: Callable[[int], None]) -> None:
        self._active = list(members)
        self._turn = turn
        self._id = uuid.uuid4().hex[:12]
        self._place = 0
        self._warm: set[str] = set()
        self._fastest = float("inf")
        self._state: disturbance.State | None = None
        self._begun = time.monotonic() - sum(m.spent_s for m in members)
        self._mark = self._begun
        self._total = sum(m.settings.repeats * len(m.cases) for m in members)

    def measure(self) -> Iterator[tuple[Member, BenchError]]:
        """Do every run that is to be done; yields the jobs that could not go on, and why."""
        if self._active:
            self._fastest = disturbance.fastest_probe()
        yield from self._each(self._active, self._warm_up)
        self._mark = time.monotonic()
        for repeat in range(max((m.most for m in self._active), default=0)):
            for case in list(dict.fromkeys((m.data, name) for m in self._active for name in m.cases)):
                order = [m for m in self._active if m.todo(repeat, case) and self._asked(m, repeat, case)]
                random.shuffle(order)
                yield from self._each(order, partial(self._once, repeat=repeat, case=case[1]))
        for member in self._active:
            member.context.progress(1.0, "done")

    def _asked(self, member: Member, repeat: int, case: Slot) -> bool:
        """Whether the repeat is one of those asked for, or one more that any job needs: then all take part in it."""
        if repeat < member.settings.repeats:
            return True
        budget = member.settings.budget
        if repeat >= member.most or (budget and time.monotonic() - self._begun > budget):
            return False
        return any(m.imprecise(case) for m in self._active)

    def _each(self, members: Sequence[Member], work: Callable[[Member], None]) -> Iterator[tuple[Member, BenchError]]:
        """Do something for jobs in order; one that cannot go on takes no further part, nor what shares its lot."""
        for member in list(members):
            if member not in self._active:
                continue
            try:
                work(member)
            except UnavailableError as error:
                yield from self._drop([m for m in self._active if m is member or m.sandbox.unavailable()], error)
            except BenchError as error:
                yield from self._drop([member], error)
            except Exception as error:  # a full disk, a defect: the others go on
                traceback.print_exc()
                yield from self._drop([member], BenchError(reason_of(error)))

    def _drop(self, members: Sequence[Member], error: BenchError) -> Iterator[tuple[Member, BenchError]]:
        for member in members:
            self._active.remove(member)
            yield member, error

    def _warm_up(self, member: Member) -> None:
        """Bring a job's files into the page cache by its smallest case; files that another job has are there."""
        key = f"{member.sandbox.name} {member.bundle.digest}"
        if member.settings.page_cache == "cold" or key in self._warm:
            return
        for info in sorted(member.cases.values(), key=lambda info: info.path.stat().st_size):
            case = (member.data, info.name)
            if any(member.todo(r, case) and self._asked(member, r, case) for r in range(member.most)):
                self._say(member, "warming the page cache")
                _run(member, info.path)
                self._warm.add(key)
                return

    def _once(self, member: Member, repeat: int, case: str) -> None:
        settings, info = member.settings, member.cases[case]
        self._say(member, f"{case}, run {repeat + 1}")
        if settings.page_cache == "cold":
            drop_page_cache()
        attempts = Attempts(member.context.work / "attempting")
        before = self._state or disturbance.read_state(member.limits.cores)
        if attempts.deaths(unit_key(repeat, case)) >= ATTEMPTS:
            outcome = Outcome("crashed", DIED, 0.0)
        else:
            with attempts.attempting(unit_key(repeat, case)):
                outcome = _run(member, info.path)
        self._state = after = disturbance.read_state(member.limits.cores)
        self._fastest = min(self._fastest, after.probe_s)
        extra = {
            **disturbance.compare(before, after, self._fastest, outcome.detail.get("cpu_s")),
            "session": self._id,
            "place": self._place,
            "page_cache": settings.page_cache,
            "outside_s": round(self._outside(outcome.wall_s), 4),
        }
        self._place += 1
        member.context.append(unit_key(repeat, case), member.to_records(outcome, repeat, info, settings, extra))
        member.walls.setdefault(case, []).append(outcome.wall_s if outcome.status == "ok" else None)

    def _outside(self, wall_s: float) -> float:
        """Seconds spent beside the run itself since the one before: what the harness costs."""
        now, before = time.monotonic(), self._mark
        self._mark = now
        return now - before - wall_s

    def _say(self, member: Member, message: str) -> None:
        self._turn(member.index)
        member.context.progress(min(1.0, self._place / max(1, self._total)), message)


def unit_key(repeat: int, case: str) -> str:
    """The journal's key of one run."""
    return f"{repeat}/{case}"


def drop_page_cache(file: Path = DROP_CACHES) -> None:
    """Write dirty pages out and forget the clean ones, so that the next run reads its files from the disk.

    Raises:
        UnavailableError: that is not allowed here.
    """
    os.sync()
    try:
        file.write_text("1", encoding="ascii")
    except OSError as error:
        raise UnavailableError(f"{no_cold_page_cache(file) or file} ({error.strerror})") from error


def no_cold_page_cache(file: Path = DROP_CACHES) -> str | None:
    """Why the page cache cannot be dropped here, or ``None``."""
    if os.access(file, os.W_OK):
        return None
    return f"`page_cache: cold` has to write {file}, which needs root; use `page_cache: warm`"


def _run(member: Member, case: Path) -> Outcome:
    """One run in a fresh output folder, which is removed; whatever a case does, it is its outcome."""
    output = member.context.work / "output"
    shutil.rmtree(output, ignore_errors=True)
    try:
        return member.sandbox.run_case(member.bundle, case, output, member.limits)
    except UnavailableError:  # says nothing about the case
        raise
    except Exception as error:  # one failing case is a result and must not stop the others
        return Outcome(status_of(error), reason_of(error), 0.0)
    finally:
        shutil.rmtree(output, ignore_errors=True)
