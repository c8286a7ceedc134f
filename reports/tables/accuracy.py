"""Accuracy: from values per object to one value a case, a mean per modality, a macro and a micro average.

* **case value**: the case's own value where one is recorded (protocol ``cvpr24`` scores a whole case), else the mean
  over its objects.
* **macro average**: mean over the modalities' means, each modality weighing the same; **micro average**: mean over
  cases, each case weighing the same.
* A case that failed counts as one where nothing was found (DSC, NSD and box IoU 0, volume error −1, HD95 the diagonal
  of the case, or where that is not known the worst that any row has on it): leaving it out would reward failing on hard
  cases.  A case that was skipped, and a case where the metric is undefined, are left out and counted.
* Several training seeds: the average is made for each seed, then over seeds.  A seed whose job left no value is not in
  the mean; ``lost_seeds`` counts such seeds beside ``seeds``, which counts those in the mean.
* ``flag`` is the warning that the deployment of a row carries (`reports.deployments`).
* Every mean has a 95 % interval (`reports.tables.intervals`): cases are resampled, within their modality for the macro
  average.
* All counts of cases are of distinct cases, whatever the number of seeds: a case failed if it did under any seed, else
  it was skipped if it was under any, so that cases = ok + failed + skipped.
"""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from harness.schema import ACCURACY_METRICS, METRICS
from reports.frame import Run
from reports.tables.common import FAILURES, fingerprint, grouped, joined, modality_rank, none_if_missing, overall_status
from reports.tables.fidelity import flagged
from reports.tables.intervals import Intervals

ROW: tuple[str, ...] = ("variant", "deployment", "dataset", "protocol", "metric")
_CASE: tuple[str, ...] = (*ROW, "seed", "case")

CASE_COLUMNS: tuple[str, ...] = (*_CASE, "modality", "ndim", "note", "value", "objects", "status", "reason")
SUMMARY_COLUMNS: tuple[str, ...] = (
    *ROW, "unit", "direction", "macro", "macro_low", "macro_high", "micro", "micro_low", "micro_high", "modalities",
    "cases", "objects", "failed", "skipped", "undefined", "seeds", "lost_seeds", "status", "reason", "note", "case_set",
    "flag",
)  # fmt: skip
MODALITY_COLUMNS: tuple[str, ...] = (
    *ROW, "unit", "direction", "modality", "value", "low", "high", "cases", "objects", "failed", "skipped", "note",
    "flag",
)  # fmt: skip


def _records(run: Run) -> pd.DataFrame:
    frame = run.frame
    return frame[(frame["kind"] == "accuracy") & frame["metric"].isin(ACCURACY_METRICS)]


def case_values(run: Run) -> pd.DataFrame:
    """One row a case, metric, protocol and seed: `CASE_COLUMNS`; ``value`` is NaN where skipped or undefined."""
    frame = _records(run)
    frame = frame[frame["case"].notna()].copy()
    frame["value"] = _with_failures(frame)
    frame["modality"] = frame["modality"].fillna("unknown")
    # A missing deployment or protocol is a label of its own; groupby and merge need it as a value.
    filled = frame.fillna({"deployment": "", "protocol": "", "dataset": ""})
    whole = filled["object"].isna()
    first = {c: (c, "first") for c in ("modality", "ndim", "note", "status", "reason")}
    keys = list(_CASE)
    # Objects sorted by status so that `first` shows a failed object of the case before its good ones.
    objects = filled[~whole].sort_values("status", key=lambda s: s == "ok", kind="stable")
    per = objects.groupby(keys, sort=False).agg(value=("value", "mean"), objects=("object", "nunique"), **first)
    own = filled[whole].groupby(keys, sort=False).agg(value=("value", "first"), objects=("object", "count"), **first)
    own["objects"] = per["objects"].reindex(own.index).fillna(0).astype(int)
    both = pd.concat([own, per[~per.index.isin(own.index)]]).reset_index()
    both[["deployment", "protocol", "dataset"]] = both[["deployment", "protocol", "dataset"]].replace("", None)
    return both[list(CASE_COLUMNS)]


def _with_failures(frame: pd.DataFrame) -> pd.Series:
    """Values, with what a failed case counts as; see the module text."""
    failed = frame["status"].isin(FAILURES)
    values = frame["value"].mask(failed, frame["metric"].map(lambda m: METRICS[m].failed).astype(float))
    unbounded = failed & values.isna()
    if not unbounded.any():
        return values
    told = frame.loc[unbounded, "detail"].map(lambda d: json.loads(d).get("farthest") if isinstance(d, str) else None)
    values = values.fillna(told.astype(float))
    place = frame[["dataset", "protocol", "metric", "case"]].fillna("").agg("\n".join, axis=1)
    worst = place.map(values[~failed].groupby(place[~failed]).max())
    return values.mask(failed & values.isna(), worst)


def _aggregate(cases: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Mean, counts and remarks of every group of cases; indexed by ``keys``.

    A mean over seeds is the mean of the seeds' means; a case counts once, failed before skipped before undefined.
    """
    undefined = cases["value"].isna() & (cases["status"] == "ok")
    rank = undefined + 2 * (cases["status"] == "skipped") + 3 * cases["status"].isin(FAILURES)
    flags = cases.assign(rank=rank.astype(int))
    options: dict[str, Any] = {"sort": False, "dropna": False}
    seeds = flags.groupby([*keys, "seed"], **options)["value"].mean()
    groups = flags.groupby(keys, **options)
    once = flags.sort_values("objects", ascending=False, kind="stable").drop_duplicates([*keys, "case"])
    worst = flags.groupby([*keys, "case"], **options)["rank"].max()
    table = pd.DataFrame(
        {
            name: (worst == place).groupby(keys, **options).sum()
            for place, name in enumerate(("undefined", "skipped", "failed"), 1)
        }
    )
    table["value"] = seeds.groupby(keys, **options).mean()
    table["cases"] = groups["case"].nunique()
    table["objects"] = once.groupby(keys, **options)["objects"].sum().astype(int)
    table["note"] = groups["note"].agg(joined)
    return table


def _described(run: Run, table: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    table["unit"] = table["metric"].map(lambda m: METRICS[m].unit)
    table["direction"] = table["metric"].map(lambda m: METRICS[m].direction)
    return flagged(run, table)[list(columns)]


def accuracy_by_modality(run: Run, cases: pd.DataFrame | None = None) -> pd.DataFrame:
    """Mean per modality: `MODALITY_COLUMNS`, in the order of `harness.schema.MODALITIES`."""
    cases = case_values(run) if cases is None else cases
    found = _aggregate(cases, [*ROW, "modality"]).reset_index()
    spans = Intervals(cases)
    ends = [spans.of_modality(row) for row in found.to_dict("records")]  # type: ignore[arg-type]
    found["low"], found["high"] = [low for low, _ in ends], [high for _, high in ends]
    table = _described(run, found, MODALITY_COLUMNS)
    return table.sort_values("modality", key=lambda s: s.map(modality_rank), kind="stable", ignore_index=True)


def accuracy_summary(run: Run, cases: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row a variant, deployment, data set, protocol and metric: `SUMMARY_COLUMNS`.

    ``lost_seeds``: seeds whose job failed or was skipped; their ``reason`` is told with the others.  A row all of whose
    jobs left no cases has ``macro`` NaN, no cases, its status and its reason.
    """
    cases = case_values(run) if cases is None else cases
    rows: list[dict[str, Any]] = _summary(cases).to_dict("records") if len(cases) else []  # type: ignore[assignment]
    spans = Intervals(cases)
    rows = [{**row, **spans.of_summary(row)} for row in rows]
    seen = {tuple(none_if_missing(row[k]) for k in ROW): row for row in rows}
    jobs = _records(run)
    jobs = jobs[jobs["case"].isna() & (jobs["status"] != "ok")]
    for key, part in grouped(jobs, ROW):
        row = seen.get(tuple(key[k] for k in ROW))
        if row is None:
            rows.append(_row_without_cases(key, part))
        else:
            row["reason"] = joined([row["reason"], *part["reason"]])
            row["lost_seeds"] = part["seed"].nunique()
    table = _described(run, pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS)), SUMMARY_COLUMNS)
    order = {label: i for i, label in enumerate(run.variant_order())}
    return table.sort_values("variant", key=lambda s: s.map(order), kind="stable", ignore_index=True)


def _summary(cases: pd.DataFrame) -> pd.DataFrame:
    keys = list(ROW)
    options: dict[str, Any] = {"sort": False, "dropna": False}
    modal = cases.groupby([*keys, "seed", "modality"], **options)["value"].mean()
    groups = cases.groupby(keys, **options)
    table = _aggregate(cases, keys).rename(columns={"value": "micro"})
    table["macro"] = modal.groupby([*keys, "seed"], **options).mean().groupby(keys, **options).mean()
    table["modalities"] = cases[cases["value"].notna()].groupby(keys, **options)["modality"].nunique()
    table["modalities"] = table["modalities"].fillna(0).astype(int)
    table["seeds"] = groups["seed"].nunique()
    table["lost_seeds"] = 0
    table["status"] = groups["status"].agg(overall_status)
    table["reason"] = groups["reason"].agg(joined)
    tried = cases[cases["status"] != "skipped"].groupby(keys, **options)["case"]
    table["case_set"] = tried.agg(fingerprint)
    return table.reset_index()


def _row_without_cases(key: dict[str, object], part: pd.DataFrame) -> dict[str, object]:
    means = [f"{mean}{end}" for mean in ("macro", "micro") for end in ("", "_low", "_high")]
    return {
        **key,
        **dict.fromkeys(means, float("nan")),
        **dict.fromkeys(("modalities", "cases", "objects", "undefined"), 0),
        "failed": 0,
        "skipped": 0,
        "seeds": 0,
        "lost_seeds": part["seed"].nunique(),
        "status": overall_status(part["status"]),
        "reason": joined(part["reason"]),
        "note": joined(part["note"]),
        "case_set": "",
    }
