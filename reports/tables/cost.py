"""Cost: parameters and FLOPs, time and memory of cold runs.

A runtime case is the median over its repeats; a sandbox is the median over its cases.  A case of which a repeat failed
has no time and no memory: what is left of it would be a choice.  Raw repeats stay in the records.
"""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any

import pandas as pd

from harness.schema import PARTS, PHASES
from harness.stats import median_interval
from reports.frame import Run
from reports.tables.common import FAILURES, fingerprint, grouped, joined, of_metric, overall_status, unique
from reports.tables.fidelity import flagged

RUNTIME_ROW: tuple[str, ...] = ("variant", "deployment", "dataset", "sandbox", "protocol")
RUNTIME_CASE_COLUMNS: tuple[str, ...] = (
    *RUNTIME_ROW, "seed", "case", "modality", "ndim", "wall", "wall_min", "wall_max", "wall_low", "wall_high",
    "repeats", "sessions", "disturbed", "inside", "outside", "page_cache", "peak_anonymous", "peak_memory", "encodes",
    "encoded_again", "status", "reason", "flag",
)  # fmt: skip
RUNTIME_COLUMNS: tuple[str, ...] = (
    *RUNTIME_ROW, "unit", "direction", "wall", "cases", "ok", "failed", "skipped", "repeats", "runs", "disturbed",
    "sessions", "inside", "outside", "page_cache", "peak_anonymous", "peak_memory", "memory_limit", "cpu_limit",
    "status", "reason", "case_set", "flag",
)  # fmt: skip
COMPLEXITY_COLUMNS: tuple[str, ...] = (
    "variant", "deployment", "params", *(f"params_{p}" for p in PARTS), "flops", *(f"flops_{p}" for p in PARTS),
    "params_status", "flops_status", "uncounted", "operators", "reason", "params_unused", "unused_modules",
    "flops_with_prompts", "prompts_convention", "flops_cross_check", "cross_check_unexplained", "cross_check_rounding",
    "activation_peak",
)  # fmt: skip


def complexity(run: Run) -> pd.DataFrame:
    """One row a variant and deployment: `COMPLEXITY_COLUMNS`; counts of the whole and of each part.

    ``uncounted`` is the number of operator calls the counter does not know, ``operators`` what they are;
    ``params_status`` and ``flops_status`` say why there is no count.  ``params_unused`` parameters are never executed,
    ``unused_modules`` says where they are; ``flops_with_prompts`` counts by ``prompts_convention`` what a variant is
    given beside the box; ``flops_cross_check`` is a second counter's figure, ``cross_check_unexplained`` what is left
    of the difference without normalisation and ``cross_check_rounding`` (fvcore rounds some einsums);
    ``activation_peak`` is in bytes.
    """
    frame = run.frame[(run.frame["kind"] == "complexity") & ~run.frame["metric"].str.startswith("published_")]
    rows = []
    for key, part in grouped(frame, ["variant", "deployment"]):
        row: dict[str, object] = {**key}
        for metric in ("params", "flops"):
            values = part[(part["metric"] == metric) & part["value"].notna()]
            by_part = values.groupby("phase")["value"].first().to_dict()
            whole = values.loc[values["phase"].isna(), "value"]
            row |= {f"{metric}_{p}": by_part.get(p, float("nan")) for p in PARTS}
            # The whole is what was counted as a whole; a sum of parts would hide what lies outside them.
            row[metric] = float(whole.iloc[0]) if len(whole) else float("nan")
            bad = part.loc[(part["metric"] == metric) & (part["status"] != "ok"), "status"]
            row[f"{metric}_status"] = "ok" if len(whole) or not len(bad) else str(bad.iloc[0])
        uncounted = part[(part["metric"] == "uncounted_operators") & part["value"].notna() & part["phase"].isna()]
        row["uncounted"] = float(uncounted["value"].iloc[0]) if len(uncounted) else float("nan")
        row["operators"] = "; ".join(_operators(text) for text in unique(uncounted["detail"]))
        row["reason"] = joined(part["reason"])
        rows.append(row | _further_counts(part))
    return pd.DataFrame(rows, columns=list(COMPLEXITY_COLUMNS))


def _further_counts(part: pd.DataFrame) -> dict[str, object]:
    """Values of the whole model of the metrics beside parameters and multiply-adds, and what their details say."""
    whole = part[part["phase"].isna() & part["value"].notna()].drop_duplicates("metric").set_index("metric")
    names = ("params_unused", "flops_with_prompts", "flops_cross_check", "activation_peak")
    row: dict[str, object] = {name: whole["value"].get(name, float("nan")) for name in names}
    details = {name: _json(whole["detail"].get(name)) for name in names}
    never = details["params_unused"].get("never", {})
    row["unused_modules"] = ", ".join(f"{module} {count:,}" for module, count in never.items())
    row["prompts_convention"] = details["flops_with_prompts"].get("convention", "")
    row["cross_check_unexplained"] = details["flops_cross_check"].get("unexplained", float("nan"))
    row["cross_check_rounding"] = details["flops_cross_check"].get("einsum_rounding", float("nan"))
    return row


def _json(detail: object) -> dict[str, Any]:
    """The detail of a record where it is a JSON object, else nothing."""
    try:
        data = json.loads(detail) if isinstance(detail, str) else None
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _operators(detail: str) -> str:
    """Names and counts from the detail of an ``uncounted_operators`` record; its text if it is not such JSON."""
    try:
        data = json.loads(detail)
    except ValueError:
        return detail
    if isinstance(data, dict) and isinstance(data.get("operators"), dict | list):
        data = data["operators"]
    if isinstance(data, dict):
        return ", ".join(f"{name} × {count}" for name, count in data.items())
    return ", ".join(str(item) for item in data) if isinstance(data, list) else str(data)


def runtime_cases(run: Run) -> pd.DataFrame:
    """One row a case and sandbox: `RUNTIME_CASE_COLUMNS`; times in seconds, memory in bytes.

    A case is ok if every repeat of it was; else it has no time and no memory, and ``repeats`` says how many were ok.
    ``wall_low`` and ``wall_high`` are the 95 % interval of the median (missing under six repeats); ``sessions`` names
    the sessions its runs were made in, and ``disturbed`` is how many of them met a disturbed machine.  ``inside`` are
    the seconds of all its runs, ``outside`` those that the harness spent beside them; ``page_cache``: warm or cold.
    A job without cases has one row with ``case`` missing, its status and its reason.
    """
    frame = run.frame[run.frame["kind"] == "runtime"]
    # Limits may be recorded once a job; they are no case, but a failure of the whole job is a row.
    frame = frame[frame["case"].notna() | (frame["status"] != "ok")]
    options: dict[str, Any] = {"sort": False, "dropna": False}
    keys = [*RUNTIME_ROW, "seed", "case"]
    frame = frame.assign(bad=frame["status"].where(frame["status"] != "ok"))
    groups = frame.groupby(keys, **options)
    table = groups.agg(modality=("modality", "first"), ndim=("ndim", "first"), status=("bad", "first"))
    table["reason"] = groups["reason"].agg(joined)
    table["status"] = table["status"].fillna("ok")
    ok = frame[(frame["status"] == "ok") & frame["value"].notna()]
    for metric, columns in _CASE_STATISTICS.items():
        values = ok[ok["metric"] == metric].groupby(keys, **options)["value"]
        for column, statistic in columns.items():
            table[column] = values.agg(statistic)
    walls = ok[ok["metric"] == "wall"]
    for end, column in enumerate(("wall_low", "wall_high")):
        table[column] = walls.groupby(keys, **options)["value"].agg(partial(_end_of_interval, end=end))
    told = [_json(detail) for detail in walls["detail"]]
    walls = walls.assign(
        session=[str(t.get("session", "")) for t in told], disturbed=[bool(t.get("disturbed")) for t in told]
    )
    walls = walls.assign(page_cache=[str(t.get("page_cache", "")) for t in told])
    for column, source in (("sessions", "session"), ("page_cache", "page_cache")):
        table[column] = walls.groupby(keys, **options)[source].agg(joined)
        table[column] = table[column].astype(object).where(table[column].notna(), "")
    table["disturbed"] = walls.groupby(keys, **options)["disturbed"].sum()
    spent = pd.Series([float(t.get("outside_s") or 0.0) for t in told], index=walls.index, dtype=float)
    table["outside"] = walls.assign(outside=spent).groupby(keys, **options)["outside"].sum()
    table["inside"] = walls.groupby(keys, **options)["value"].sum()
    for column in ("repeats", "disturbed"):
        table[column] = table[column].fillna(0).astype(int)
    table.loc[table["status"] != "ok", _OF_GOOD_CASES] = float("nan")
    return flagged(run, table.reset_index())[list(RUNTIME_CASE_COLUMNS)]


def _end_of_interval(walls: pd.Series, end: int) -> float:
    """Lower (0) or upper (1) end of the 95 % interval of the median; NaN if there are too few values."""
    interval = median_interval(list(walls))
    return math.nan if interval is None else interval[end]


_CASE_STATISTICS: dict[str, dict[str, str]] = {
    "wall": {"wall": "median", "wall_min": "min", "wall_max": "max", "repeats": "count"},
    "peak_anonymous": {"peak_anonymous": "max"},
    "peak_memory": {"peak_memory": "max"},
    "encodes": {"encodes": "median"},
    "encoded_again": {"encoded_again": "median"},
}
_OF_GOOD_CASES = [
    *("wall", "wall_min", "wall_max", "wall_low", "wall_high"),
    *("peak_anonymous", "peak_memory", "encodes", "encoded_again"),
]


def runtime_summary(run: Run, cases: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row a variant, deployment, data set, sandbox and protocol: `RUNTIME_COLUMNS`.

    ``wall``: median over the ok cases of the median over repeats; ``peak_anonymous``: the largest of the ok cases
    (missing if it is of one of them), and ``peak_memory`` with the page cache; ``disturbed`` of ``runs`` met a
    disturbed machine; ``sessions``: names; the limits as read back (all different values).  ``cases``: distinct;
    ``ok``, ``failed`` and ``skipped``: distinct cases too (a case failed if it did under any seed), and a job without
    cases counts once.
    """
    cases = runtime_cases(run) if cases is None else cases
    frame = run.frame[run.frame["kind"] == "runtime"]
    limits = {tuple(k.values()): part for k, part in grouped(frame, RUNTIME_ROW)}
    rows = []
    for key, part in grouped(cases, RUNTIME_ROW):
        measured = part[part["case"].notna()]
        state = _state_of_cases(part)
        good = part[part["status"] == "ok"]
        row = {
            **key,
            **of_metric("wall"),
            "wall": good["wall"].median(),
            "cases": measured["case"].nunique(),
            **{name: int((state == name).sum()) for name in ("ok", "failed", "skipped")},
            "repeats": int(good["repeats"].min()) if len(good) else 0,
            **{name: float(good[name].sum()) for name in ("inside", "outside")},
            "runs": int(good["repeats"].sum()),
            "disturbed": int(good["disturbed"].sum()),
            "sessions": joined(name for names in good["sessions"] for name in str(names).split("; ")),
            "peak_anonymous": good["peak_anonymous"].max(skipna=False),  # of all cases, or of none
            "page_cache": joined(good["page_cache"]),
            "peak_memory": good["peak_memory"].max(),
            "status": overall_status(part["status"]),
            "reason": joined(part["reason"]),
            "case_set": fingerprint(measured.loc[measured["status"] == "ok", "case"]),
            "flag": joined(part["flag"]),
        }
        raw = limits[tuple(key.values())]
        for name in ("memory_limit", "cpu_limit"):
            row[name] = sorted(raw.loc[raw["metric"] == name, "value"].dropna().unique())
        rows.append(row)
    return pd.DataFrame(rows, columns=list(RUNTIME_COLUMNS))


def _state_of_cases(part: pd.DataFrame) -> pd.Series:
    """``ok``, ``failed`` or ``skipped`` for every distinct case; the worst of its seeds."""
    rank = part["status"].map(lambda s: 2 if s in FAILURES else int(s == "skipped"))
    return rank.groupby(part["case"], dropna=False).max().map({0: "ok", 1: "skipped", 2: "failed"})


def phases(run: Run) -> pd.DataFrame:
    """Mean seconds of every phase, over the repeats of the cases that were ok: the means of phases add up.

    Columns: labels of a runtime row, ``phase, seconds, runs, flag``; phases in the order of `harness.schema.PHASES`.
    """
    frame = run.frame[run.frame["kind"] == "runtime"]
    keys = [*RUNTIME_ROW, "seed", "case"]
    good = (frame["status"] == "ok").groupby([frame[k] for k in keys], dropna=False).transform("all")
    frame = frame[good & (frame["metric"] == "phase")]
    rows = []
    for key, part in grouped(frame, RUNTIME_ROW):
        runs = len(part.drop_duplicates(["seed", "case", "repeat"]))
        totals = part.groupby("phase")["value"].sum()
        rows += [
            {**key, "phase": name, "seconds": totals[name] / runs, "runs": runs} for name in PHASES if name in totals
        ]
    return flagged(run, pd.DataFrame(rows, columns=[*RUNTIME_ROW, "phase", "seconds", "runs"]))
