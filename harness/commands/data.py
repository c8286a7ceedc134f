"""`bench data make` and `bench data inspect`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from harness.config import FolderData, PhantomData
from harness.data import open_dataset
from harness.data.inspect import Row, contact_sheet, inspect, make
from harness.errors import BenchError


def make_phantoms(folder: str, fields: dict[str, Any]) -> None:
    """Generate phantoms into a new or empty folder.

    Raises:
        BenchError: the folder holds something already.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BenchError(f"{folder} exists and is not an empty folder; name a new one.")
    spec = PhantomData(**fields)
    console = Console(stderr=True)
    with Progress(TextColumn("{task.description}"), BarColumn(), console=console, transient=True) as bar:
        task = bar.add_task("phantoms", total=1.0)
        make(spec, target, lambda f, m: bar.update(task, completed=f, description=m))
    count = len(list(target.glob("*.npz")))
    console.print(f"{count} cases in {folder}; use them with `datasets.test={folder}`.", highlight=False)


def inspect_folder(folder: str, truth: str | None, sheet: str | None, as_json: bool) -> int:
    """Print the table of a folder's cases; 1 if any has a problem."""
    if not Path(folder).is_dir():
        raise BenchError(f"{folder}: is not a folder; give a folder of challenge npz files.")
    rows = inspect(Path(folder), Path(truth) if truth else None)
    bad = [row for row in rows if row.problems]
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1, default=str))  # noqa: T201
        return 1 if bad else 0
    console = Console()
    console.print(_table(folder, rows), soft_wrap=False)
    for row in rows:
        for text in row.problems:
            console.print(f"[red]problem[/] {escape(text)}", highlight=False, soft_wrap=True)
        for text in row.notes:
            console.print(f"[yellow]note[/] {escape(text)}", highlight=False, soft_wrap=True)
    modalities = sorted({row.modality for row in rows if row.modality})
    console.print(f"{len(rows)} cases, {len(modalities)} modalities, {len(bad)} with problems.", highlight=False)
    if sheet:
        with TemporaryDirectory() as cache:
            contact_sheet(open_dataset(FolderData(path=folder, truth=truth), Path(cache)), Path(sheet))
        console.print(f"Contact sheet: {sheet}", highlight=False)
    return 1 if bad else 0


def _table(folder: str, rows: list[Row]) -> Table:
    table = Table(title=folder, title_justify="left")
    for column in ("Case", "Modality", "Size", "Objects", "Spacing, mm", "Digest"):
        table.add_column(column, justify="right" if column in ("Objects", "Size") else "left", no_wrap=True)
    for row in rows:
        size = "×".join(map(str, row.shape or ()))
        spacing = " ".join(f"{s:.3g}" for s in row.spacing) if row.spacing else "–"
        table.add_row(row.name, row.modality or "?", size, str(row.objects), spacing, (row.digest or "")[:8])
    return table
