"""Measured ratios to LiteMedSAM beside the papers' claims, on the terminal and as Markdown, CSV and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reports import rows as plain
from reports import tables, text
from reports.frame import Run
from reports.tables.claims import CLAIM_COLUMNS, GEOMETRIC_MEAN
from reports.tables.common import none_if_missing
from reports.views.claims import CAPTION, remarks

if TYPE_CHECKING:
    from rich.console import RenderableType

TITLE = "Time ÷ LiteMedSAM's, beside the papers' claims"

Row = dict[str, Any]


def rows(run: Run) -> list[Row]:
    """One row a variant and case, and one for their geometric mean: the columns of `reports.tables.claims`."""
    found = tables.claims(run).to_dict("records")
    return [{str(k): none_if_missing(v) for k, v in row.items()} for row in found]


def _means(found: list[Row]) -> list[Row]:
    return [row for row in found if row["case"] == GEOMETRIC_MEAN]


def _numbers(row: Row) -> list[str]:
    ratios = [row["status"], text.DASH]
    if row["ratio"] is not None:
        ratios = [text.times(row["work_ratio"]), text.times(row["ratio"])]
    return [str(row["cases"]), *ratios, text.times(row["claimed"]), row["difference"] or text.DASH]


def to_terminal(found: list[Row]) -> RenderableType:
    """A Rich renderable: the means over the cases; reasons and the caption stand below."""
    from rich import box
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(title=TITLE, box=box.SIMPLE_HEAD, title_justify="left", collapse_padding=True)
    table.add_column("Variant", min_width=18, overflow="fold")
    for head in ("Sandbox", "Cases", "Work", "Whole\nrun", "Claimed"):
        table.add_column(head, justify="left" if head == "Sandbox" else "right", no_wrap=True)
    table.add_column("Difference", overflow="fold")
    for row in _means(found):
        cell = Text(row["variant"])
        cell.append(f"\n{row['deployment']}" if row["deployment"] else "", style="dim")
        cell.append(f"\n{row['flag']}" if row["flag"] else "", style="yellow")
        table.add_row(cell, row["sandbox"], *_numbers(row))
    lines = [Padding(Text(line, style="yellow"), (0, 1)) for line in remarks(_means(found))]
    return Group(table, *lines, Padding(Text(CAPTION, style="dim"), (0, 1)))


def to_markdown(found: list[Row]) -> str:
    """A GitHub-flavoured table of the means over the cases."""
    head = ["Variant", "Deployment", "Sandbox", "Cases", "Work", "Whole run", "Claimed", "Difference", "Claimed by"]
    head.append("Warning")
    lines = [f"**{TITLE}**", "", "| " + " | ".join(head) + " |", "|---|---|---|---:|---:|---:|---:|---|---|---|"]
    for row in _means(found):
        names = [row["variant"], row["deployment"] or text.DASH, row["sandbox"]]
        cells = [*names, *_numbers(row), row["source"] or text.DASH, row["flag"] or text.DASH]
        lines.append("| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |")
    return "\n".join([*lines, "", *(f"- {remark}" for remark in remarks(_means(found))), "", CAPTION, ""])


def to_csv(found: list[Row]) -> str:
    """Unrounded values, one row a case and one for their mean."""
    return plain.to_csv(CLAIM_COLUMNS, found)


def to_json(found: list[Row]) -> str:
    """Unrounded values with the caption that belongs to them."""
    return plain.to_json(CAPTION, found)
