"""Warm latency on the terminal and as Markdown: times, shares of the machine's limit, orders in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports import rows as plain
from reports import tables, text
from reports.frame import Run
from reports.tables.common import none_if_missing
from reports.tables.latency import COLUMNS, ratios
from reports.views.latency import CAPTION, order_words, reason_words, shown_seconds
from reports.views.model import merged

if TYPE_CHECKING:
    from rich.console import RenderableType

TITLE = "Warm latency"
HEAD = ("Variant", "Threads", "n", "Encode", "Decode", "Images / s", "Share")

Row = dict[str, Any]


@dataclass(frozen=True)
class Latencies:
    """Rows of `reports.tables.latency`, and what is said of their order and of those that have no times."""

    rows: list[Row]
    remarks: list[str]


def latencies(run: Run) -> Latencies:
    """What a run measured warm; no rows if nothing."""
    table = tables.latency(run)
    rows = [{str(k): none_if_missing(v) for k, v in row.items()} for row in table.to_dict("records")]
    failed = merged((_name(row), said) for row in rows if (said := reason_words(row)))
    return Latencies(rows, [*failed, *order_words(run, ratios(run, table))])


def _name(row: Row) -> str:
    return " · ".join(str(row[k]) for k in ("variant", "deployment") if row[k])


def _numbers(row: Row) -> list[str]:
    if row["encode"] is None:
        return [text.fixed(row["threads"], 0), text.DASH, row["status"], *([text.DASH] * 3)]
    counts = [text.fixed(row["threads"], 0), text.fixed(row["n"], 0)]
    times = [shown_seconds(row[phase]) if row[phase] is not None else text.DASH for phase in ("encode", "decode")]
    return [*counts, *times, text.fixed(row["throughput"], 2), text.percent(row["share"])]


def to_terminal(found: Latencies) -> RenderableType:
    """A Rich renderable; orders and the caption stand below."""
    from rich import box
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(title=TITLE, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, collapse_padding=True)
    table.add_column(HEAD[0], min_width=20, overflow="fold")
    for head in HEAD[1:]:
        table.add_column(head, justify="right", no_wrap=True)
    for row in found.rows:
        cell = Text(row["variant"])
        cell.append(f"\n{row['deployment']}" if row["deployment"] else "", style="dim")
        cell.append(f"\n{row['flag']}" if row["flag"] else "", style="yellow")
        table.add_row(cell, *_numbers(row))
    lines = [Padding(Text(line, style="yellow"), (0, 1)) for line in found.remarks]
    return Group(table, *lines, Padding(Text(CAPTION, style="dim"), (0, 1)))


def to_csv(found: Latencies) -> str:
    """Unrounded values, the columns of `reports.tables.latency`."""
    return plain.to_csv(COLUMNS, found.rows)


def to_markdown(found: Latencies) -> str:
    """A GitHub-flavoured table."""
    head = [HEAD[0], "Deployment", *HEAD[1:], "Warning"]
    lines = [f"**{TITLE}**", "", "| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(HEAD) - 1) + "---|"]
    for row in found.rows:
        cells = [row["variant"], row["deployment"] or text.DASH, *_numbers(row), row["flag"] or text.DASH]
        lines.append("| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |")
    return "\n".join([*lines, "", *(f"- {remark}" for remark in found.remarks), "", CAPTION, ""])
