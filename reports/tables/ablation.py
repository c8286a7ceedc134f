"""Ablations: each row against its base, on what both measured."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pandas as pd

from harness.schema import METRICS
from reports.frame import Run
from reports.runfile import VariantInfo
from reports.tables.accuracy import ROW, case_values
from reports.tables.common import grouped, joined, of_metric
from reports.tables.cost import RUNTIME_ROW, complexity, runtime_cases
from reports.tables.differences import EXACT, judge, macro_difference, of_cases
from reports.tables.fidelity import notes, warning

COLUMNS: tuple[str, ...] = (
    "ablation", "variant", "base", "changed", "deployment", "dataset", "sandbox", "protocol", "metric", "unit",
    "direction", "value", "base_value", "difference", "difference_low", "difference_high", "paired", "paired_low",
    "paired_high", "p", "p_holm", "wilcoxon_p", "wilcoxon_p_holm", "effect", "cases", "seeds", "seed_sd",
    "verdict", "verdict_reason", "note", "base_note", "flag", "base_flag",
)  # fmt: skip
_NUMBERS = ("difference_low", "difference_high", "paired", "paired_low", "paired_high", "p", "p_holm", "wilcoxon_p",
            "wilcoxon_p_holm", "effect", "seed_sd")  # fmt: skip


def ablations(run: Run, cases: pd.DataFrame | None = None, timed: pd.DataFrame | None = None) -> pd.DataFrame:
    """Difference of every variant with a base to that base: `COLUMNS`, ``difference = value - base_value``.

    Accuracy: macro averages over the cases (and seeds) both have, with the interval of their difference, of the metrics
    that have a better direction.  Wall time:
    medians over the cases both finished.  Parameters and FLOPs: the counts.  A metric that one of the two lacks has no
    row here; its cell is in `problems`.

    ``paired``, its interval and all that follows: the micro average of the differences case by case, each case first
    averaged over the training seeds (`harness.stats.paired_difference`); ``p``: sign-flip test of that mean;
    ``_holm``: adjusted for all rows of the table that have a p; ``effect``: rank-biserial; ``seed_sd``: standard
    deviation of the seeds' mean differences; ``verdict``: by `harness.stats.verdict`.  Counts have no case and no test:
    their verdict is that of the two numbers.
    """
    rows: list[dict[str, Any]] = []
    accuracy = case_values(run) if cases is None else cases
    runtime = runtime_cases(run) if timed is None else timed
    counts = complexity(run)
    trained = {job.variant for job in run.info.jobs if job.kind == "train"}
    for label, variant in run.info.variants.items():
        if variant.base is None or variant.base not in run.info.variants:
            continue
        about = {
            "ablation": variant.ablation or "",
            "variant": label,
            "base": variant.base,
            "changed": changed(variant, run.info.variants[variant.base]),
        }
        found = _accuracy(accuracy, label, variant.base, trained) + _counts(counts, label, variant.base)
        found += _runtime(runtime, label, variant.base, trained)
        rows += [{"note": "", "base_note": "", **about, **row} for row in found]
    judge(rows)
    warned = notes(run)
    for row in rows:
        row["flag"] = warning(warned, row["variant"], row["deployment"])
        row["base_flag"] = warning(warned, row["base"], row["deployment"])
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(_NUMBERS, float))


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


def _pairs(
    frame: pd.DataFrame, label: str, base: str, trained: Collection[str], keys: list[str], on: list[str]
) -> list[Any]:
    """For every group of ``keys`` that both have: (key, joined rows with suffixes ``_v`` and ``_b``).

    Seed is joined to seed.  Weights that no seed trained, such as those of a file, are joined to every other seed.
    """
    mine = frame[frame["variant"] == label]
    theirs = {tuple(k.values()): part for k, part in grouped(frame[frame["variant"] == base], keys)}
    found = []
    for key, part in grouped(mine, keys):
        other = theirs.get(tuple(key.values()))
        if other is not None:
            if base not in trained:
                other = _for_seeds(other, part["seed"].unique())
            elif label not in trained:
                part = _for_seeds(part, other["seed"].unique())
            found.append((key, part.merge(other, on=on, suffixes=("_v", "_b"))))
    return found


def _for_seeds(part: pd.DataFrame, seeds: Iterable[Any]) -> pd.DataFrame:
    return pd.concat([part.assign(seed=seed) for seed in seeds], ignore_index=True)


def _accuracy(cases: pd.DataFrame, label: str, base: str, trained: Collection[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    keys = [k for k in ROW if k != "variant"]
    cases = cases[cases["metric"].map(lambda m: METRICS[m].direction) != "none"]
    for key, both in _pairs(cases, label, base, trained, keys, ["seed", "case"]):
        both = both[both["value_v"].notna() & both["value_b"].notna()]
        if both.empty:
            continue
        means = both.groupby(["seed", "modality_v"])[["value_v", "value_b"]].mean().groupby("seed").mean().mean()
        row = _row(key, str(key["metric"]), means["value_v"], means["value_b"])
        row |= {"note": joined(both["note_v"]), "base_note": joined(both["note_b"])}
        rows.append({**row, **macro_difference(both), **of_cases(both)})
    return rows


def _runtime(cases: pd.DataFrame, label: str, base: str, trained: Collection[str]) -> list[dict[str, Any]]:
    rows = []
    keys = [k for k in RUNTIME_ROW if k != "variant"]
    for key, both in _pairs(cases[cases["case"].notna()], label, base, trained, keys, ["seed", "case"]):
        both = both[(both["status_v"] == "ok") & (both["status_b"] == "ok")]
        if not both.empty:
            row = _row(key, "wall", both["wall_v"].median(), both["wall_b"].median())
            row["apart"] = bool((both["sessions_v"] != both["sessions_b"]).any())
            rows.append({**row, **of_cases(both.rename(columns={"wall_v": "value_v", "wall_b": "value_b"}))})
    return rows


def _counts(counts: pd.DataFrame, label: str, base: str) -> list[dict[str, Any]]:
    rows = []
    for key, both in _count_pairs(counts, label, base):
        for metric in ("params", "flops"):
            if pd.notna(both[0][metric]) and pd.notna(both[1][metric]):
                rows.append(_row({"deployment": key}, metric, both[0][metric], both[1][metric]) | EXACT)
    return rows


def _count_pairs(counts: pd.DataFrame, label: str, base: str) -> list[Any]:
    theirs = {k["deployment"]: part.iloc[0] for k, part in grouped(counts[counts["variant"] == base], ["deployment"])}
    mine = grouped(counts[counts["variant"] == label], ["deployment"])
    return [(k["deployment"], (part.iloc[0], theirs[k["deployment"]])) for k, part in mine if k["deployment"] in theirs]


def _row(key: Mapping[str, object], metric: str, value: float, base: float) -> dict[str, Any]:
    numbers = {"value": value, "base_value": base, "difference": value - base}
    return {**key, "metric": metric, **of_metric(metric), **numbers}
