"""Runtime jobs: every case of a subset, cold, as often as asked, in one sandbox; jobs of one session interleaved.

A run is a cold process.  The page cache is warm unless the suite says otherwise: an uncounted run of its first case
opens every job of a session.  A unit of work is one run, ``<repeat>/<case>``.  Jobs that are measured together take
turns on every case, in a new random order each time, so that a drift of the machine meets all of them alike; the
session and the place of a run in it are in its record.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from harness.config import RuntimeSettings
from harness.errors import BenchError, UnavailableError
from harness.failure import reason_of
from harness.inference.weights import why_unsupported
from harness.measure.runtime.bundle import make_bundle
from harness.measure.runtime.sandbox import Limits, Outcome, open_sandbox
from harness.measure.runtime.session import Member, Session, no_cold_page_cache, unit_key
from harness.schema import PHASES, Record

if TYPE_CHECKING:
    from harness.data import CaseInfo
    from harness.jobs import JobContext, JobSpec

FAILING_METRICS = ("wall", "peak_memory", "peak_anonymous")
"""The metrics that a run which failed still has a record of, with its status and reason."""


def precheck(spec: JobSpec) -> str | None:
    """Why the job's sandbox cannot be used on this machine now, with the command that brings it, or ``None``.

    Cheap; to be asked before the job is started.  What it says is true now and not for good: a job that was skipped is
    to be tried again by the next run.
    """
    settings = RuntimeSettings.model_validate(spec.settings)
    missing = no_cold_page_cache() if settings.page_cache == "cold" else None
    return missing or open_sandbox(settings.sandbox, settings.protocol).unavailable()


def run(spec: JobSpec, context: JobContext) -> None:
    """Measure all cases of one job; see the module text.

    Raises:
        UnavailableError: the sandbox cannot be used on this machine now, or no longer; finished
            runs stay in the journal.
        BenchError: the data set, the variant or its weights cannot be had.
    """
    problem = run_together([(spec, context)], lambda _: None)[0]
    if problem is not None:
        raise problem


def run_together(
    jobs: Sequence[tuple[JobSpec, JobContext]], turn: Callable[[int], None]
) -> list[BenchError | MemoryError | None]:
    """Measure several jobs in one session, interleaved.

    Args:
        jobs: specifications with their contexts.
        turn: told the index of the job whose turn it is.

    Returns:
        For each job what kept it from being finished, or ``None``.  Whatever a case does is a record instead.
    """
    problems: list[BenchError | MemoryError | None] = [None] * len(jobs)
    members: list[Member] = []
    try:
        for index, (spec, context) in enumerate(jobs):
            turn(index)
            try:
                member = _member(index, spec, context)
            except (BenchError, MemoryError) as error:
                problems[index] = error
            except Exception as error:  # weights that do not fit, a full disk: the other jobs are measured all the same
                traceback.print_exc()
                problems[index] = BenchError(reason_of(error))
            else:
                members += [member] if member else []
        for member, problem in Session(members, turn).measure():
            problems[member.index] = problem
    finally:
        for member in members:
            member.sandbox.cleanup()
    return problems


def _member(index: int, spec: JobSpec, context: JobContext) -> Member | None:
    """A job made ready to be measured, or ``None`` if it has nothing (more) to measure."""
    settings = RuntimeSettings.model_validate(spec.settings)
    cases = _cases(spec, settings, context)
    if settings.precision is None and all(
        context.done(unit_key(repeat, info.name)) for repeat in range(settings.repeats) for info in cases
    ):
        return None
    sandbox = open_sandbox(settings.sandbox, settings.protocol)
    limits = Limits(int(settings.memory), settings.cpus, settings.timeout)
    skipped = sandbox.unavailable()
    if skipped:
        raise UnavailableError(skipped)
    refused = sandbox.refuses(limits) or why_unsupported(spec, context)
    if refused:
        for repeat in range(settings.repeats):
            for info in cases:
                key = unit_key(repeat, info.name)
                if not context.done(key):
                    context.append(key, records(Outcome("unsupported", refused, 0.0), repeat, info, settings))
        return None
    bundle = make_bundle(spec, context)
    try:
        sandbox.prepare(bundle, lambda message: context.progress(0.0, message))
    except BenchError as error:
        raise UnavailableError(str(error)) from error
    data = spec.inputs.get("dataset") or (spec.dataset.model_dump_json() if spec.dataset else "")
    named = {info.name: info for info in cases}
    return Member(index, data, context, settings, named, sandbox, limits, bundle, records)


def records(
    outcome: Outcome, repeat: int, info: CaseInfo, settings: RuntimeSettings, extra: dict[str, Any] | None = None
) -> list[Record]:
    """The rows of one run.  The row of ``wall`` carries the run's details as JSON."""
    common: dict[str, Any] = {
        "case": info.name,
        "modality": info.modality,
        "ndim": info.ndim,
        "repeat": repeat,
        "protocol": settings.protocol,
    }
    detail = json.dumps({"limits_read": outcome.limits_read, **outcome.detail, **(extra or {})}, sort_keys=True)
    if outcome.status != "ok":
        failed = {**common, "status": outcome.status, "reason": outcome.reason}
        return [Record(metric, detail=detail if metric == "wall" else None, **failed) for metric in FAILING_METRICS]

    def source(peak: str) -> str:
        return json.dumps({"source": outcome.detail.get(peak)})

    rows = [
        Record("wall", outcome.wall_s, detail=detail, **common),
        Record("peak_memory", _number(outcome.peak_memory_bytes), detail=source("peak_memory"), **common),
        Record("peak_anonymous", _number(outcome.peak_anonymous_bytes), detail=source("peak_anonymous"), **common),
        Record("memory_limit", _number(outcome.limits_read.get("memory_bytes")), **common),
        Record("cpu_limit", _number(outcome.limits_read.get("cpus")), **common),
        Record("encodes", _number(outcome.detail.get("encodes")), **common),
        Record("encoded_again", _number(outcome.detail.get("encoded_again")), **common),
    ]
    rows += [Record("phase", outcome.phases[name], phase=name, **common) for name in PHASES if name in outcome.phases]
    return rows


def _cases(spec: JobSpec, settings: RuntimeSettings, context: JobContext) -> list[CaseInfo]:
    from harness.data import open_dataset

    if spec.dataset is None:
        raise BenchError("the runtime job has no data set; name one under `datasets` of the suite")
    expected = spec.inputs.get("dataset")
    return open_dataset(spec.dataset, context.cache, context.progress, expected=expected).select(settings.subset)


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)
