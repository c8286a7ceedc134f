"""Figures as inline SVG: deterministic, readable in dark and light, and in no need of colour vision.

A series differs by the shape of its marker as well as by its colour; a hollow marker means that the row carries a
training note.  Where variants × deployments are too many for a figure, one deployment of every variant stands for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.schema import MODALITIES, PHASES
from reports import text
from reports.board import LeaderboardRow, labels, places, timing_at
from reports.drawing import (
    INK,
    MUTED,
    PAPER,
    PHASE_COLOURS,
    SIZE,
    Figure,
    canvas,
    finish,
    legend,
    legend_height,
    log_axis,
    plain_text,
    series_style,
    shortened,
    slug,
    split,
)
from reports.places import Place, place, place_names
from reports.tables.common import none_if_missing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas


# Rows of a scatter or dot plot, and bars, above which a figure shows less than everything.
CROWDED = 16
CROWDED_BARS = 40


@dataclass(frozen=True)
class _Series:
    """A row in a figure; ``small``: one of many deployments of a variant that another row stands for."""

    row: LeaderboardRow
    label: str
    colour: str
    marker: str
    small: bool = False

    @property
    def look(self) -> dict[str, Any]:
        """How a marker is drawn; hollow with a training note."""
        fill = "none" if self.row.note else self.colour
        return {"color": self.colour, "marker": self.marker, "mfc": fill, "ls": "none"}


def _series(rows: Sequence[LeaderboardRow], main: str | None) -> list[_Series]:
    """All rows with a style of their own; if they are too many, a style a variant."""
    if len(rows) <= CROWDED:
        named = zip(labels(rows), rows, strict=True)
        return [_Series(r, _flagged(n, r.flag), *series_style(i)) for i, (n, r) in enumerate(named)]
    chosen = _chosen(rows, main)
    order = list(dict.fromkeys(row.variant for row in rows))
    return [
        _Series(r, _flagged(r.variant, r.flag), *series_style(order.index(r.variant)), r is not chosen[r.variant])
        for r in rows
    ]


def _chosen(rows: Sequence[LeaderboardRow], main: str | None) -> dict[str, LeaderboardRow]:
    """The row that stands for each variant: the main deployment, else the first there is."""
    chosen: dict[str, LeaderboardRow] = {}
    for row in rows:
        if row.variant not in chosen or row.deployment == main:
            chosen[row.variant] = row
    return chosen


def _flagged(label: str, flag: str) -> str:
    return f"{label} (flagged)" if flag else label


def _cost(row: LeaderboardRow, cost: Place | None) -> float | None:
    """Wall time in a place; FLOPs for ``None``."""
    if cost is None:
        return row.flops
    timing = timing_at(row, cost)
    return None if timing is None else timing.wall


@plain_text
def accuracy_cost(board: Sequence[LeaderboardRow], dataset: str | None, main: str | None = None) -> Figure | None:
    """DSC (strict, macro) over FLOPs and over wall time, side by side; ``None`` if no row has both.

    ``main``: the deployment that stands for a variant where there are too many.
    """
    rows = [row for row in board if row.dataset == dataset]
    names = places(rows)
    walls = [p for p in names if any(r.dsc is not None and _cost(r, p) for r in rows)]
    costs = [c for c in (None, *walls[:1]) if any(r.dsc is not None and _cost(r, c) for r in rows)]
    if not costs:
        return None
    # The small ones first, so that none lies over the one that stands for its variant.
    shown = sorted((s for s in _series(rows, main) if _plotted(s.row, costs)), key=lambda s: not s.small)
    large = [s for s in shown if not s.small]
    bottom = legend_height([s.label for s in large])
    figure, first = canvas(2.5 + bottom, 0.5, top=0.3, bottom=bottom)
    panels = [first] if len(costs) == 1 else split(figure, first)
    for axes, cost in zip(panels, costs, strict=True):
        for s in shown:
            x = _cost(s.row, cost)
            if x and s.row.dsc is not None:
                size: dict[str, Any] = {"ms": 4, "mew": 0.8} if s.small else {"ms": 8, "mew": 1.6}
                axes.plot([x], [s.row.dsc], clip_on=False, **s.look, **size)
        log_axis(axes, "FLOPs, one image and one box" if cost is None else f"Wall time, {names[cost]} (s)")
        axes.set_ylim(0, 1)
    first.set_title("DSC, strict, macro average", loc="left", fontsize=SIZE, color=MUTED, pad=8)
    _complete_legend(figure, panels[0], large)
    points = ", ".join(f"{s.label} {text.score(s.row.dsc)}" for s in large)
    alt = f"Scatter plot of DSC (strict, macro average) over cost. {points}."
    caption = "Up and left is better. Hollow markers: the row carries a training note. Cost axes are logarithmic."
    if len(large) < len(shown):
        caption += f" Small markers: deployments of a variant other than {_main(main)}; their values are in the table."
    return finish(figure, f"cost-{slug(dataset)}", alt, caption)


def _main(main: str | None) -> str:
    return main or "its first"


def _plotted(row: LeaderboardRow, costs: Sequence[Place | None]) -> bool:
    return row.dsc is not None and any(_cost(row, c) for c in costs)


def _complete_legend(figure: Canvas, axes: Axes, shown: Sequence[_Series]) -> None:
    """Legend of all rows, also of those that one of the panels lacks."""
    from matplotlib.lines import Line2D

    for s in shown:
        axes.add_line(Line2D([], [], mew=1.6, ms=7, label=s.label, **s.look))
    legend(figure, axes)


@plain_text
def modality_dots(
    table: pd.DataFrame, board: Sequence[LeaderboardRow], dataset: str | None, main: str | None = None
) -> Figure | None:
    """DSC (strict) per modality, a dot a row; ``table``: `reports.tables.accuracy_by_modality`.

    ``main``: the deployment that stands for a variant where there are too many.
    """
    part = table[(table["metric"] == "dsc") & (table["protocol"] == "strict") & table["value"].notna()]
    part = part[part["dataset"].isna() if dataset is None else part["dataset"] == dataset]
    if part.empty:
        return None
    every = _series([row for row in board if row.dataset == dataset], main)
    shown = [s for s in every if s.row.dsc is not None and not s.small]
    names = [m for m in MODALITIES if m in set(part["modality"])]
    names += sorted(set(part["modality"]) - set(names))
    bottom = legend_height([s.label for s in shown])
    figure, axes = canvas(0.3 * len(names) + 0.35 + bottom, 1.15, top=0.15, bottom=bottom)
    for s in shown:
        mine = part[(part["variant"] == s.row.variant)]
        mine = mine[mine["deployment"].isna() if s.row.deployment is None else mine["deployment"] == s.row.deployment]
        values = dict(zip(mine["modality"], mine["value"], strict=True))
        rows = [i for i, m in enumerate(names) if m in values]
        axes.plot([values[names[i]] for i in rows], rows, mew=1.5, ms=7, label=s.label, clip_on=False, **s.look)
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("DSC, strict, mean over cases", fontsize=SIZE, color=MUTED, labelpad=4)
    legend(figure, axes)
    alt = f"Dot plot of DSC (strict) of {text.plural(len(shown), 'row')} on {len(names)} modalities."
    caption = (
        "Mean over the cases of a modality. Hollow markers: the row carries a training note. Values in the table above."
    )
    if any(s.small for s in every):
        caption += f" Shown of every variant: {_main(main)}."
    return finish(figure, f"dots-{slug(dataset)}", alt, caption)


_BAR = ["variant", "deployment", "sandbox", "protocol", "dataset"]


@plain_text
def phase_bars(table: pd.DataFrame, several: bool, main: str | None = None) -> Figure | None:
    """Mean seconds of a cold run, stacked by phase; ``table``: `reports.tables.phases`.

    ``several``: whether deployments differ and belong into the labels; ``main``: the deployment that stands for a
    variant where there are too many.
    """
    if table.empty:
        return None
    fewer = _of_one_deployment(table, main) if table[_BAR].drop_duplicates().shape[0] > CROWDED_BARS else table
    rows = list(fewer.groupby(_BAR, sort=False, dropna=False))
    names = _bar_names(rows, several)
    used = [p for p in PHASES if p in set(fewer["phase"])]
    left = min(3.7, 0.3 + 0.075 * max(len(n) for n in names))
    bottom = legend_height(used, 6)
    figure, axes = canvas(0.32 * len(rows) + 0.3 + bottom, left, right=0.55, top=0.1, bottom=bottom)
    times = [dict(zip(part["phase"], part["seconds"], strict=True)) for _, part in rows]
    totals = [0.0] * len(rows)
    for phase in used:
        widths = [max(0.0, float(seconds.get(phase, 0.0))) for seconds in times]
        look: dict[str, Any] = {"color": PHASE_COLOURS[phase], "edgecolor": PAPER, "linewidth": 0.7, "label": phase}
        axes.barh(range(len(rows)), widths, 0.66, left=totals, **look)
        totals = [total + width for total, width in zip(totals, widths, strict=True)]
    for height, total in enumerate(totals):
        at: dict[str, Any] = {"textcoords": "offset points", "va": "center", "color": INK, "size": SIZE}
        axes.annotate(text.seconds(total), (total, height), (5, 0), **at)
    axes.set_yticks(range(len(rows)), names)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("Seconds a cold run, mean over cases", fontsize=SIZE, color=MUTED, labelpad=4)
    legend(figure, axes, 6)
    said = ", ".join(f"{n} {text.seconds(t)} s" for n, t in zip(names, totals, strict=True))
    caption = (
        "Mean over the repeats of the cases that were ok; the parts of a bar add up to its total. Lower is better."
    )
    if len(fewer) < len(table):
        caption += f" Shown of every variant: {_main(main)}; all others in the table of phases."
    return finish(figure, "phases", f"Stacked bars of the phases of a cold run. Totals: {said}.", caption)


def _of_one_deployment(table: pd.DataFrame, main: str | None) -> pd.DataFrame:
    """The rows of the main deployment; of the first one of a variant that lacks it."""
    has = set(table.loc[table["deployment"] == main, "variant"])
    first = table.groupby("variant", sort=False)["deployment"].transform("first")
    return table[(table["deployment"] == main) | (~table["variant"].isin(has) & (table["deployment"] == first))]


def _bar_names(rows: Sequence[tuple[Any, pd.DataFrame]], several: bool) -> list[str]:
    """Variant, deployment, place and data set, as far as they differ; a warning is not cut off."""
    where = place_names(place(key[2], key[3]) for key, _ in rows)
    many = len({key[4] for key, _ in rows}) > 1
    names = []
    for key, part in rows:
        variant, deployment, dataset = (none_if_missing(key[i]) for i in (0, 1, 4))
        words = (variant, deployment if several else None, where[place(key[2], key[3])], dataset if many else None)
        flag = str(part["flag"].iloc[0])
        name = " · ".join(str(w) for w in words if w)
        names.append(_flagged(shortened(name, 38 if flag else 48), flag))
    return names
