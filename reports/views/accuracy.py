"""Tables of the page that show accuracy: leaderboard and means per modality."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from harness.schema import METRICS, MODALITIES
from harness.stats import FEWEST
from reports import ranks, text
from reports.board import LeaderboardRow, places, problem_lines, timing_at
from reports.places import Place
from reports.tables.common import none_if_missing
from reports.views.model import Cell, Column, Table, joined_words, number, of_metric, same, variant_cell

_MIXED = "Volumes count in mm, images in pixels: a mean over both is neither. "
INTERVALS = (
    "Macro average: mean of the modalities' means; micro average: mean of the cases. In brackets the 95 % interval of "
    f"a mean: BCa bootstrap of whole cases, within their modality for the macro average; none under {FEWEST} cases, "
    "nor for a macro average over a modality with a single case."
)


def _names(board: Sequence[LeaderboardRow]) -> list[Cell]:
    """First cells of the rows; the deployment is shown where it differs."""
    several = len({row.deployment for row in board}) > 1
    return [
        variant_cell(r.variant, r.deployment if several else None, r.note, "tiny" if r.tiny else "", r.flag)
        for r in board
    ]


def leaderboard_table(board: Sequence[LeaderboardRow], name: str, caption: str, remarks: Iterable[str]) -> Table:
    """All rows of one data set."""
    names = places(board)
    columns = [
        Column("Rank", next((row.standing.rule for row in board if row.standing), "")),
        Column("Variant", numeric=False),
        of_metric("dsc", "strict, macro"),
        of_metric("nsd", "strict, macro"),
        of_metric("dsc", "cvpr24, macro"),
        of_metric("nsd", "cvpr24, macro"),
        Column("Cases", "objects"),
        of_metric("params", "", "Params"),
        of_metric("flops", "multiply-adds", "FLOPs"),
    ]
    for where in names.values():
        columns.append(of_metric("wall", f"{where}, s", "Wall"))
        columns.append(of_metric("peak_anonymous", where, "Memory"))
    rows = [_leaderboard_row(row, name, list(names)) for name, row in zip(_names(board), board, strict=True)]
    return Table(name, caption, tuple(columns), tuple(rows), (*problem_lines(board), *remarks))


def _leaderboard_row(row: LeaderboardRow, name: Cell, names: Sequence[Place]) -> tuple[Cell, ...]:
    spans = [text.interval(low, high) for low, high in ((row.dsc_low, row.dsc_high), (row.nsd_low, row.nsd_high))]
    dsc = number(row.dsc, text.score(row.dsc), small=spans[0])
    dsc = dsc if row.status == "ok" else Cell(status=row.status, reason=row.reason)
    cells = [
        number(row.rank, ranks.shown(row.standing), small=ranks.interval(row.standing)),
        name,
        dsc,
        number(row.nsd, text.score(row.nsd), small=spans[1]),
        number(row.dsc_cvpr24, text.score(row.dsc_cvpr24)),
        number(row.nsd_cvpr24, text.score(row.nsd_cvpr24)),
        _cases(row.cases, row.failed, row.skipped, f"{row.objects} objects"),
        _count(row.params, row.params_status, row.cost_reason),
        _count(row.flops, row.flops_status, row.cost_reason),
    ]
    for where in names:
        timing = timing_at(row, where)
        if timing is None:
            cells += [Cell(text.DASH), Cell(text.DASH)]
        elif timing.wall is None:
            cells += [Cell(status=timing.status, reason=timing.reason), Cell(text.DASH)]
        else:
            cells.append(number(timing.wall, text.seconds(timing.wall), small=timing.rests_on))
            cells.append(number(timing.peak_anonymous, text.size(timing.peak_anonymous), small=timing.rests_on))
    return tuple(cells)


def _count(value: float | None, status: str, reason: str) -> Cell:
    return number(value, text.scaled(value)) if status in ("ok", "") else Cell(status=status, reason=reason)


def _cases(cases: int, failed: int, skipped: int, small: str) -> Cell:
    if not cases:
        return Cell(text.DASH)
    bad = [f"{failed} failed"] if failed else []
    bad += [f"{skipped} skipped"] if skipped else []
    return number(cases, str(cases), small=", ".join(bad) or small)


def modality_table(
    summary: pd.DataFrame, modal: pd.DataFrame, board: Sequence[LeaderboardRow], metric: str, protocol: str
) -> Table | None:
    """Mean per modality with macro and micro average, tinted by value; one data set."""
    part = modal[(modal["metric"] == metric) & (modal["protocol"] == protocol)]
    totals = summary[(summary["metric"] == metric) & (summary["protocol"] == protocol)]
    if totals.empty:
        return None
    names = [m for m in (*MODALITIES, "unknown") if m in set(part["modality"])]
    better = METRICS[metric].direction
    columns = [Column("Variant", numeric=False), Column("Macro", "average", better=better)]
    columns += [Column("Micro", "average", better=better)]
    columns += [Column(m, f"n = {part.loc[part['modality'] == m, 'cases'].max()}") for m in names]
    values = {(r["variant"], none_if_missing(r["deployment"]), r["modality"]): r for r in part.to_dict("records")}
    rows = []
    for name, row in zip(_names(board), board, strict=True):
        mine = totals[(totals["variant"] == row.variant) & same(totals["deployment"], row.deployment)]
        if mine.empty:
            continue
        total = mine.iloc[0]
        first = [name]
        if total["status"] == "ok":
            first += [_average(total, metric, "macro"), _average(total, metric, "micro")]
        else:
            first += [Cell(status=total["status"], reason=total["reason"]), Cell(text.DASH)]
        found = (values.get((row.variant, row.deployment, m)) for m in names)
        rows.append((*first, *(_modality_cell(f, metric) for f in found)))
    failed = "its diagonal" if METRICS[metric].failed is None else f"{METRICS[metric].failed:g}"
    caption = (
        f"{text.metric_title(metric)}, protocol {protocol}, per modality, n cases each. "
        f"A failed case counts as {failed}. {_MIXED if metric == 'hd95' else ''}{INTERVALS}"
    )
    return Table(f"{metric}-{protocol}", caption, tuple(columns), tuple(rows))


def _average(total: pd.Series, metric: str, name: str) -> Cell:
    """The macro or micro average over its interval."""
    value, decimals = total[name], METRICS[metric].decimals
    ends = text.interval(total[f"{name}_low"], total[f"{name}_high"], decimals)
    return number(value, text.fixed(value, decimals), heat=_heat(value, metric), small=ends)


def _heat(value: Any, metric: str) -> float | None:
    """The tint of a value between 0, bad, and 1, good; none of other metrics."""
    if METRICS[metric].unit != "1" or METRICS[metric].direction != "higher":
        return None
    plain = none_if_missing(value)
    return None if plain is None else round(min(1.0, max(0.0, float(plain))), 3)  # type: ignore[arg-type]


def _modality_cell(row: dict[Any, Any] | None, metric: str) -> Cell:
    if row is None:
        return Cell(text.DASH)
    bad = f"{row['failed']} of {row['cases']} failed" if row["failed"] else ""
    bad = bad or (f"{row['skipped']} skipped" if row["skipped"] else "")
    decimals = METRICS[metric].decimals
    said = joined_words(text.interval(row["low"], row["high"], decimals), bad)
    return number(row["value"], text.fixed(row["value"], decimals), heat=_heat(row["value"], metric), small=said)
