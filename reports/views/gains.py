"""The table of the page that shows what ways of execution gain over the authors' scripts."""

from __future__ import annotations

import pandas as pd

from reports import text
from reports.views.model import Cell, Column, Table, joined_words, number, variant_cell, word

CAPTION = (
    "Wall time of the authors' way of execution (one encoding per object and slice, one box at a time) ÷ wall time of "
    "the deployment: above 1 is a gain. Cold runs, paired by repeat, median of the pairs with its 95 % interval; told "
    "apart by Wilcoxon's signed-rank test at 1 %."
)


def gain_table(table: pd.DataFrame) -> Table:
    """A row a case, variant, deployment and place."""
    columns = (
        Column("Case", numeric=False),
        Column("Variant", numeric=False),
        Column("Sandbox", numeric=False),
        Column("Reference", "median, s"),
        Column("Time", "median, s"),
        Column("Gain", "reference ÷ time"),
        Column("95 %", "of the gain"),
        Column("Pairs"),
        Column("Verdict", numeric=False),
    )
    rows = []
    for r in table.to_dict("records"):
        known = not text.missing(r["low"])
        interval = f"{text.times(r['low'])} to {text.times(r['high'])}" if known else text.DASH
        verdict = r["verdict"] if text.missing(r["p"]) else f"{r['verdict']}, p = {r['p']:.2g}"
        rows.append(
            (
                word(r["case"]),
                variant_cell(r["variant"], joined_words(r["deployment"], _place(r, table)), flag=r["flag"]),
                word(r["sandbox"]),
                number(r["reference_wall"], text.seconds(r["reference_wall"])),
                number(r["wall"], text.seconds(r["wall"])),
                number(r["gain"], text.times(r["gain"])),
                Cell(interval),
                number(r["pairs"], str(r["pairs"])),
                Cell(verdict, small="" if r["interleaved"] else "not timed in turns"),
            )
        )
    return Table("gains", CAPTION, columns, tuple(rows))


def _place(row: dict[object, object], table: pd.DataFrame) -> str:
    return joined_words(*(str(row[n]) if table[n].nunique() > 1 else None for n in ("dataset", "protocol")))
