"""`bench report`, `bench leaderboard`, `bench gate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness.errors import BenchError
from harness.files import write_atomic
from harness.results import open_results

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reports.frame import Run


def write_report(run: str | None, output: str | None, folder: str | None) -> None:
    """Write the report of a stored run and print its path."""
    import reports

    results = open_results(folder)
    found = results.find_run(run)
    path = reports.write_report(found, results.store.root, Path(output) if output else None)
    print(path)  # noqa: T201


def print_leaderboard(
    run: str | None,
    form: str,
    folder: str | None,
    deployments: bool = False,
    claims: bool = False,
    rows: Sequence[str] = (),
    modalities: Sequence[str] = (),
) -> None:
    """Print the leaderboard of a stored run, or the table of its deployments or of the papers' claims alone.

    ``rows``, ``modalities``: only these, see `reports.restrict`; empty: all.
    """
    import reports
    from reports.restrict import restrict

    results = open_results(folder)
    loaded = reports.load_run(results.find_run(run), results.store.root)
    loaded = restrict(loaded, rows, modalities)
    show = show_claims if claims else show_deployments if deployments else show_leaderboard
    show(loaded, form)


def show_leaderboard(run: Run, form: str) -> None:
    """Print a leaderboard, deployments, latency and claims in one of the forms.

    CSV is one table: the leaderboard; where a run has none, its latencies, else its deployments.
    """
    from reports import claims, fidelity, leaderboard, warm

    board, compared, claimed = leaderboard.rows(run), fidelity.rows(run), claims.rows(run)
    timed = warm.latencies(run)
    alone = not compared and not timed.rows
    if form == "table":
        if board:
            Console().print(leaderboard.to_terminal(board))
        elif alone:
            Console().print("No accuracy, complexity, runtime or latency was measured; the report tells what was done.")
        if compared:
            Console().print(fidelity.to_terminal(compared))
        if timed.rows:
            Console().print(warm.to_terminal(timed))
        if claimed:
            Console().print(claims.to_terminal(claimed))
        return
    if form == "csv":  # one table a file
        table = leaderboard.to_csv(board)
        if not board and (timed.rows or compared):
            table = warm.to_csv(timed) if timed.rows else fidelity.to_csv(compared)
        print(table.rstrip("\n"))  # noqa: T201
    elif form == "json":
        print(leaderboard.to_json(board, compared, claimed, timed.rows).rstrip("\n"))  # noqa: T201
    else:
        first = [leaderboard.to_markdown(board)] if board or alone else []
        both = [*first, *([fidelity.to_markdown(compared)] if compared else [])]
        both += [warm.to_markdown(timed)] if timed.rows else []
        every = [*both, *([claims.to_markdown(claimed)] if claimed else [])]
        print("\n".join(every).rstrip("\n"))  # noqa: T201


def _print(view: Any, found: Any, form: str) -> None:
    """Print what a module of `reports` found, by its ``to_terminal``, ``to_markdown``, ``to_csv`` or ``to_json``."""
    if form == "table":
        Console().print(view.to_terminal(found))
        return
    render = {"markdown": view.to_markdown, "csv": view.to_csv, "json": view.to_json}[form]
    print(render(found).rstrip("\n"))  # noqa: T201


def print_ablations(run: str | None, form: str, folder: str | None) -> None:
    """Print ablated variants of a stored run against their base, as ``table``, ``markdown``, ``csv`` or ``json``."""
    import reports
    from reports import ablations

    results = open_results(folder)
    loaded = reports.load_run(results.find_run(run), results.store.root)
    found = ablations.rows(loaded)
    if not found:
        raise BenchError(
            f"{loaded.folder}: no ablated variant and its base were both measured; "
            "a suite names them under `ablations:`"
        )
    _print(ablations, found, form)


def show_deployments(run: Run, form: str) -> None:
    """Print how far every deployment is from eager torch, as ``table``, ``markdown``, ``csv`` or ``json``."""
    from reports import fidelity

    compared = fidelity.rows(run)
    _print(fidelity, compared, form)


def show_claims(run: Run, form: str) -> None:
    """Print measured ratios to LiteMedSAM beside the papers', as ``table``, ``markdown``, ``csv`` or ``json``."""
    from reports import claims

    found = claims.rows(run)
    if not found:
        raise BenchError(
            f"{run.folder}: LiteMedSAM and another variant were not measured on the published workload; "
            "run `bench run suites/workload.yaml`"
        )
    _print(claims, found, form)


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
