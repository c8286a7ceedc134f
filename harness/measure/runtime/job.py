"""The runtime job: every case of a subset, cold, as often as asked, in one sandbox.

Before the first measured run of a job one uncounted run of its first case warms the page cache: a measured run is a
cold process on a warm page cache.  A unit of work is one run, ``<repeat>/<case>``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.config import RuntimeSettings
from harness.errors import BenchError, UnavailableError
from harness.failure import reason_of, status_of
from harness.measure.runtime.bundle import Bundle, make_bundle
from harness.measure.runtime.sandbox import Limits, Outcome, Sandbox, open_sandbox
from harness.schema import PHASES, Record

if TYPE_CHECKING:
    from pathlib import Path

    from harness.data import CaseInfo
    from harness.jobs import JobContext, JobSpec

FAILING_METRICS = ("wall", "peak_memory")
"""The metrics that a run which failed still has a record of, with its status and reason."""


def precheck(spec: JobSpec) -> str | None:
    """Why the job's sandbox cannot be used on this machine now, with the command that brings it, or ``None``.

    Cheap; to be asked before the job is started.  What it says is true now and not for good: a job that was skipped is
    to be tried again by the next run.
    """
    settings = RuntimeSettings.model_validate(spec.settings)
    return open_sandbox(settings.sandbox, settings.protocol).unavailable()


def run(spec: JobSpec, context: JobContext) -> None:
    """Measure all cases; see the module text.

    Raises:
        UnavailableError: the sandbox cannot be used on this machine now, or no longer; finished
            runs stay in the journal.
        BenchError: the data set, the variant or its weights cannot be had.
    """
    settings = RuntimeSettings.model_validate(spec.settings)
    cases = _cases(spec, settings, context)
    units = [(repeat, info) for repeat in range(settings.repeats) for info in cases]
    todo = [unit for unit in units if not context.done(_key(*unit))]
    if not todo:
        return
    sandbox = open_sandbox(settings.sandbox, settings.protocol)
    limits = Limits(int(settings.memory), settings.cpus, settings.timeout)
    skipped = sandbox.unavailable()
    if skipped:
        raise UnavailableError(skipped)
    refused = sandbox.refuses(limits)
    if refused:
        for repeat, info in todo:
            unsupported = Outcome("unsupported", refused, 0.0)
            context.append(_key(repeat, info), records(unsupported, repeat, info, settings))
        return
    bundle = make_bundle(spec, context)
    try:
        sandbox.prepare(bundle, lambda message: context.progress(0.0, message))
    except BenchError as error:
        raise UnavailableError(str(error)) from error
    try:
        _measure(todo, len(units), sandbox, bundle, limits, settings, context)
    finally:
        sandbox.cleanup()


def _measure(
    todo: Sequence[tuple[int, CaseInfo]],
    total: int,
    sandbox: Sandbox,
    bundle: Bundle,
    limits: Limits,
    settings: RuntimeSettings,
    context: JobContext,
) -> None:
    context.progress(1 - len(todo) / total, "warming the page cache")
    _run(sandbox, bundle, todo[0][1].path, context, limits)
    for index, (repeat, info) in enumerate(todo):
        context.progress(1 - (len(todo) - index) / total, f"{info.name}, run {repeat + 1} of {settings.repeats}")
        load = os.getloadavg() if hasattr(os, "getloadavg") else None
        outcome = _run(sandbox, bundle, info.path, context, limits)
        context.append(_key(repeat, info), records(outcome, repeat, info, settings, {"load_average": load}))
    context.progress(1.0, "done")


def _run(sandbox: Sandbox, bundle: Bundle, case: Path, context: JobContext, limits: Limits) -> Outcome:
    """One run in a fresh output folder, which is removed; whatever a case does, it is its outcome."""
    output = context.work / "output"
    shutil.rmtree(output, ignore_errors=True)
    try:
        return sandbox.run_case(bundle, case, output, limits)
    except UnavailableError:  # says nothing about the case
        raise
    except Exception as error:  # one failing case is a result and must not stop the others
        return Outcome(status_of(error), reason_of(error), 0.0)
    finally:
        shutil.rmtree(output, ignore_errors=True)


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
    source = json.dumps({"source": outcome.detail.get("peak_memory")})
    rows = [
        Record("wall", outcome.wall_s, detail=detail, **common),
        Record("peak_memory", _number(outcome.peak_memory_bytes), detail=source, **common),
        Record("memory_limit", _number(outcome.limits_read.get("memory_bytes")), **common),
        Record("cpu_limit", _number(outcome.limits_read.get("cpus")), **common),
        Record("encodes", _number(outcome.detail.get("encodes")), **common),
    ]
    rows += [Record("phase", outcome.phases[name], phase=name, **common) for name in PHASES if name in outcome.phases]
    return rows


def _cases(spec: JobSpec, settings: RuntimeSettings, context: JobContext) -> list[CaseInfo]:
    from harness.data import open_dataset

    if spec.dataset is None:
        raise BenchError("the runtime job has no data set; name one under `datasets` of the suite")
    expected = spec.inputs.get("dataset")
    return open_dataset(spec.dataset, context.cache, context.progress, expected=expected).select(settings.subset)


def _key(repeat: int, info: CaseInfo) -> str:
    return f"{repeat}/{info.name}"


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)
