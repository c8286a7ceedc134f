"""Figures as inline SVG: deterministic, readable in dark and light, and in no need of colour vision.

matplotlib draws; the SVG is then made a citizen of the page: colours become CSS variables (so that a dark page shows
light ink), text stays text in the page's own font, and identifiers are made unique to the figure.  A series differs by
the shape of its marker as well as by its colour; a hollow marker means that the row carries a training note.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from html import escape
from typing import TYPE_CHECKING, Any, ParamSpec

import pandas as pd

from harness.schema import MODALITIES, PHASES
from reports import text
from reports.leaderboard import LeaderboardRow, labels, places, timing_at
from reports.places import Place, place, place_names
from reports.tables.common import none_if_missing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

P = ParamSpec("P")

# Placeholder colours matplotlib draws with, and the CSS variables they become (values in templates/style.css).
_INK, _MUTED, _GRID, _PAPER = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _GRID: "--line", _PAPER: "--paper"}
_SERIES = tuple(f"#0500{i:02x}" for i in range(1, 8))
_VARIABLES |= {colour: f"--s{i}" for i, colour in enumerate(_SERIES, 1)}
_PHASE_COLOURS = {phase: f"#0600{i:02x}" for i, phase in enumerate(PHASES, 1)}
_VARIABLES |= {colour: f"--p{i}" for i, colour in enumerate(_PHASE_COLOURS.values(), 1)}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")

# Inches, 72 units each in the SVG: at the full width of the page the type has the size of the text around it.
_WIDTH = 11.5
_SIZE = 9


@dataclass(frozen=True)
class Figure:
    """A figure for the page: SVG markup, an alternative text that says what it shows, and a caption."""

    name: str
    svg: str
    alt: str
    caption: str


def _plain_text(draw: Callable[P, Figure | None]) -> Callable[P, Figure | None]:
    """Labels are names out of a suite: a dollar sign in one is no formula."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure | None:
        import matplotlib as mpl

        with mpl.rc_context({"text.parse_math": False}):
            return draw(*args, **kwargs)

    return drawn


def _canvas(height: float, left: float, right: float = 0.15, top: float = 0.3, bottom: float = 0.5) -> tuple[Any, Any]:
    """A figure with margins in inches, and its axes."""
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(_WIDTH, height))
    figure.patch.set_alpha(0)
    box = (left / _WIDTH, bottom / height, 1 - (left + right) / _WIDTH, 1 - (top + bottom) / height)
    axes = figure.add_axes(box)
    axes.patch.set_alpha(0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_MUTED)
    axes.tick_params(colors=_MUTED, labelcolor=_MUTED, labelsize=_SIZE, length=3)
    axes.tick_params(axis="y", length=0)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _style(index: int) -> tuple[str, str]:
    """Colour and marker of a series; pairs repeat only after their product."""
    return _SERIES[index % len(_SERIES)], _MARKERS[index % len(_MARKERS)]


def _columns(names: Sequence[str], most: int = 5) -> int:
    """How many legend columns the longest name leaves room for."""
    width = 0.45 + 0.075 * max((len(name) for name in names), default=0)
    return max(1, min(most, int(_WIDTH / width)))


def _shortened(name: str, room: int = 34) -> str:
    return name if len(name) <= room else name[: room - 1] + "…"


def _legend(figure: Canvas, axes: Axes, most: int = 5) -> None:
    handles, names = axes.get_legend_handles_labels()
    columns = _columns(names, most)
    legend = figure.legend(
        handles,
        names,
        loc="lower left",
        bbox_to_anchor=(0.0, 0.0),
        ncols=columns,
        frameon=False,
        fontsize=_SIZE,
        labelcolor=_INK,
        handletextpad=0.4,
        columnspacing=1.6,
        borderaxespad=0,
    )
    legend.set_in_layout(False)


def _legend_height(names: Sequence[str], most: int = 5) -> float:
    """Inches below the axes: tick labels, axis title and the rows of the legend."""
    return 0.62 + 0.225 * -(-len(names) // _columns(names, most))


def _finish(figure: Canvas, name: str, alt: str, caption: str) -> Figure:
    import matplotlib as mpl

    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "path.simplify": True}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Figure(name, _inline(out.getvalue(), name, alt), alt, caption)


def _inline(svg: str, name: str, alt: str) -> str:
    """The drawing without prologue, metadata and namespaces, coloured by CSS variables."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"\s*xmlns(:\w+)?=\"[^\"]*\"", "", body).replace("xlink:href=", "href=")
    body = re.sub(r"(id=\"|href=\"#|url\(#)", rf"\g<1>{name}-", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    # Of matplotlib's fonts the sizes stay; the page chooses the family.
    body = re.sub(r"font: (?:[\w ]*? )?([\d.]+)px [^;\"]*", r"font-size: \1px", body)
    body = re.sub(r"font-family: [^;\"]*(; )?", "", body)
    body = re.sub(r"\n\s*\n", "\n", body)
    head = re.match(r"<svg[^>]*>", body)
    assert head is not None
    view = re.search(r"viewBox=\"([^\"]*)\"", head.group())
    assert view is not None
    opening = f'<svg viewBox="{view.group(1)}" role="img" aria-labelledby="{name}-title">'
    return f'{opening}<title id="{name}-title">{escape(alt)}</title>{body[head.end() :].strip()}'


def _cost(row: LeaderboardRow, cost: Place | None) -> float | None:
    """Wall time in a place; FLOPs for ``None``."""
    if cost is None:
        return row.flops
    timing = timing_at(row, cost)
    return None if timing is None else timing.wall


@_plain_text
def accuracy_cost(board: Sequence[LeaderboardRow], dataset: str | None) -> Figure | None:
    """DSC (strict, macro) over FLOPs and over wall time, side by side; ``None`` if no row has both."""
    rows = [row for row in board if row.dataset == dataset]
    names = places(rows)
    walls = [p for p in names if any(r.dsc is not None and _cost(r, p) for r in rows)]
    costs = [c for c in (None, *walls[:1]) if any(r.dsc is not None and _cost(r, c) for r in rows)]
    if not costs:
        return None
    shown = [(i, n, r) for i, (n, r) in enumerate(zip(labels(rows), rows, strict=True)) if _plotted(r, costs)]
    bottom = _legend_height([name for _, name, _ in shown])
    figure, first = _canvas(2.5 + bottom, 0.5, top=0.3, bottom=bottom)
    panels = [first] if len(costs) == 1 else _split(figure, first)
    for axes, cost in zip(panels, costs, strict=True):
        for index, label, row in shown:
            x = _cost(row, cost)
            if x and row.dsc is not None:
                colour, marker = _style(index)
                fill = "none" if row.note else colour
                axes.plot(
                    [x], [row.dsc], marker, color=colour, mfc=fill, mew=1.6, ms=8, ls="none", label=label, clip_on=False
                )
        _log_axis(axes, "FLOPs, one image and one box" if cost is None else f"Wall time, {names[cost]} (s)")
        axes.set_ylim(0, 1)
    first.set_title("DSC, strict, macro average", loc="left", fontsize=_SIZE, color=_MUTED, pad=8)
    _complete_legend(figure, panels[0], shown, bottom)
    points = ", ".join(f"{label} {text.score(row.dsc)}" for _, label, row in shown)
    alt = f"Scatter plot of DSC (strict, macro average) over cost. {points}."
    caption = "Up and left is better. Hollow markers: the row carries a training note. Cost axes are logarithmic."
    return _finish(figure, f"cost-{_slug(dataset)}", alt, caption)


def _plotted(row: LeaderboardRow, costs: Sequence[Place | None]) -> bool:
    return row.dsc is not None and any(_cost(row, c) for c in costs)


def _split(figure: Canvas, first: Axes) -> list[Axes]:
    """Two panels in the place of one, sharing the vertical axis."""
    box = first.get_position()
    gap = 0.25 / _WIDTH
    width = (box.width - gap) / 2
    first.set_position((box.x0, box.y0, width, box.height))
    second = figure.add_axes((box.x0 + width + gap, box.y0, width, box.height), sharey=first)
    second.patch.set_alpha(0)
    for side in ("top", "right", "left"):
        second.spines[side].set_visible(False)
    second.spines["bottom"].set_color(_MUTED)
    second.tick_params(colors=_MUTED, labelcolor=_MUTED, labelsize=_SIZE, length=3)
    second.tick_params(axis="y", length=0, labelleft=False)
    second.grid(color=_GRID, linewidth=0.8)
    return [first, second]


def _log_axis(axes: Axes, title: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.3, high * 1.3)
    wide = high / low > 300
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: _tick(v)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=0)
    axes.set_xlabel(title, fontsize=_SIZE, color=_MUTED, labelpad=4)


def _tick(value: float) -> str:
    for size, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{prefix}"
    return f"{value:g}"


def _complete_legend(figure: Canvas, axes: Axes, shown: Sequence[tuple[int, str, LeaderboardRow]], room: float) -> None:
    """Legend of all rows, also of those that one of the panels lacks."""
    from matplotlib.lines import Line2D

    handles = []
    for index, label, row in shown:
        colour, marker = _style(index)
        fill = "none" if row.note else colour
        handles.append(Line2D([], [], color=colour, marker=marker, mfc=fill, mew=1.6, ms=7, ls="none", label=label))
    for line in list(axes.get_lines()):
        line.set_label("_")
    for handle in handles:
        axes.add_line(handle)
    _legend(figure, axes)


@_plain_text
def modality_dots(table: pd.DataFrame, board: Sequence[LeaderboardRow], dataset: str | None) -> Figure | None:
    """DSC (strict) per modality, a dot a row; ``table``: `reports.tables.accuracy_by_modality`."""
    part = table[(table["metric"] == "dsc") & (table["protocol"] == "strict") & table["value"].notna()]
    part = part[part["dataset"].isna() if dataset is None else part["dataset"] == dataset]
    if part.empty:
        return None
    rows = [row for row in board if row.dataset == dataset]
    shown = [(i, n, r) for i, (n, r) in enumerate(zip(labels(rows), rows, strict=True)) if r.dsc is not None]
    names = [m for m in MODALITIES if m in set(part["modality"])]
    names += sorted(set(part["modality"]) - set(names))
    bottom = _legend_height([name for _, name, _ in shown])
    figure, axes = _canvas(0.3 * len(names) + 0.35 + bottom, 1.15, top=0.15, bottom=bottom)
    for index, label, row in shown:
        mine = part[(part["variant"] == row.variant)]
        mine = mine[mine["deployment"].isna() if row.deployment is None else mine["deployment"] == row.deployment]
        values = dict(zip(mine["modality"], mine["value"], strict=True))
        places = [i for i, m in enumerate(names) if m in values]
        colour, marker = _style(index)
        fill = "none" if row.note else colour
        x = [values[names[i]] for i in places]
        axes.plot(x, places, marker, color=colour, mfc=fill, mew=1.5, ms=7, ls="none", label=label, clip_on=False)
    axes.set_yticks(range(len(names)), names, color=_INK)
    axes.tick_params(axis="y", labelcolor=_INK)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("DSC, strict, mean over cases", fontsize=_SIZE, color=_MUTED, labelpad=4)
    _legend(figure, axes)
    alt = f"Dot plot of DSC (strict) of {text.plural(len(shown), 'row')} on {len(names)} modalities."
    caption = (
        "Mean over the cases of a modality. Hollow markers: the row carries a training note. Values in the table above."
    )
    return _finish(figure, f"dots-{_slug(dataset)}", alt, caption)


@_plain_text
def phase_bars(table: pd.DataFrame, several: bool) -> Figure | None:
    """Mean seconds of a cold run, stacked by phase; ``table``: `reports.tables.phases`.

    ``several``: whether deployments differ and belong into the labels.
    """
    if table.empty:
        return None
    rows = list(table.groupby(["variant", "deployment", "sandbox", "protocol", "dataset"], sort=False, dropna=False))
    where = place_names(place(key[2], key[3]) for key, _ in rows)
    many = table["dataset"].nunique() > 1
    used = [p for p in PHASES if p in set(table["phase"])]
    names = []
    for key, _ in rows:
        variant, deployment, dataset = (none_if_missing(key[i]) for i in (0, 1, 4))
        words = (variant, deployment if several else None, where[place(key[2], key[3])], dataset if many else None)
        names.append(_shortened(" · ".join(str(w) for w in words if w), 48))
    left = min(3.7, 0.3 + 0.075 * max(len(n) for n in names))
    bottom = _legend_height(used, 6)
    figure, axes = _canvas(0.32 * len(rows) + 0.3 + bottom, left, right=0.55, top=0.1, bottom=bottom)
    times = [dict(zip(part["phase"], part["seconds"], strict=True)) for _, part in rows]
    totals = [0.0] * len(rows)
    for phase in used:
        widths = [max(0.0, float(seconds.get(phase, 0.0))) for seconds in times]
        style: dict[str, Any] = {"color": _PHASE_COLOURS[phase], "edgecolor": _PAPER, "linewidth": 0.7, "label": phase}
        axes.barh(range(len(rows)), widths, 0.66, left=totals, **style)
        totals = [total + width for total, width in zip(totals, widths, strict=True)]
    for height, total in enumerate(totals):
        axes.annotate(
            text.seconds(total),
            (total, height),
            (5, 0),
            textcoords="offset points",
            va="center",
            color=_INK,
            size=_SIZE,
        )
    axes.set_yticks(range(len(rows)), names)
    axes.tick_params(axis="y", labelcolor=_INK)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("Seconds a cold run, mean over cases", fontsize=_SIZE, color=_MUTED, labelpad=4)
    _legend(figure, axes, 6)
    said = ", ".join(f"{n} {text.seconds(t)} s" for n, t in zip(names, totals, strict=True))
    caption = (
        "Mean over the repeats of the cases that were ok; the parts of a bar add up to its total. Lower is better."
    )
    return _finish(figure, "phases", f"Stacked bars of the phases of a cold run. Totals: {said}.", caption)


@_plain_text
def training_curves(curves: pd.DataFrame) -> Figure | None:
    """Training loss over optimiser steps; ``curves``: `reports.tables.training_curves`."""
    if curves.empty:
        return None
    groups = list(curves.groupby(["variant", "seed"], sort=False))
    seeds = curves["seed"].nunique() > 1
    names = [f"{variant}, seed {seed}" if seeds else str(variant) for (variant, seed), _ in groups]
    bottom = _legend_height(names)
    figure, axes = _canvas(2.4 + bottom, 0.5, top=0.3, bottom=bottom)
    dashes = ("-", "--", ":", "-.")
    for index, (label, (_, part)) in enumerate(zip(names, groups, strict=True)):
        style = dashes[index // len(_SERIES) % len(dashes)] if len(groups) > len(_SERIES) else dashes[index % 4]
        part = part.iloc[:: max(1, len(part) // 400)]
        steps = part["step"].to_numpy(dtype=float)
        axes.plot(steps, part["loss"].to_numpy(), style, color=_style(index)[0], lw=1.6, label=label)
    axes.set_ylim(0, 1.08 * float(curves["loss"].max()) or 1)
    axes.set_title("Training loss", loc="left", fontsize=_SIZE, color=_MUTED, pad=8)
    axes.set_xlabel("Optimiser step", fontsize=_SIZE, color=_MUTED, labelpad=4)
    _legend(figure, axes)
    alt = f"Training loss over steps of {text.plural(len(groups), 'training', 'trainings')}."
    return _finish(figure, "training", alt, "Loss of the training batches, not smoothed. Lower is better.")


def _slug(name: str | None) -> str:
    return re.sub(r"[^a-z0-9]+", "-", (name or "none").lower()).strip("-") or "data"
