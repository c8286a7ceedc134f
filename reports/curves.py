"""The figure of the course of training: losses over steps, and the learning rate where it changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports import text
from reports.drawing import (
    MUTED,
    PAPER,
    SERIES,
    SIZE,
    Figure,
    canvas,
    finish,
    legend,
    legend_height,
    lower,
    plain_text,
    series_style,
    shortened,
    split,
)
from reports.training import DISTIL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHES = ("-", "--", ":", "-.")
_MOST, _FEWEST, _ALL = 400, 100, 2400
"""Points of a curve, since more are not to be told apart at this width; of one of very many; of all together."""
_MARKERS = 20
"""Markers on a curve, about."""
_FEW_MARKS = 3
_DEEPEST = 1000
"""How far below its highest value a learning rate is followed."""
_VALIDATION = "validation loss"


@dataclass(frozen=True)
class _Look:
    """How the curves of one training, all its stages, are drawn."""

    label: str
    colour: str
    dash: str
    marker: str


_Looks = dict[tuple[Any, Any], _Look]
"""By name and seed."""


@plain_text
def training_curves(curves: pd.DataFrame) -> Figure | None:
    """Losses over optimiser steps; ``curves``: `reports.tables.training_curves`.

    Distillation has a panel of its own, since its loss is another; all other stages follow one another in one panel.
    The learning rate stands below where any changes.
    """
    if not (curves["metric"] == "train_loss").any():
        return None
    looks = _looks(curves)
    imitates = curves["stage"] == DISTIL
    panels = [(title, part) for title, part in _titled(curves, imitates) if not part.empty]
    validated = bool((curves["metric"] == "validation_loss").any())
    names = [look.label for look in looks.values()] + ([_VALIDATION] if validated else [])
    varies = _varies(curves)
    bottom = legend_height(names)
    figure, first = canvas(2.4 + (0.95 if varies else 0) + bottom, 0.5, top=0.3, bottom=bottom)
    axes = split(figure, first, shared=False) if len(panels) > 1 else [first]
    below = [lower(figure, one, 0.6, 0.35) for one in axes] if varies else axes
    for (title, part), loss, lowest in zip(panels, axes, below, strict=True):
        _losses(loss, part, looks)
        _stage_marks(loss, part)
        loss.set_title(title, loc="left", fontsize=SIZE, color=MUTED, pad=8)
        if varies:
            _learning_rates(lowest, part, looks)
        lowest.set_xlabel("Optimiser step", fontsize=SIZE, color=MUTED, labelpad=4)
    _legend_entries(axes[0], looks, validated)
    legend(figure, axes[0])
    said = f"Training loss over steps of {text.plural(len(looks), 'training', 'trainings')}."
    return finish(figure, "training", f"{said}{_further(validated, varies)}", _caption(curves, panels, validated))


def _titled(curves: pd.DataFrame, imitates: pd.Series) -> list[tuple[str, pd.DataFrame]]:
    whole = "Segmentation loss" if imitates.any() else "Training loss"
    return [("Imitation loss of distillation", curves[imitates]), (whole, curves[~imitates])]


def _looks(curves: pd.DataFrame) -> _Looks:
    """A style a training."""
    keys = list(dict.fromkeys(zip(curves["variant"], curves["seed"], strict=True)))
    seeds = curves["seed"].nunique() > 1
    looks: _Looks = {}
    for index, (variant, seed) in enumerate(keys):
        dash = _DASHES[index // len(SERIES) % 4] if len(keys) > len(SERIES) else _DASHES[index % 4]
        label = f"{shortened(str(variant))}, seed {seed}" if seeds else shortened(str(variant))
        colour, marker = series_style(index)
        looks[variant, seed] = _Look(label, colour, dash, marker)
    return looks


def _losses(axes: Axes, part: pd.DataFrame, looks: _Looks) -> None:
    """Losses of the batches as lines, of the validation as markers on a dotted line of the same colour."""
    for (variant, seed, _, metric), one in part.groupby(["variant", "seed", "start", "metric"], sort=False):
        look = looks[variant, seed]
        steps, values = _points(one, len(looks))
        if metric == "train_loss":
            axes.plot(steps, values, look.dash, color=look.colour, lw=1.6 if len(looks) <= len(SERIES) else 1.0)
        elif metric == "validation_loss":
            every = max(1, len(steps) // _MARKERS)
            hollow: dict[str, Any] = {"mfc": PAPER, "mew": 1.2, "ms": 4.5, "zorder": 3, "markevery": every}
            axes.plot(steps, values, ":", color=look.colour, lw=1, marker=look.marker, **hollow)
    losses = part.loc[part["metric"] != "learning_rate", "value"]
    axes.set_ylim(0, 1.08 * float(losses.max()) or 1)


def _points(one: pd.DataFrame, curves: int) -> tuple[Any, Any]:
    """Steps, counted through the stages of a panel, and values of one curve, as many as can be seen."""
    most = max(_FEWEST, min(_MOST, _ALL // curves))
    one = one.iloc[:: max(1, -(-len(one) // most))]
    return (one["start"] + one["step"]).to_numpy(dtype=float), one["value"].to_numpy(dtype=float)


def _stage_marks(axes: Axes, part: pd.DataFrame) -> None:
    """A thin line where a stage follows another; its kind beside it, where there are few."""
    begins = part[part["start"] > 0].drop_duplicates(["start", "stage"])
    for start, stage in zip(begins["start"], begins["stage"], strict=True):
        axes.axvline(start, color=MUTED, lw=0.7, dashes=(2, 2))
        if len(begins) <= _FEW_MARKS:
            at: dict[str, Any] = {"textcoords": "offset points", "xycoords": ("data", "axes fraction"), "va": "top"}
            axes.annotate(stage, (start, 1), (4, 0), color=MUTED, size=SIZE - 1, **at)


def _learning_rates(axes: Axes, part: pd.DataFrame, looks: _Looks) -> None:
    rates = part[(part["metric"] == "learning_rate") & (part["value"] > 0)]
    for (variant, seed, _), one in rates.groupby(["variant", "seed", "start"], sort=False):
        look = looks[variant, seed]
        axes.plot(*_points(one, len(looks)), look.dash, color=look.colour, lw=1.3)
    if len(rates):
        _log_rates(axes, float(rates["value"].min()), float(rates["value"].max()))
    axes.set_title("Learning rate", loc="left", fontsize=SIZE, color=MUTED, pad=4)


def _log_rates(axes: Axes, low: float, high: float) -> None:
    """A logarithmic vertical axis; of a rate that falls to nothing the last part runs out of the panel."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low = max(low, high / _DEEPEST)
    axes.set_yscale("log")
    axes.set_ylim(low / 1.5, high * 1.5)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 5 else (1.0, 2.0, 5.0), numticks=4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: text.power(rate)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", which="minor", length=0)


def _varies(curves: pd.DataFrame) -> bool:
    """Whether the learning rate of any stage changes."""
    rates = curves[curves["metric"] == "learning_rate"]
    return bool((rates.groupby(["variant", "seed", "stage", "start"])["value"].nunique() > 1).any())


def _legend_entries(axes: Axes, looks: _Looks, validated: bool) -> None:
    """An entry a training, also for those that a panel lacks; one explains the markers."""
    from matplotlib.lines import Line2D

    for look in looks.values():
        axes.add_line(Line2D([], [], color=look.colour, ls=look.dash, lw=1.6, label=look.label))
    if validated:
        marker: dict[str, Any] = {"marker": "o", "mfc": PAPER, "mew": 1.2, "ms": 4.5}
        axes.add_line(Line2D([], [], color=MUTED, ls=":", lw=1, label=_VALIDATION, **marker))


def _further(validated: bool, varies: bool) -> str:
    more = [name for name, there in (("the losses of validation", validated), ("the learning rates", varies)) if there]
    return f" Also {text.listed(more)}." if more else ""


def _caption(curves: pd.DataFrame, panels: list[tuple[str, pd.DataFrame]], validated: bool) -> str:
    said = ["Loss of the training batches, not smoothed. Lower is better."]
    if validated:
        said.append("Markers on a dotted line: loss of the cases kept for validation.")
    if len(panels) > 1:
        said.append("The two losses are different quantities; each panel has a scale of its own.")
    if (curves["start"] > 0).any():
        said.append("A vertical line: the next stage begins, and its steps count on.")
    return " ".join(said)
