"""Tables of the page that show measured ratios to LiteMedSAM beside the ratios that papers claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from reports import text
from reports.tables.claims import GEOMETRIC_MEAN
from reports.tables.common import none_if_missing
from reports.views.model import Cell, Column, Table, joined_words, merged, number, variant_cell, word

CAPTION = (
    "Time ÷ time of LiteMedSAM in the same sandbox under the same deployment (but for fusing); below 1 is faster. "
    "Work: from reading the case to writing its masks, as a clock inside a script measures. Whole run: a cold run, "
    "with the start of the process and its imports, which draw short cases towards 1. Our cases are generated and have "
    "the papers' names; claimed are each paper's own figures, on its machine, by its clock. The difference is that of "
    "the work, and has a word for rows alone that are executed as the authors' scripts do: eager torch in fp32, one "
    "box at a time, the system's allocator."
)
OF_WHOLE_RUNS = "phases were not recorded, so the difference is that of the whole run"


def claim_table(table: pd.DataFrame) -> Table:
    """The geometric mean over the cases, a row a variant, deployment and sandbox."""
    records = table[table["case"] == GEOMETRIC_MEAN].to_dict("records")
    columns = (
        Column("Variant", numeric=False),
        Column("Sandbox", numeric=False),
        Column("Work", "geometric mean"),
        Column("Whole run", "geometric mean"),
        Column("Claimed", "same cases"),
        Column("Difference", numeric=False),
        Column("Cases"),
        Column("LiteMedSAM's deployment", numeric=False),
        Column("Claimed by", numeric=False),
    )
    rows = []
    for r in records:
        name = variant_cell(r["variant"], _where(r, table), flag=r["flag"])
        other = r["baseline_deployment"] if r["baseline_deployment"] != r["deployment"] else "the same"
        cells = (*_ratios(r), _claimed(r), word(r["difference"] or text.DASH), number(r["cases"], str(r["cases"])))
        source = r["source"] or "no paper, of these cases"
        rows.append((name, word(r["sandbox"]), *cells, word(other or text.DASH), word(source)))
    return Table("claims", CAPTION, columns, tuple(rows), tuple(remarks(records)))


def remarks(means: Sequence[Mapping[Any, Any]]) -> list[str]:
    """What the cases are, why some are missing, what a difference is of, and what is to be known of a paper."""

    def of(row: Mapping[Any, Any]) -> str:
        return joined_words(row["variant"], row["deployment"], row["sandbox"])

    cases = merged((f"Cases of {r['dataset']}", r["data"]) for r in means if r["data"])
    said = merged((of(r), r["reason"]) for r in means if r["reason"])
    walls = merged((of(r), OF_WHOLE_RUNS) for r in means if r["difference_of"] == "wall")
    papers = merged((r["source"].partition(", column")[0], r["remark"]) for r in means if r["remark"])
    return [*cases, *said, *walls, *papers]


def claim_case_table(table: pd.DataFrame) -> Table:
    """Every case."""
    columns = (
        Column("Case", numeric=False),
        Column("Variant", numeric=False),
        Column("Sandbox", numeric=False),
        Column("Time", "median, s"),
        Column("LiteMedSAM", "median, s"),
        Column("Work", "ratio"),
        Column("Whole run", "ratio"),
        Column("Claimed", "ratio"),
        Column("Difference", numeric=False),
    )
    rows = []
    for r in table[table["case"] != GEOMETRIC_MEAN].to_dict("records"):
        rows.append(
            (
                word(r["case"]),
                variant_cell(r["variant"], _where(r, table), flag=r["flag"]),
                word(r["sandbox"]),
                _seconds(r["wall"], r["work"]),
                _seconds(r["baseline"], r["baseline_work"]),
                *_ratios(r),
                _claimed(r),
                word(r["difference"] or text.DASH),
            )
        )
    caption = "Every case; medians over its repeats: of the whole run, and of the work below it."
    return Table("claim-cases", caption, columns, tuple(rows))


def _where(row: dict[Any, Any], table: pd.DataFrame) -> str:
    return joined_words(row["deployment"], row["dataset"] if table["dataset"].nunique() > 1 else None)


def _seconds(wall: float, work: float) -> Cell:
    return number(wall, text.seconds(wall), small="" if text.missing(work) else f"work {text.seconds(work)}")


def _ratios(row: dict[Any, Any]) -> tuple[Cell, Cell]:
    """Of the work and of the whole run; the status in place of both."""
    if none_if_missing(row["ratio"]) is None:
        return Cell(status=row["status"], reason=row["reason"]), Cell(text.DASH)
    return number(row["work_ratio"], text.times(row["work_ratio"])), number(row["ratio"], text.times(row["ratio"]))


def _claimed(row: dict[Any, Any]) -> Cell:
    return number(row["claimed"], text.times(row["claimed"]))
