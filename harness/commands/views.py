"""`bench report`, `bench leaderboard`, `bench gate`."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from harness.errors import BenchError
from harness.results import Results, open_results
from harness.store import write_atomic


def write_report(run: str | None, output: str | None, folder: str | None) -> None:
    """Write the report of a stored run and print its path."""
    import reports

    results = open_results(folder)
    found = results.find_run(run)
    path = reports.write_report(found, results.store.root, Path(output) if output else None)
    print(path)  # noqa: T201


def print_leaderboard(run: str | None, form: str, folder: str | None) -> None:
    results = open_results(folder)
    show_leaderboard(results.find_run(run), results, form)


def show_leaderboard(run: Path, results: Results, form: str) -> None:
    """Print a leaderboard as ``table``, ``markdown``, ``csv`` or ``json``."""
    from reports import leaderboard

    rows = leaderboard.rows(leaderboard.load(run, results.store.root))
    if form == "table":
        Console().print(leaderboard.to_terminal(rows))
        return
    render = {"markdown": leaderboard.to_markdown, "csv": leaderboard.to_csv, "json": leaderboard.to_json}[form]
    print(render(rows).rstrip("\n"))  # noqa: T201


def run_gate(run: str | None, baseline: str | None, save: str | None, as_json: bool, folder: str | None) -> int:
    """Save a baseline, or compare a run with one: 0 ok, 1 regression, 2 broken, 3 nothing measured."""
    from reports import gate

    if (baseline is None) == (save is None):
        raise BenchError("`bench gate` needs either --baseline FILE to compare with or --save FILE to write one.")
    results = open_results(folder)
    found = results.find_run(run)
    if save:
        data = gate.save_baseline(found, results.store.root)
        write_atomic(Path(save), json.dumps(data, indent=1, sort_keys=True) + "\n")
        Console(stderr=True).print(f"Baseline of {found.name} written to {save}.", highlight=False)
        return 0
    outcome = gate.check(found, results.store.root, Path(str(baseline)))
    if as_json:
        print(gate.to_json(outcome))  # noqa: T201
    else:
        Console().print(gate.to_terminal(outcome))
    return int(outcome.exit_code)
