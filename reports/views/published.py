"""Table of the page that shows published figures beside what their conventions yield."""

from __future__ import annotations

import pandas as pd

from harness.schema import METRICS
from reports import text
from reports.views.model import Cell, Column, Table, merged, number, variant_cell, word

CAPTION = (
    "Each figure counted again by the convention that yields it. No paper states its convention: these were inferred, "
    "by trying counters, parts, modes and batch sizes until the printed digits came out. Figures of different "
    "conventions cannot be compared; the last column can: fvcore, eval mode, one image, one box, the whole model."
)


def published_table(table: pd.DataFrame) -> Table:
    """Printed figure, recomputed figure, the convention behind both, and the count that all variants share."""
    columns = (
        Column("Variant", numeric=False),
        Column("Figure", numeric=False),
        Column("Printed"),
        Column("Recomputed"),
        Column("Counted"),
        Column("By the convention", numeric=False),
        Column("Source", numeric=False),
        Column("One way", "parameters or multiply-adds"),
    )
    rows = []
    records = table.to_dict("records")
    for r in records:
        bad = Cell(status=r["status"], reason=r["reason"])
        recomputed = bad if r["status"] != "ok" else number(r["value"], r["recomputed"], note=_verdict(r["agrees"]))
        rows.append(
            (
                variant_cell(r["variant"]),
                word("FLOPs" if r["quantity"] == "flops" else METRICS["params"].title),
                Cell(r["printed"]),
                recomputed,
                number(r["value"], text.count(r["value"])),
                word(r["convention"], small=r["counts"]),
                word(r["source"]),
                number(r["one_way"], text.scaled(r["one_way"])),
            )
        )
    remarks = merged([(f"{r['variant']}, {r['printed']}", r["reason"]) for r in records if r["reason"]])
    return Table("published", CAPTION, columns, tuple(rows), tuple(remarks))


def _verdict(agrees: bool) -> str:
    return "" if agrees else "differs from the printed figure"
