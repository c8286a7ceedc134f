"""`bench show NAME` for a variant or a checkpoint: what it is, on one screen.  Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from harness.measure.conventions import figures_of
from harness.protocols import LOOPS, Loop
from harness.results import Results
from variants import VariantSpec
from variants.published import PublishedFile, published_file

PREPROCESS = {
    "longest-side": "longest side to {size} (area), min-max of the image, zeros at the right and bottom",
    "gray-paper": "grey images as grey, smoothed, smoothed and equalised; colour images as they are; then longest-side",
    "gray-code": "every image as grey, smoothed grey and equalised grey; then longest-side",
    "stretch": "both sides to {size} (cubic, aspect ratio not kept), min-max of the image",
}
"""What `variants.preprocess` does to an image, in a line."""
PROMPT_RULES = {
    "paper": "drawn inside the box narrowed by shares of the image's side, as the paper says",
    "code": "drawn inside the box narrowed by shares of its own side, as the published code does",
}
"""How `variants.prompts` makes points and scribbles from a box, in a line."""
QUANTITIES = {"params": "parameters", "flops": "FLOPs"}
FIGURE_FIELDS = {"quantity", "printed", "source", "counts"}


def variant_data(spec: VariantSpec) -> dict[str, Any]:
    """All that is known about a variant without building it, JSON-serialisable."""
    file = published_file(spec)
    return {
        "name": spec.name,
        "family": spec.family,
        "summary": spec.summary,
        "source": spec.source,
        "parameters": spec.params,
        "input_size": spec.input_size,
        "preprocess": spec.preprocess,
        "prompts": list(spec.prompts),
        "prompt_rule": spec.prompt_rule,
        "loop": spec.loop,
        "needs_torch": spec.needs_torch,
        "hyperparameters": {k: list(v) if isinstance(v, tuple) else v for k, v in spec.hyperparameters.items()},
        "published_file": asdict(file) if file else None,
        "published_figures": [
            {**figure.model_dump(mode="json", include=FIGURE_FIELDS), "convention": figure.convention}
            for figure in figures_of(spec)
        ],
    }


def print_variant(spec: VariantSpec, results: Results) -> None:
    """The page of a variant: fits 80 columns and a screen."""
    console = Console()
    console.print(f"[bold]{spec.name}[/]: {spec.summary}", highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for title, text in variant_rows(spec, results):
        table.add_row(title, text)
    console.print(table, highlight=False, markup=False)


def variant_rows(spec: VariantSpec, results: Results) -> Iterator[tuple[str, str]]:
    """Title and text of each line of the page."""
    size = spec.input_size
    yield "family", spec.family
    yield "source", spec.source
    yield "parameters", "known when it is built" if spec.params is None else f"{spec.params:,}"
    yield "input", f"{size}×{size}, one image; the embedding serves all its prompts"
    yield "preprocess", f"{spec.preprocess}: {PREPROCESS[spec.preprocess].format(size=size)}"
    yield "prompts", _prompts(spec)
    yield "3D loop", f"{spec.loop}: {_loop(LOOPS[spec.loop])}" if spec.loop in LOOPS else spec.loop
    if spec.hyperparameters:
        yield "hyperparameters", ", ".join(f"{k} {_value(v)}" for k, v in spec.hyperparameters.items())
    for place, figure in enumerate(figures_of(spec)):
        yield "" if place else "published", f"{figure.printed} {QUANTITIES[figure.quantity]}: {figure.convention}"
    file = published_file(spec)
    if spec.needs_torch:
        yield "checkpoint", _file(file)
        yield "import", f"bench import {spec.name} {file.file if file and file.file else 'FILE'}"
    if (results.root / "checkpoints" / f"{spec.name}.json").is_file():
        yield "imported", f"yes: weights: {spec.name} in a suite; bench show checkpoint {spec.name}"


def _prompts(spec: VariantSpec) -> str:
    drawn = [prompt for prompt in spec.prompts if prompt != "box"]
    text = " + ".join(spec.prompts)
    return f"{text}; {spec.prompt_rule}: {PROMPT_RULES[spec.prompt_rule]}" if drawn else text


def _loop(loop: Loop) -> str:
    slices = "z_min..z_max" if loop.ends == "inclusive" else "z_min+1..z_max-1"
    mask = "the object's own mask" if loop.neighbour == "own" else "the masks of earlier objects"
    return f"slices {slices} from the middle, next box from {mask}"


def _value(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _file(file: PublishedFile | None) -> str:
    if file is None:
        return "none published; a plain state dict"
    wrapped = "plain state dict" if file.wrap is None else f"state dict under {file.wrap!r}"
    parts = [file.file or "none published", wrapped, file.source, file.note]
    return "; ".join(part for part in parts if part)
