"""What every figure is drawn with: canvas, series, legend, and the SVG that becomes part of the page.

matplotlib draws; the SVG is then made a citizen of the page: colours become CSS variables (so that a dark page shows
light ink), text stays text in the page's own font, and identifiers are made unique to the figure.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from html import escape
from typing import TYPE_CHECKING, Any, ParamSpec

from harness.schema import PHASES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

P = ParamSpec("P")

# Placeholder colours matplotlib draws with, and the CSS variables they become (values in templates/style.css).
INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", PAPER: "--paper"}
SERIES = tuple(f"#0500{i:02x}" for i in range(1, 8))
_VARIABLES |= {colour: f"--s{i}" for i, colour in enumerate(SERIES, 1)}
PHASE_COLOURS = {phase: f"#0600{i:02x}" for i, phase in enumerate(PHASES, 1)}
_VARIABLES |= {colour: f"--p{i}" for i, colour in enumerate(PHASE_COLOURS.values(), 1)}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")

# Inches, 72 units each in the SVG: at the full width of the page the type has the size of the text around it.
_WIDTH = 11.5
SIZE = 9


@dataclass(frozen=True)
class Figure:
    """A figure for the page: SVG markup, an alternative text that says what it shows, and a caption."""

    name: str
    svg: str
    alt: str
    caption: str


def plain_text(draw: Callable[P, Figure | None]) -> Callable[P, Figure | None]:
    """Labels are names out of a suite: a dollar sign in one is no formula."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure | None:
        import matplotlib as mpl

        with mpl.rc_context({"text.parse_math": False}):
            return draw(*args, **kwargs)

    return drawn


def canvas(height: float, left: float, right: float = 0.15, top: float = 0.3, bottom: float = 0.5) -> tuple[Any, Any]:
    """A figure with margins in inches, and its axes."""
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(_WIDTH, height))
    figure.patch.set_alpha(0)
    box = (left / _WIDTH, bottom / height, 1 - (left + right) / _WIDTH, 1 - (top + bottom) / height)
    axes = figure.add_axes(box)
    _dress(axes)
    return figure, axes


def _dress(axes: Axes) -> None:
    """The look of every panel: a base line, a faint grid behind the data, nothing else."""
    axes.patch.set_alpha(0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelcolor=MUTED, labelsize=SIZE, length=3)
    axes.tick_params(axis="y", length=0)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def series_style(index: int) -> tuple[str, str]:
    """Colour and marker of a series; pairs repeat only after their product."""
    return SERIES[index % len(SERIES)], _MARKERS[index % len(_MARKERS)]


def _columns(names: Sequence[str], most: int = 5) -> int:
    """How many legend columns the longest name leaves room for."""
    width = 0.45 + 0.075 * max((len(name) for name in names), default=0)
    return max(1, min(most, int(_WIDTH / width)))


def shortened(name: str, room: int = 34) -> str:
    return name if len(name) <= room else name[: room - 1] + "…"


def legend(figure: Canvas, axes: Axes, most: int = 5) -> None:
    handles, names = axes.get_legend_handles_labels()
    columns = _columns(names, most)
    drawn = figure.legend(
        handles,
        names,
        loc="lower left",
        bbox_to_anchor=(0.0, 0.0),
        ncols=columns,
        frameon=False,
        fontsize=SIZE,
        labelcolor=INK,
        handletextpad=0.4,
        columnspacing=1.6,
        borderaxespad=0,
    )
    drawn.set_in_layout(False)


def legend_height(names: Sequence[str], most: int = 5) -> float:
    """Inches below the axes: tick labels, axis title and the rows of the legend."""
    return 0.62 + 0.225 * -(-len(names) // _columns(names, most))


def finish(figure: Canvas, name: str, alt: str, caption: str) -> Figure:
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


def split(figure: Canvas, first: Axes, shared: bool = True) -> list[Axes]:
    """Two panels in the place of one; ``shared``: they share the vertical axis, else each has one of its own."""
    box = first.get_position()
    gap = (0.25 if shared else 0.6) / _WIDTH
    width = (box.width - gap) / 2
    first.set_position((box.x0, box.y0, width, box.height))
    place = (box.x0 + width + gap, box.y0, width, box.height)
    second = figure.add_axes(place, sharey=first if shared else None)
    _dress(second)
    second.tick_params(axis="y", labelleft=not shared)
    return [first, second]


def lower(figure: Canvas, axes: Axes, height: float, gap: float) -> Axes:
    """A second panel cut off the bottom of one, ``height`` and ``gap`` in inches; they share the horizontal axis."""
    box, inch = axes.get_position(), 1 / figure.get_figheight()
    taken = (height + gap) * inch
    axes.set_position((box.x0, box.y0 + taken, box.width, box.height - taken))
    below = figure.add_axes((box.x0, box.y0, box.width, height * inch), sharex=axes)
    _dress(below)
    axes.tick_params(axis="x", labelbottom=False)
    return below


def log_axis(axes: Axes, title: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.3, high * 1.3)
    wide = high / low > 300
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: _tick(v)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=0)
    axes.set_xlabel(title, fontsize=SIZE, color=MUTED, labelpad=4)


def _tick(value: float) -> str:
    for size, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{prefix}"
    return f"{value:g}"


def slug(name: str | None) -> str:
    return re.sub(r"[^a-z0-9]+", "-", (name or "none").lower()).strip("-") or "data"
