"""Views of a run: HTML report, leaderboard, gate.  Pure functions of a run folder and a store; they measure nothing.

Importing this package loads neither pandas nor matplotlib; the functions do, when they are called.

    reports.write_report(run_folder, store_root)          # → path of report.html
    run = reports.load_run(run_folder, store_root)
    board = reports.leaderboard.rows(run)                 # then .to_terminal(board), .to_markdown, .to_csv, .to_json
    data = reports.gate.save_baseline(run_folder, store_root)
    result = reports.gate.check(run_folder, store_root, baseline_file)   # .exit_code; reports.gate.to_terminal(result)
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reports import gate, html, leaderboard, tables
    from reports.frame import Run
    from reports.leaderboard import LeaderboardRow

__all__ = [
    "gate",
    "html",
    "leaderboard",
    "leaderboard_rows",
    "load_run",
    "tables",
    "write_report",
]

_MODULES = frozenset({"figures", "gate", "html", "leaderboard", "tables"})


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return importlib.import_module(f"reports.{name}")
    raise AttributeError(f"module 'reports' has no attribute {name!r}")


def load_run(run_folder: Path, store_root: Path) -> Run:
    """Load a run with its records.

    Raises:
        harness.errors.BenchError: no run there, or a file of it cannot be read.
    """
    from reports.frame import load_run as load

    return load(run_folder, store_root)


def write_report(run_folder: Path, store_root: Path, out: Path | None = None) -> Path:
    """Write the self-contained HTML report, by default ``run_folder/report.html``; returns its path."""
    from reports import html

    return html.write(load_run(run_folder, store_root), out)


def leaderboard_rows(run_folder: Path, store_root: Path) -> list[LeaderboardRow]:
    """The leaderboard of a run; `reports.leaderboard` renders it."""
    from reports import leaderboard

    return leaderboard.rows(load_run(run_folder, store_root))
