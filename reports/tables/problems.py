"""Every cell that is not ok, with its reason."""

from __future__ import annotations

import pandas as pd

from reports.frame import Run
from reports.runfile import JobInfo
from reports.tables.common import grouped, joined, unique
from reports.tables.fidelity import flagged

PROBLEM_COLUMNS: tuple[str, ...] = (
    "kind", "variant", "deployment", "dataset", "sandbox", "protocol", "seed", "status", "reason", "metrics",
    "cases", "names", "flag",
)  # fmt: skip


def problems(run: Run) -> pd.DataFrame:
    """Every cell that is not ok: one row a job, status and reason.

    Columns: `PROBLEM_COLUMNS`; ``kind`` of a training says its stage; ``metrics`` and ``names`` (of cases) are lists,
    ``cases`` is the number of names (0: the whole job), ``flag`` is the warning of the row's deployment.
    """
    bad = run.frame[run.frame["status"] != "ok"]
    words = {(job.digest, job.variant): _kind(job) for job in run.info.jobs}
    bad = bad.assign(kind=[words[key] for key in zip(bad["job"], bad["variant"], strict=True)])
    keys = ["kind", "variant", "deployment", "dataset", "sandbox", "seed", "status", "reason"]
    rows = []
    for key, part in grouped(bad, keys):
        names = unique(part["case"])
        more = {"protocol": joined(part["protocol"]), "metrics": unique(part["metric"])}
        rows.append({**key, **more, "cases": len(names), "names": names})
    return flagged(run, pd.DataFrame(rows, columns=list(PROBLEM_COLUMNS)))


def _kind(job: JobInfo) -> str:
    return f"{job.kind}, {job.stage}" if job.stage and job.stage != "train" else job.kind
