"""Ablated variants against their base, on the terminal and as Markdown, CSV and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from harness.schema import METRICS
from reports import rows as plain
from reports import tables, text
from reports.frame import Run
from reports.tables.ablation import COLUMNS
from reports.tables.common import none_if_missing
from reports.views.ablation import RULE

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

TITLE = "Ablations against their base"
_WHOLE = frozenset({"cases", "seeds"})

Row = dict[str, Any]


def rows(run: Run) -> list[Row]:
    """One row an ablated variant, place and metric: the columns of `reports.tables.ablation`, missing ones ``None``."""
    found = tables.ablations(run).to_dict("records")
    return [{str(k): _plain(str(k), none_if_missing(v)) for k, v in row.items()} for row in found]


def _plain(name: str, value: Any) -> Any:
    return int(value) if name in _WHOLE and value is not None else value


def _cells(row: Row) -> list[str]:
    """Difference, paired difference with its interval, both p values, effect, cases, seed noise, verdict."""
    verdict = f"{row['verdict']}: {row['verdict_reason']}" if row["verdict_reason"] else row["verdict"]
    if row["cases"] is None:
        difference = text.of_metric(row["metric"], row["difference"])
        return [("+" if row["difference"] > 0 else "") + difference, *[text.DASH] * 6, verdict]
    decimals = METRICS[row["metric"]].decimals
    ends = text.interval(row["paired_low"], row["paired_high"], decimals)
    sd = text.fixed(row["seed_sd"], decimals + 1)
    return [
        text.signed(row["difference"], decimals),
        f"{text.signed(row['paired'], decimals)} {ends}".rstrip(),
        text.probability(row["p_holm"]),
        text.probability(row["wilcoxon_p_holm"]),
        text.signed(row["effect"], 2),
        str(row["cases"]),
        text.DASH if sd == text.DASH else f"{sd} ({text.plural(row['seeds'], 'seed')})",
        verdict,
    ]


def _metric(row: Row) -> str:
    where = [row["protocol"], row["sandbox"]] if row["cases"] is not None else []
    return " · ".join(str(part) for part in (text.metric_title(row["metric"]), *where) if part)


def _name(row: Row) -> str:
    return " · ".join(str(part) for part in (row["variant"], row["deployment"]) if part)


_HEAD = ("Variant", "Metric", "Difference", "Paired, 95 %", "p", "p Wilcoxon", "Effect", "Cases", "Seed SD", "Verdict")


def to_terminal(found: list[Row]) -> RenderableType:
    """A Rich renderable: each variant's name, what sets it apart and its warnings, its table below; the rule last."""
    from itertools import groupby

    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    parts: list[RenderableType] = [Text(TITLE, style="italic")]
    for _, part in groupby(found, key=lambda row: (_name(row), row["dataset"])):
        own = list(part)
        parts += [Text(), _heading(own[0]), _table(own)]
    return Group(*parts, Padding(Text(RULE, style="dim"), (1, 1, 0, 1)))


def _heading(row: Row) -> Text:
    from rich.text import Text

    heading = Text.assemble((_name(row), "bold"), f" − {row['base']}")
    heading.append(f" · data set {row['dataset']}" if row["dataset"] else "")
    heading.append(f"\n{row['changed']}" if row["changed"] else "", style="dim")
    for said in dict.fromkeys((row["note"], row["flag"], row["base_flag"])):
        heading.append(f"\n{said}" if said else "", style="yellow")
    return heading


def _table(found: list[Row]) -> Table:
    """The metrics of one variant, one row each, without the columns that say nothing."""
    from rich import box
    from rich.table import Table

    cells = [[_metric(row), *_cells(row)] for row in found]
    told = [place for place in range(len(_HEAD) - 1) if any(row[place] != text.DASH for row in cells)]
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for head in (_HEAD[1 + place] for place in told):
        justify: Literal["left", "right"] = "left" if head in ("Metric", "Verdict") else "right"
        whole = head in ("Difference", "p", "Effect", "Cases")
        table.add_column(head, justify=justify, overflow="fold", no_wrap=whole)
    for row in cells:
        table.add_row(*(row[place] for place in told))
    return table


def to_markdown(found: list[Row]) -> str:
    """A GitHub-flavoured table."""
    head = [_HEAD[0], "Base", "Changed", "Data set", *_HEAD[1:], "Warning"]
    rule = "|---|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|---|---|"
    lines = [f"**{TITLE}**", "", "| " + " | ".join(head) + " |", rule]
    for row in found:
        said = list(dict.fromkeys(row[name] for name in ("note", "base_note", "flag", "base_flag") if row[name]))
        names = [_name(row), row["base"], row["changed"], row["dataset"] or text.DASH, _metric(row)]
        cells = [*names, *_cells(row), "; ".join(said) or text.DASH]
        lines.append("| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |")
    return "\n".join([*lines, "", RULE, ""])


def to_csv(found: list[Row]) -> str:
    """Unrounded values, one row a variant, place and metric."""
    return plain.to_csv(COLUMNS, found)


def to_json(found: list[Row]) -> str:
    """Unrounded values with the rule of the verdicts."""
    return plain.to_json(RULE, found)
