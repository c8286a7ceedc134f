"""A run as one tidy table: the sealed records of its jobs, joined with the labels the suite gives them.

Every job of the run has at least one row.  A job without sealed records (skipped, failed, not reached) gets rows that
carry its status and reason, so that a failing cell never vanishes from a table; numbers whose provenance is incomplete
are replaced by rows that say what is missing.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import BenchError
from harness.schema import METRICS, METRICS_OF, Status
from harness.store import RECORD_COLUMNS, FolderStore, records_key
from reports.runfile import JobInfo, RunFile, read_run
from reports.training import Training, training_of_jobs

LABELS: tuple[str, ...] = ("variant", "deployment", "dataset", "sandbox", "seed", "note")
IMAGE_FAMILY = "image"
"""Family of a row that is somebody else's image: its name is the image's own and says nothing of what is in it."""

# What a job would have measured: the metrics of the rows that stand for it when it left no records.
EXPECTED_METRICS: Mapping[str, tuple[str, ...]] = {
    "train": ("train_steps",),
    "deploy": ("mask_agreement", "logit_difference", "speed_ratio", "file_size"),
    "accuracy": ("dsc", "nsd"),
    "complexity": ("params", "flops"),
    "latency": ("latency",),
    "runtime": ("wall", "peak_memory", "peak_anonymous"),
}
_READ_BACK = frozenset({"memory_limit", "cpu_limit"})
NO_MACHINE = "not shown: the run does not state the machine that measured the times"
# States of a job as the status of a cell; a job that was done and has no records lost them, which is a failure.
_STATUS_OF_STATE: Mapping[str, Status] = {
    "skipped": "skipped",
    "pending": "skipped",
    "failed": "crashed",
    "done": "crashed",
    "cached": "crashed",
}


@dataclass(frozen=True)
class Run:
    """A loaded run.

    Attributes:
        folder: the run folder.
        info: its `run.json`.
        frame: one row a record: ``job, kind``, `LABELS`, ``whole_job`` (the row stands for a job that left no records)
            and the columns of `harness.schema.Record`.
        training: digest of a job → training of the weights it used (for a training job: of those it made).
        withheld: sentences, one for each kind of number not shown for want of provenance.
        only: what is left of the run, in words, see `reports.restrict`; empty: all of it.
    """

    folder: Path
    info: RunFile
    frame: pd.DataFrame
    training: Mapping[str, Training]
    withheld: tuple[str, ...] = field(default=())
    only: str = ""

    def variant_order(self) -> list[str]:
        """Variant labels in the order of the suite."""
        return list(self.info.variants)


def load_run(folder: Path, store_root: Path) -> Run:
    """Read a run and the sealed records of its jobs.

    Raises:
        BenchError: `run.json` is missing or wrong, or sealed records cannot be read.
    """
    info = read_run(folder)
    store = FolderStore(store_root)
    tables: dict[str, pa.Table] = {}
    for job in info.jobs:
        data = store.get(records_key(job.digest))
        if data is not None and job.digest not in tables:
            tables[job.digest] = _read_records(data, store.path(records_key(job.digest)))
    training = training_of_jobs(info, tables)
    impossible = _impossible(info, tables)
    withheld: dict[str, None] = {}
    parts: list[pa.Table] = []
    labels: list[tuple[object, ...]] = []
    for job in info.jobs:
        gap = _provenance_gap(info, job)
        table = tables.get(job.digest)
        if table is not None and job.kind == "deploy" and info.provenance.machine is None:
            table, withheld[NO_MACHINE] = _without_times(table), None
        if gap:
            withheld[gap] = None
        why_not = impossible.get(job.digest)
        if gap or why_not or table is None or not table.num_rows:
            rows, whole = _stand_in(job, gap, why_not), True
        else:
            rows, whole = table, False
        parts.append(rows)
        label = (job.digest, job.kind, job.variant, job.deployment, job.dataset, job.sandbox, job.seed)
        labels += [(*label, training[job.digest].note, whole)] * rows.num_rows
    return Run(folder, info, _frame(parts, labels), training, tuple(withheld))


def _frame(parts: list[pa.Table], labels: list[tuple[object, ...]]) -> pd.DataFrame:
    columns = ["job", "kind", *LABELS, "whole_job"]
    left = pd.DataFrame(labels, columns=columns)
    table = pa.concat_tables(parts) if parts else _schema().empty_table()
    records: pd.DataFrame = table.to_pandas()
    for name in ("object", "ndim", "repeat"):
        records[name] = records[name].astype("Int64")
    records["value"] = records["value"].astype("float64")
    return pd.concat([left, records], axis=1)


def _schema() -> pa.Schema:
    types: dict[str, Any] = {name: pa.string() for name in RECORD_COLUMNS}
    types |= {"value": pa.float64(), "object": pa.int64(), "ndim": pa.int64(), "repeat": pa.int64()}
    return pa.schema([(name, types[name]) for name in RECORD_COLUMNS])


def _read_records(data: bytes, path: Path) -> pa.Table:
    try:
        table = pq.read_table(io.BytesIO(data), columns=list(RECORD_COLUMNS), use_threads=False)
        return table.cast(_schema())
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise BenchError(
            f"{path} is not a readable file of sealed records ({error}): remove it and run the suite again"
        ) from None


def _impossible(info: RunFile, tables: Mapping[str, pa.Table]) -> dict[str, str]:
    """Digest of every measurement that could not be made at all → why.

    Such a job is told once, as ``unsupported``: a deployment that does not apply to a variant is neither a failed case
    nor a skipped one.  A job may say so in its own records, case by case, or have been left out because the deployment
    it needs says so.
    """
    said = {job.digest: _unsupported(tables.get(job.digest)) for job in info.jobs}
    deploys = {job.digest for job in info.jobs if job.kind == "deploy"}
    found: dict[str, str] = {}
    for job in info.jobs:
        if job.kind in ("accuracy", "latency", "runtime"):
            measured = job.digest in tables and tables[job.digest].num_rows > 0
            needed = () if measured else (said[digest] for digest in job.needs if digest in deploys)
            reason = next((reason for reason in (said[job.digest], *needed) if reason), None)
            if reason:
                found[job.digest] = reason
    return found


def _unsupported(table: pa.Table | None) -> str | None:
    """The reason, if nothing was possible and nothing else went wrong."""
    rows = [] if table is None else table.select(["metric", "status", "reason"]).to_pylist()
    # The limits of a sandbox are read back whatever happens to the cases.
    judged = [row for row in rows if row["metric"] not in _READ_BACK or row["status"] != "ok"] or rows
    if not judged or any(row["status"] != "unsupported" for row in judged):
        return None
    return str(judged[0]["reason"])


def _without_times(table: pa.Table) -> pa.Table:
    """Records of a deployment without its times, which mean nothing where the machine is not known."""
    rows = table.to_pylist()
    for row in rows:
        if row["metric"] == "speed_ratio" and row["value"] is not None:
            row |= {"value": None, "status": "skipped", "reason": NO_MACHINE, "detail": None}
    return pa.Table.from_pylist(rows, schema=_schema())


def _stand_in(job: JobInfo, gap: str | None, impossible: str | None = None) -> pa.Table:
    """Rows for a job that has no records to show; ``impossible``: why its deployment does not allow it."""
    status: Status = "skipped" if gap else "unsupported" if impossible else _STATUS_OF_STATE[job.state]
    reason = gap or impossible or job.reason or _missing_reason(job)
    protocols: Iterable[str | None] = job.settings.get("protocols") or [job.settings.get("protocol")]
    rows = [
        {
            "metric": metric,
            "unit": METRICS[metric].unit,
            "direction": METRICS[metric].direction,
            "protocol": protocol,
            "status": status,
            "reason": reason,
        }
        for protocol in (protocols if job.kind in ("accuracy", "runtime") else [None])
        for metric in _expected(job, protocol)
    ]
    return pa.Table.from_pylist(rows, schema=_schema())


def _expected(job: JobInfo, protocol: str | None) -> Sequence[str]:
    """The metrics a job would have measured; of accuracy those the suite asked for, as far as the protocol has them."""
    asked = job.settings.get("metrics") if job.kind == "accuracy" else None
    known = METRICS_OF["cvpr24" if protocol == "cvpr24" else "strict"]
    return [metric for metric in asked if metric in known] if asked else EXPECTED_METRICS[job.kind]


def _missing_reason(job: JobInfo) -> str:
    if job.state == "pending":
        return "the run has not reached this job"
    if job.state in ("done", "cached"):
        return "the job is done and its records are missing from the store"
    return f"the job is {job.state} and the run gives no reason"


def _provenance_gap(info: RunFile, job: JobInfo) -> str | None:
    """Why the numbers of a job are not shown, or ``None`` if their provenance is complete."""
    provenance = info.provenance
    if not provenance.versions:
        return "not shown: the run does not state the versions of its libraries"
    if job.dataset is not None and job.kind != "train":
        known = provenance.datasets.get(job.dataset)
        if known is None or not known.digest:
            return f"not shown: the run does not state the digest of the data set {job.dataset!r}"
    if job.kind in ("latency", "runtime") and provenance.machine is None:
        return NO_MACHINE
    return None
