"""The leaderboard on the terminal and as Markdown, CSV and JSON; rows and their order come from `reports.board`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from reports import deployments, ranks, text
from reports.board import (
    PROTOCOL,
    LeaderboardRow,
    groups,
    labels,
    missing_costs,
    places,
    problem,
    problem_lines,
    remark,
    rows,
    timing_at,
)
from reports.frame import Run, load_run
from reports.places import Place
from reports.ranks import RowStanding

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "CAPTION",
    "PROTOCOL",
    "LeaderboardRow",
    "caption",
    "groups",
    "labels",
    "load",
    "missing_costs",
    "places",
    "problem",
    "problem_lines",
    "rank_remarks",
    "rank_text",
    "remark",
    "rows",
    "timing_at",
    "to_csv",
    "to_json",
    "to_markdown",
    "to_terminal",
    "wall_text",
]

CAPTION = (
    "DSC and NSD: macro average over modalities, protocol strict unless named; a failed case counts as 0; in brackets "
    "the 95 % interval (BCa bootstrap over cases), where it is shown. "
    "Rows that carry a training note, miss cases or seeds, or have no competitor carry no rank: their order means "
    "nothing. Wall: median over cases of a cold run, protocol strict unless named; n: how many cases it rests on if "
    "not all. A case that failed in any repeat has no time."
)


def caption(board: Sequence[LeaderboardRow]) -> str:
    """What belongs below the rows: `CAPTION`, and what ranks and flags mean if a row carries one."""
    schemes = list(dict.fromkeys(row.standing.scheme for row in board if row.standing))
    ranked = [ranks.rule_of(schemes)] if schemes else []
    return " ".join([CAPTION, *ranked, *([deployments.RULE] if any(row.flag for row in board) else [])])


def title(dataset: str | None, group: Sequence[LeaderboardRow]) -> str:
    """Data set of a table, and what it was restricted to."""
    only = group[0].only if group else ""
    return f"data set {dataset or 'none'}" + (f" · {only} alone" if only else "")


def ranked_rows(group: Sequence[LeaderboardRow]) -> list[tuple[str, LeaderboardRow]]:
    """Names and rows of one data set that have a rank."""
    return [(label, row) for label, row in zip(labels(group), group, strict=True) if row.rank is not None]


def rank_remarks(group: Sequence[LeaderboardRow]) -> list[str]:
    """What the ranks of one data set rest on."""
    named = zip(labels(group), group, strict=True)
    return ranks.remarks([(label, row.standings) for label, row in named if row.standings])


def load(run_folder: Path, store_root: Path) -> Run:
    """The run whose leaderboard is wanted.  ``BenchError`` if it cannot be read."""
    return load_run(run_folder, store_root)


def wall_text(row: LeaderboardRow, where: Place) -> str:
    """Median wall time with how many cases it rests on if some failed, or the status."""
    found = timing_at(row, where)
    if found is None:
        return text.DASH
    if found.wall is None:
        return found.status
    good = f" ({found.rests_on})" if found.rests_on else ""
    return f"{text.seconds(found.wall)} s{good}"


def count_texts(row: LeaderboardRow) -> tuple[str, str]:
    """Parameters and FLOPs, or why there is no count."""
    params = text.scaled(row.params) if row.params_status in ("ok", "") else row.params_status
    return params, text.scaled(row.flops) if row.flops_status in ("ok", "") else row.flops_status


_NUMBERS = ("DSC", "NSD", "Cases", "Params", "FLOPs")


def _numbers(row: LeaderboardRow, where: Iterable[Place]) -> list[str]:
    cells = [text.score(row.dsc), text.score(row.nsd), str(row.cases), *count_texts(row)]
    return [*cells, *(wall_text(row, one) for one in where)]


def rank_text(standing: RowStanding | None, between: str = " ") -> str:
    """Rank and interval of its place: ``1= (1–3)``."""
    span = ranks.interval(standing)
    return ranks.shown(standing) + (f"{between}({span})" if span else "")


def to_terminal(board: Sequence[LeaderboardRow]) -> RenderableType:
    """A Rich renderable; training note and warning stand under the name of their variant, reasons below the table."""
    from rich import box
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    parts: list[Any] = []
    for dataset, group in groups(board).items():
        names = places(group)
        table = Table(
            title=f"Leaderboard · {title(dataset, group)}",
            box=box.SIMPLE_HEAD,
            title_justify="left",
            pad_edge=False,
            collapse_padding=True,
        )
        table.add_column("", justify="right")
        table.add_column("Variant", min_width=18, overflow="fold")
        for head in (*_NUMBERS, *(f"Wall {name}".replace(" ", "\n") for name in names.values())):
            table.add_column(head, justify="right", no_wrap=True)
        for label, row in zip(labels(group), group, strict=True):
            cell = Text(label)
            cell.append(" tiny" if row.tiny else "", style="dim")
            cell.append(f"\n{row.note}" if row.note else "", style="yellow")
            cell.append(f"\n{row.flag}" if row.flag else "", style="red")
            numbers = [text.DASH if n == "unsupported" else n.replace(" (", "\n(") for n in _numbers(row, names)]
            table.add_row(
                rank_text(row.standing, "\n"), cell, *numbers
            )  # what is unsupported, and why, stands below the table
        lines = [Text(line, style="yellow") for line in problem_lines(group)]
        lines += [Text(line) for line in (*missing_costs(group), *rank_remarks(group))]
        parts += [table, *(Padding(line, (0, 1)) for line in lines), *_rank_table(group)]
    parts.append(Padding(Text(caption(board), style="dim"), (0, 1)))
    return Group(*parts)


def _rank_table(group: Sequence[LeaderboardRow]) -> list[RenderableType]:
    """The ranks by every rule, where there are several."""
    from rich import box
    from rich.table import Table

    ranked = ranked_rows(group)
    if not ranked or len(ranked[0][1].standings) < 2:
        return []
    table = Table(title="Rank by every rule", box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.add_column("Variant", min_width=18, overflow="fold")
    for standing in ranked[0][1].standings:
        table.add_column(fill(standing.rule, 12, break_long_words=False), justify="right", overflow="fold")
    for label, row in ranked:
        table.add_row(label, *(rank_text(standing) for standing in row.standings))
    return [table]


def to_markdown(board: Sequence[LeaderboardRow]) -> str:
    """GitHub-flavoured tables, one a data set."""
    lines: list[str] = []
    for dataset, group in groups(board).items():
        names = places(group)
        head = ["Rank", "Variant", "Weights", *_NUMBERS, *(f"Wall {name}" for name in names.values()), "Remark"]
        left = {"Variant", "Weights", "Remark"}
        named = title(dataset, group)
        lines += [f"**{named[0].upper()}{named[1:]}**", "", "| " + " | ".join(head) + " |"]
        lines.append("|" + "|".join("---" if h in left else "---:" for h in head) + "|")
        for label, row in zip(labels(group), group, strict=True):
            dsc, nsd, *rest = _numbers(row, names)
            dsc = f"{dsc} {text.interval(row.dsc_low, row.dsc_high)}".strip()
            nsd = f"{nsd} {text.interval(row.nsd_low, row.nsd_high)}".strip()
            named_row = label + (" (tiny)" if row.tiny else "")
            cells = [rank_text(row.standing), named_row, row.weights, dsc, nsd, *rest, remark(row)]
            lines.append("| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |")
        lines += ["", *(f"- {m}" for m in (*missing_costs(group), *rank_remarks(group))), ""]
    return "\n".join([*lines, caption(board), ""])


# Columns of every place: prefix and suffix (the unit) around its name.
_TIMED = {
    "wall": "_s",
    "peak_anonymous": "_bytes",
    "peak_memory": "_bytes",
    "cases": "",
    "ok": "",
    "failed": "",
    "status": "",
    "reason": "",
}


_STANDING = [name for name in RowStanding.__dataclass_fields__ if name != "rule"]


def to_csv(board: Sequence[LeaderboardRow]) -> str:
    """Unrounded values, one row a leaderboard row.

    Columns of every place, e.g. ``wall_docker_cvpr24_s``, and of every rule, e.g. ``place_mean-then-rank``.
    """
    names = [n for n in LeaderboardRow.__dataclass_fields__ if n not in ("timings", "standings")]
    rules = list(dict.fromkeys(standing.rule for row in board for standing in row.standings))
    timed = [(where, name.replace(" ", "_"), field) for where, name in places(board).items() for field in _TIMED]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = [f"{field}_{name}{_TIMED[field]}" for _, name, field in timed]
    writer.writerow([*names, *heads, *(f"{field}_{rule}" for rule in rules for field in _STANDING)])
    for row in board:
        cells = [getattr(row, n) for n in names]
        cells += [getattr(timing_at(row, where), field, "") for where, _, field in timed]
        standings = {standing.rule: standing for standing in row.standings}
        cells += [getattr(standings.get(rule), field, "") for rule in rules for field in _STANDING]
        writer.writerow([_plain(cell) for cell in cells])
    return out.getvalue()


def _plain(cell: Any) -> Any:
    """A cell of a CSV file; several names in one are separated by semicolons."""
    return "" if cell is None else "; ".join(cell) if isinstance(cell, tuple) else cell


def to_json(
    board: Sequence[LeaderboardRow],
    deployed: Sequence[dict[str, Any]] = (),
    claimed: Sequence[dict[str, Any]] = (),
    timed: Sequence[dict[str, Any]] = (),
) -> str:
    """Unrounded values with their caption; rows of `reports.fidelity`, `reports.claims` and `reports.warm`, if any."""
    data: dict[str, Any] = {"caption": caption(board), "rows": [asdict(row) for row in board]}
    if deployed:
        data["deployments"] = list(deployed)
    if claimed:
        data["claims"] = list(claimed)
    if timed:
        data["latency"] = list(timed)
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
