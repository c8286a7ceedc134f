"""What a table of the page is made of: cells that a template can print without thinking."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from harness.schema import METRICS
from reports import text
from reports.tables.common import none_if_missing

# Rows above which a table would push the rest of the page out of sight.
TALL = 40


@dataclass(frozen=True)
class Cell:
    """What a table cell shows.  ``sort``: value to sort by; ``heat``: 0..1 for a tint; ``status``: shown as a badge.

    ``note``: training note; ``flag``: warning of the deployment.  Both are always shown, at any width.
    """

    text: str = ""
    sort: float | str | None = None
    note: str = ""
    tag: str = ""
    status: str = ""
    reason: str = ""
    heat: float | None = None
    small: str = ""
    flag: str = ""


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

    @property
    def tall(self) -> bool:
        """Whether it scrolls in a frame of its own, under a head that stays."""
        return len(self.rows) > TALL


def number(value: Any, shown: str, **more: Any) -> Cell:
    """A right-aligned number with its raw value to sort by."""
    plain = none_if_missing(value)
    return Cell(shown, None if plain is None else float(plain), **more)  # type: ignore[arg-type]


def word(value: Any, **more: Any) -> Cell:
    """A text cell."""
    plain = none_if_missing(value)
    return Cell("" if plain is None else str(plain), "" if plain is None else str(plain), **more)


def variant_cell(variant: Any, deployment: Any = None, note: str = "", tag: str = "", flag: str = "") -> Cell:
    """Name of a row; deployment (where rows differ in it), training note and warning stand below it."""
    small = str(none_if_missing(deployment) or "")
    return Cell(str(variant), str(variant), note=note, tag=tag, small=small, flag=flag)


def merged(remarks: Iterable[tuple[str, str]]) -> list[str]:
    """``who: said``, one remark for all who share what is said."""
    found: dict[str, list[str]] = {}
    for who, said in remarks:
        found.setdefault(said, []).append(who)
    return [f"{text.listed(list(dict.fromkeys(who)))}: {said}" for said, who in found.items()]


def of_metric(metric: str, sub: str, title: str | None = None) -> Column:
    """A column of a metric, with its direction."""
    return Column(title or METRICS[metric].title, sub, better=METRICS[metric].direction)


def joined_words(*words: Any) -> str:
    """The words that are there, with dots between."""
    return " · ".join(str(w) for w in words if none_if_missing(w))


def same(column: pd.Series, value: str | None) -> pd.Series:
    """Mask of the rows with this label; ``None`` matches a missing one."""
    return column.isna() if value is None else column == value
