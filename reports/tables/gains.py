"""What a way of execution gains over the authors' scripts, and orders of variants that depend on an axis of the run.

Runs are paired: the same case and repeat, timed in turns in one session.  A ratio is told apart from 1 by Wilcoxon's
signed-rank test on the pairs at 1 %.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator
from itertools import combinations
from math import exp, log, nan
from statistics import median

import pandas as pd

from harness.stats import median_interval, paired_p
from reports.deployments import differing
from reports.frame import Run
from reports.tables.common import grouped, joined, none_if_missing
from reports.tables.cost import RUNTIME_ROW
from reports.tables.fidelity import flagged

REFERENCE = "reference"
ALPHA = 0.01
PLACE: tuple[str, ...] = ("dataset", "sandbox", "protocol")
GAIN_COLUMNS: tuple[str, ...] = (
    *RUNTIME_ROW, "case", "reference", "wall", "reference_wall", "gain", "low", "high", "pairs", "p", "verdict",
    "interleaved", "flag",
)  # fmt: skip
AXES: dict[str, str] = {"allocator": "the allocator", "compile": "compiling ahead of time"}
"""Settings of a deployment that decide no mask and may decide an order: field → words."""
ORDER_COLUMNS: tuple[str, ...] = (
    *PLACE, "one", "other", "axis", "first", "first_ratio", "second", "second_ratio", "changes",
)  # fmt: skip


def gains(run: Run) -> pd.DataFrame:
    """One row a variant, deployment, place and case: `GAIN_COLUMNS`.

    ``gain``: median over the pairs of the reference's wall time ÷ the deployment's, with the 95 % interval of that
    median (missing under six pairs); ``reference`` is the variant's own deployment with ``execution: reference``, of
    the same place; ``p`` and ``verdict`` by `paired_p`; ``interleaved``: all pairs were timed in one session.
    Variants without such a deployment have no rows.
    """
    walls = _walls(run)
    rows: list[dict[str, object]] = []
    for key, part in grouped(walls, ["variant", *PLACE]):
        reference = next((d for d in part["deployment"].unique() if _is_reference(run, d)), None)
        if reference is None:
            continue
        base = part[part["deployment"] == reference]
        for (deployment, case), mine in part[part["deployment"] != reference].groupby(
            ["deployment", "case"], sort=False
        ):
            pairs = _paired(base[base["case"] == case], mine)
            if len(pairs):
                about = {"deployment": deployment, "case": case, "reference": reference}
                rows.append({**key, **about, **_gain(pairs)})
    return flagged(run, pd.DataFrame(rows, columns=[c for c in GAIN_COLUMNS if c != "flag"]))[list(GAIN_COLUMNS)]


def _gain(pairs: pd.DataFrame) -> dict[str, object]:
    ratios = list(pairs["value_base"] / pairs["value"])
    low, high = median_interval(ratios) or (nan, nan)
    p = paired_p(list(pairs["value_base"]), list(pairs["value"]))
    middle = median(ratios)
    known = p is not None and p < ALPHA
    return {
        "wall": pairs["value"].median(),
        "reference_wall": pairs["value_base"].median(),
        "gain": middle,
        "low": low,
        "high": high,
        "pairs": len(pairs),
        "p": nan if p is None else p,
        "verdict": ("faster" if middle > 1 else "slower")
        if known
        else "too few pairs"
        if p is None
        else "not separable",
        "interleaved": bool((pairs["session"] == pairs["session_base"]).all()),
    }


def orders(run: Run) -> pd.DataFrame:
    """Pairs of variants under two deployments that differ in one of `AXES` alone: `ORDER_COLUMNS`.

    ``first_ratio`` and ``second_ratio``: wall time of ``one`` ÷ ``other``, geometric mean over cases of the medians of
    the pairs, under the deployments ``first`` and ``second``.  ``changes``: what the axis changes, in words; empty if
    the two stand alike under both.
    """
    rows: list[dict[str, object]] = []
    for key, part in grouped(_walls(run), PLACE):
        for first, second in combinations(part["deployment"].dropna().unique(), 2):
            axis = differing(run.info, first, second)
            if len(axis) != 1 or not axis <= AXES.keys():
                continue
            for one, other in combinations(part["variant"].unique(), 2):
                there = [_compared(part[part["deployment"] == d], one, other) for d in (first, second)]
                if there[0] is not None and there[1] is not None:
                    about = {"one": one, "other": other, "axis": next(iter(axis)), "first": first, "second": second}
                    ratios = {"first_ratio": there[0][0], "second_ratio": there[1][0]}
                    rows.append({**key, **about, **ratios, "changes": _change(there[0][1], there[1][1])})
    return pd.DataFrame(rows, columns=list(ORDER_COLUMNS))


def _compared(part: pd.DataFrame, one: str, other: str) -> tuple[float, int] | None:
    """Ratio of two variants, and −1, 0 or 1: the first is faster, they cannot be told apart, it is slower."""
    pairs = _paired(part[part["variant"] == one], part[part["variant"] == other])
    if not len(pairs):
        return None
    by_case = [median(mine["value_base"] / mine["value"]) for _, mine in pairs.groupby("case", sort=False)]
    ratio = exp(sum(map(log, by_case)) / len(by_case))
    p = paired_p(list(pairs["value"]), list(pairs["value_base"]))
    return ratio, 0 if p is None or p >= ALPHA else 1 if ratio > 1 else -1


def _change(first: int, second: int) -> str:
    if first == second:
        return ""
    return "the order is reversed" if first and second else "told apart under one of them only"


def _paired(base: pd.DataFrame, mine: pd.DataFrame) -> pd.DataFrame:
    """Runs of the same case and repeat, the base's columns with the ending ``_base``."""
    columns = ["case", "repeat", "value", "session"]
    return mine[columns].merge(base[columns], on=["case", "repeat"], suffixes=("", "_base"))


def _walls(run: Run) -> pd.DataFrame:
    """Wall times of the cases of which no repeat failed, with the session they were made in."""
    frame = run.frame[(run.frame["kind"] == "runtime") & run.frame["case"].notna()]
    keys = ["variant", "deployment", *PLACE, "case"]
    good = (frame["status"] == "ok").groupby([frame[k] for k in keys], dropna=False).transform("all")
    walls = frame[good & (frame["metric"] == "wall") & frame["value"].notna()]
    return walls.assign(session=[_session(detail) for detail in walls["detail"]])


def _session(detail: Hashable) -> str:
    try:
        return str(json.loads(str(detail)).get("session", ""))
    except (ValueError, AttributeError):
        return ""


def _is_reference(run: Run, deployment: object) -> bool:
    found = run.info.resolved.deployments.get(str(none_if_missing(deployment) or ""))
    return found is not None and found.execution == REFERENCE


def remarks(table: pd.DataFrame) -> Iterator[str]:
    """What `orders` has to say, a sentence for every pair of variants whose standing depends on an axis."""
    for key, part in grouped(table[table["changes"] != ""], ["sandbox", "dataset", "axis", "first", "second"]):
        said = joined(
            f"{r['one']} ÷ {r['other']} ×{r['first_ratio']:.2f} and ×{r['second_ratio']:.2f}: {r['changes']}"
            for r in part.to_dict("records")
        )
        decides = f"{AXES[str(key['axis'])]} decides ({key['first']} and {key['second']})"
        yield f"{key['sandbox']}, {key['dataset']}: {decides}: {said}"
