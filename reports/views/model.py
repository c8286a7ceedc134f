"""What a table of the page is made of: cells that a template can print without thinking."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from harness.schema import METRICS
from reports.tables.common import none_if_missing


@dataclass(frozen=True)
class Cell:
    """What a table cell shows.  ``sort``: value to sort by; ``heat``: 0..1 for a tint; ``status``: shown as a badge."""

    text: str = ""
    sort: float | str | None = None
    note: str = ""
    tag: str = ""
    status: str = ""
    reason: str = ""
    heat: float | None = None
    small: str = ""


@dataclass(frozen=True)
class Column:
    """A column; ``sub`` stands under the title (unit, protocol), ``better`` is the direction of its metric."""

    title: str
    sub: str = ""
    numeric: bool = True
    better: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a caption and remarks below it."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    remarks: tuple[str, ...] = field(default=())


def number(value: Any, shown: str, **more: Any) -> Cell:
    """A right-aligned number with its raw value to sort by."""
    plain = none_if_missing(value)
    return Cell(shown, None if plain is None else float(plain), **more)  # type: ignore[arg-type]


def word(value: Any, **more: Any) -> Cell:
    """A text cell."""
    plain = none_if_missing(value)
    return Cell("" if plain is None else str(plain), "" if plain is None else str(plain), **more)


def variant_cell(variant: Any, deployment: Any = None, note: str = "", tag: str = "") -> Cell:
    """Name of a row; the deployment (where rows differ in it) and the training note stand below it."""
    return Cell(str(variant), str(variant), note=note, tag=tag, small=str(none_if_missing(deployment) or ""))


def of_metric(metric: str, sub: str, title: str | None = None) -> Column:
    """A column of a metric, with its direction."""
    return Column(title or METRICS[metric].title, sub, better=METRICS[metric].direction)


def joined_words(*words: Any) -> str:
    """The words that are there, with dots between."""
    return " · ".join(str(w) for w in words if none_if_missing(w))


def same(column: pd.Series, value: str | None) -> pd.Series:
    """Mask of the rows with this label; ``None`` matches a missing one."""
    return column.isna() if value is None else column == value
