"""The figure of warm speed: images per second against the number of threads."""

from __future__ import annotations

from typing import Any

import pandas as pd

from reports import text
from reports.drawing import (
    INK,
    MUTED,
    SIZE,
    Figure,
    canvas,
    finish,
    legend,
    legend_height,
    plain_text,
    series_style,
    shortened,
)
from reports.tables.common import grouped

# Lines above which the figure shows one deployment of every variant.
CROWDED = 8


@plain_text
def throughput(table: pd.DataFrame, several: bool, main: str | None = None) -> Figure | None:
    """Images encoded per second over threads; ``None`` if no row has two numbers of threads.

    Args:
        table: `reports.tables.latency`.
        several: whether deployments differ and belong into the labels.
        main: the deployment that stands for a variant where there are too many lines.
    """
    known = table[table["throughput"].notna() & table["threads"].notna()]
    lines = [(key, part) for key, part in grouped(known, ["variant", "deployment"]) if len(part) > 1]
    shown = _fewer(lines, main)
    if not shown:
        return None
    named = several and len(shown) == len(lines)
    names = [shortened(f"{k['variant']} · {k['deployment']}" if named else str(k["variant"]), 48) for k, _ in shown]
    bottom = legend_height(names)
    figure, axes = canvas(2.1 + bottom, 0.5, top=0.3, bottom=bottom)
    for index, (name, (_, part)) in enumerate(zip(names, shown, strict=True)):
        colour, marker = series_style(index)
        ordered = part.sort_values("threads")
        look: dict[str, Any] = {"color": colour, "marker": marker, "ms": 7, "lw": 1.6, "label": name, "clip_on": False}
        axes.plot(ordered["threads"].to_numpy(float), ordered["throughput"].to_numpy(float), **look)
    threads = sorted({int(n) for _, part in shown for n in part["threads"]})
    axes.set_xticks(threads, [str(n) for n in threads])
    axes.set_xlim(threads[0] - 0.15, threads[-1] + 0.15)
    axes.set_ylim(0, None)
    axes.set_title("Images encoded per second, one after the other", loc="left", fontsize=SIZE, color=MUTED, pad=8)
    axes.set_xlabel("Threads", fontsize=SIZE, color=MUTED, labelpad=4)
    axes.tick_params(axis="x", labelcolor=INK)
    legend(figure, axes)
    caption = "Higher is better; twice the threads at best give twice the images."
    if len(shown) < len(lines):
        caption += f" Shown of every variant: {main or 'its first deployment'}; all others in the table above."
    return finish(figure, "throughput", f"Lines of throughput over threads of {text.listed(names)}.", caption)


def _fewer(lines: list[Any], main: str | None) -> list[Any]:
    """All lines, or one a variant: of the main deployment, else of its first."""
    if len(lines) <= CROWDED:
        return lines
    chosen: dict[object, Any] = {}
    for key, part in lines:
        if key["variant"] not in chosen or key["deployment"] == main:
            chosen[key["variant"]] = (key, part)
    return list(chosen.values())
