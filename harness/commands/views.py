"""`bench report`, `bench leaderboard`, `bench gate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from harness.errors import BenchError
from harness.files import write_atomic
from harness.results import open_results

if TYPE_CHECKING:
    from reports.frame import Run


def write_report(run: str | None, output: str | None, folder: str | None) -> None:
    """Write the report of a stored run and print its path."""
    import reports

    results = open_results(folder)
    found = results.find_run(run)
    path = reports.write_report(found, results.store.root, Path(output) if output else None)
    print(path)  # noqa: T201


def print_leaderboard(run: str | None, form: str, folder: str | None) -> None:
    """Print the leaderboard of a stored run."""
    import reports

    results = open_results(folder)
    show_leaderboard(reports.load_run(results.find_run(run), results.store.root), form)


def show_leaderboard(run: Run, form: str) -> None:
    """Print a leaderboard as ``table``, ``markdown``, ``csv`` or ``json``."""
    from reports import leaderboard

    board = leaderboard.rows(run)
    if form == "table":
        Console().print(leaderboard.to_terminal(board))
        return
    render = {"markdown": leaderboard.to_markdown, "csv": leaderboard.to_csv, "json": leaderboard.to_json}[form]
    print(render(board).rstrip("\n"))  # noqa: T201


def run_gate(run: str | None, baseline: str | None, save: str | None, as_json: bool, folder: str | None) -> int:
    """Save a baseline, or compare a run with one: 0 ok, 1 regression, 2 broken, 3 nothing measured."""
    from reports import gate

    if (baseline is None) == (save is None):
        raise BenchError("`bench gate` needs either --baseline FILE to compare with or --save FILE to write one.")
    results = open_results(folder)
    found = results.find_run(run)
    if save:
        data = gate.save_baseline(found, results.store.root)
        write_atomic(Path(save), json.dumps(data, indent=1) + "\n")
        Console(stderr=True).print(f"Baseline of {found.name} written to {save}.", highlight=False)
        return 0
    outcome = gate.check(found, results.store.root, Path(str(baseline)))
    if as_json:
        print(gate.to_json(outcome).rstrip("\n"))  # noqa: T201
    else:
        Console().print(gate.to_terminal(outcome))
    return outcome.exit_code
