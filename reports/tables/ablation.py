"""Ablations: each row against its base, on what both measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from reports.frame import Run
from reports.runfile import VariantInfo
from reports.tables.accuracy import ROW, case_values
from reports.tables.common import grouped, joined, of_metric
from reports.tables.cost import RUNTIME_ROW, complexity, runtime_cases

COLUMNS: tuple[str, ...] = (
    "ablation", "variant", "base", "changed", "deployment", "dataset", "sandbox", "protocol", "metric", "unit",
    "direction", "value", "base_value", "difference", "cases", "note", "base_note",
)  # fmt: skip


def ablations(run: Run, cases: pd.DataFrame | None = None, timed: pd.DataFrame | None = None) -> pd.DataFrame:
    """Difference of every variant with a base to that base: `COLUMNS`, ``difference = value - base_value``.

    Accuracy: macro averages over the cases (and seeds) both have.  Wall time: medians over the cases both finished.
    Parameters and FLOPs: the counts.  A metric that one of the two lacks has no row here; its cell is in `problems`.
    """
    rows: list[dict[str, object]] = []
    accuracy = case_values(run) if cases is None else cases
    runtime = runtime_cases(run) if timed is None else timed
    counts = complexity(run)
    for label, variant in run.info.variants.items():
        if variant.base is None or variant.base not in run.info.variants:
            continue
        about = {
            "ablation": variant.ablation or "",
            "variant": label,
            "base": variant.base,
            "changed": changed(variant, run.info.variants[variant.base]),
        }
        found = _accuracy(accuracy, label, variant.base) + _counts(counts, label, variant.base)
        found += _runtime(runtime, label, variant.base)
        rows += [{"note": "", "base_note": "", **about, **row} for row in found]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def changed(variant: VariantInfo, base: VariantInfo) -> str:
    """What sets a variant apart from its base, e.g. ``depth = 2 (base: 4)``."""
    said = [] if variant.name == base.name else [f"{variant.name} (base: {base.name})"]
    for key in dict.fromkeys([*variant.set, *base.set]):
        here, there = _setting(variant.set, key), _setting(base.set, key)
        if here != there:
            said.append(f"{key} = {here} (base: {there})")
    return ", ".join(said)


def _setting(values: Mapping[str, Any], key: str) -> str:
    return str(values[key]) if key in values else "default"


def _pairs(frame: pd.DataFrame, label: str, base: str, keys: list[str], on: list[str]) -> list[Any]:
    """For every group of ``keys`` that both have: (key, joined rows with suffixes ``_v`` and ``_b``)."""
    mine = frame[frame["variant"] == label]
    theirs = {tuple(k.values()): part for k, part in grouped(frame[frame["variant"] == base], keys)}
    found = []
    for key, part in grouped(mine, keys):
        other = theirs.get(tuple(key.values()))
        if other is not None:
            found.append((key, part.merge(other, on=on, suffixes=("_v", "_b"))))
    return found


def _accuracy(cases: pd.DataFrame, label: str, base: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    keys = [k for k in ROW if k != "variant"]
    for key, both in _pairs(cases, label, base, keys, ["seed", "case"]):
        both = both[both["value_v"].notna() & both["value_b"].notna()]
        if both.empty:
            continue
        means = both.groupby(["seed", "modality_v"])[["value_v", "value_b"]].mean().groupby("seed").mean().mean()
        notes = {"note": joined(both["note_v"]), "base_note": joined(both["note_b"])}
        rows.append({**_row(key, str(key["metric"]), means["value_v"], means["value_b"], len(both)), **notes})
    return rows


def _runtime(cases: pd.DataFrame, label: str, base: str) -> list[dict[str, object]]:
    rows = []
    keys = [k for k in RUNTIME_ROW if k != "variant"]
    for key, both in _pairs(cases[cases["case"].notna()], label, base, keys, ["seed", "case"]):
        both = both[(both["status_v"] == "ok") & (both["status_b"] == "ok")]
        if not both.empty:
            rows.append(_row(key, "wall", both["wall_v"].median(), both["wall_b"].median(), len(both)))
    return rows


def _counts(counts: pd.DataFrame, label: str, base: str) -> list[dict[str, object]]:
    rows = []
    for key, both in _count_pairs(counts, label, base):
        for metric in ("params", "flops"):
            if pd.notna(both[0][metric]) and pd.notna(both[1][metric]):
                rows.append(_row({"deployment": key}, metric, both[0][metric], both[1][metric], None))
    return rows


def _count_pairs(counts: pd.DataFrame, label: str, base: str) -> list[Any]:
    theirs = {k["deployment"]: part.iloc[0] for k, part in grouped(counts[counts["variant"] == base], ["deployment"])}
    mine = grouped(counts[counts["variant"] == label], ["deployment"])
    return [(k["deployment"], (part.iloc[0], theirs[k["deployment"]])) for k, part in mine if k["deployment"] in theirs]


def _row(key: Mapping[str, object], metric: str, value: float, base: float, cases: int | None) -> dict[str, object]:
    numbers = {"value": value, "base_value": base, "difference": value - base, "cases": cases}
    return {**key, "metric": metric, **of_metric(metric), **numbers}
