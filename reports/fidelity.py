"""Deployments against eager torch in fp32, on the terminal and as Markdown, CSV and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reports import deployments, text
from reports import rows as plain
from reports.frame import Run
from reports.tables import fidelity
from reports.tables.common import none_if_missing
from reports.tables.fidelity import COLUMNS

if TYPE_CHECKING:
    from rich.console import RenderableType

CAPTION = (
    "Every deployment against eager torch in fp32, same weights and same inputs. Agreement: share of mask pixels, mean "
    "and lowest over masks, never rounded up. Time: one image and one box in a warm process that keeps its pages. "
    f"{deployments.RULE}"
)
_HEAD = ("Variant", "Agreement", "Lowest", "Logits", "Time", "Files", "Quantised")

_COUNTS = frozenset({"seed", "threads", "images", "objects", "file_size", "layers", "layers_of"})

Row = dict[str, Any]


def rows(run: Run) -> list[Row]:
    """One row a variant, deployment and seed as plain data: the columns of `reports.tables.fidelity`."""
    found = fidelity(run).to_dict("records")
    return [{str(k): _plain(str(k), none_if_missing(v)) for k, v in row.items()} for row in found]


def _plain(name: str, value: Any) -> Any:
    return int(value) if name in _COUNTS and value is not None else value


def _name(row: Row) -> str:
    return " · ".join(str(part) for part in (row["variant"], row["deployment"]) if part)


def _numbers(row: Row) -> list[str]:
    agreement = text.agreement(row["agreement"]) if row["status"] == "ok" else row["status"]
    agreement = "reference" if row["reference"] else agreement
    worst = text.DASH if row["reference"] else text.agreement(row["worst"])
    cells = [agreement, worst, text.tiny(row["difference"]), text.times(row["ratio"]), text.size(row["file_size"])]
    return [*cells, _reach(row)]


def _reach(row: Row) -> str:
    """``47 of 120 layers, 7 %`` of the multiply-adds; a dash where nothing is quantised."""
    if row["layers"] is None:
        return text.DASH
    of = f" of {text.count(row['layers_of'])}" if row["layers_of"] is not None else ""
    return f"{text.count(row['layers'])}{of} layers, {text.percent(row['share'])}"


def _weights(row: Row) -> str:
    digest = str(row["weights"])[:12]
    return f"{digest} ({row['training']})" if digest and row["training"] else digest or str(row["training"])


def _reasons(found: list[Row]) -> list[str]:
    """Why numbers are missing; deployments that share a reason share the line."""
    said: dict[str, list[str]] = {}
    for row in found:
        if row["reason"]:
            how = "not measured" if row["status"] == "ok" else row["status"]
            said.setdefault(f"{how}: {row['reason']}", []).append(_name(row))
    return [f"{text.listed(list(dict.fromkeys(who)))}: {reason}" for reason, who in said.items()]


def to_terminal(found: list[Row]) -> RenderableType:
    """A Rich renderable; notes and warnings stand under the name of their row, reasons below the table."""
    from rich import box
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Deployments", box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, collapse_padding=True)
    table.add_column("Variant", min_width=20, overflow="fold")
    for head in ("Agreement", "Logits", "Time", "Files", "Quantised"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in found:
        cell = Text(row["variant"])
        cell.append(f"\n{row['deployment']}" if row["deployment"] else "", style="dim")
        cell.append(f"\n{row['note']}" if row["note"] else "", style="yellow")
        cell.append(f"\n{row['flag']}" if row["flag"] else "", style="red")
        agreement, lowest, *rest, reach = _numbers(row)
        below = "" if lowest == text.DASH else f"\nlowest {lowest}"
        table.add_row(cell, agreement + below, *rest, reach.replace(" layers, ", "\n"))
    lines = [Padding(Text(line, style="yellow"), (0, 1)) for line in _reasons(found)]
    return Group(table, *lines, Padding(Text(CAPTION, style="dim"), (0, 1)))


def to_markdown(found: list[Row]) -> str:
    """A GitHub-flavoured table."""
    head = [*_HEAD[:1], "Deployment", "Executed by", *_HEAD[1:], "Weights", "Remark"]
    words = {"Variant", "Deployment", "Executed by", "Quantised", "Weights", "Remark"}
    lines = ["**Deployments**", "", "| " + " | ".join(head) + " |"]
    lines.append("|" + "|".join("---" if h in words else "---:" for h in head) + "|")
    for row in found:
        how = " ".join(str(part) for part in (row["backend"], row["settings"]) if part)
        said = "; ".join(part for part in (row["note"], row["flag"], row["reason"]) if part)
        cells = [row["variant"], row["deployment"] or text.DASH, how, *_numbers(row), _weights(row), said]
        lines.append("| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |")
    return "\n".join([*lines, "", CAPTION, ""])


def to_csv(found: list[Row]) -> str:
    """Unrounded values, one row a deployment."""
    return plain.to_csv(COLUMNS, found)


def to_json(found: list[Row]) -> str:
    """Unrounded values with the caption that belongs to them."""
    return plain.to_json(CAPTION, found)
