"""The HTML report: one file that needs no network, no script and no other file to be read."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from harness.files import write_atomic
from reports import figures, leaderboard, tables, text, views
from reports.figures import Figure
from reports.frame import Run
from reports.leaderboard import LeaderboardRow
from reports.summary import conclude, status_line
from reports.views import Table

REPORT_FILE = "report.html"


@dataclass(frozen=True)
class DataSection:
    """What the page shows of one data set: leaderboard, accuracy and the figures that belong to them."""

    name: str
    anchor: str
    leaderboard: Table
    accuracy: tuple[Table, ...]
    cost_figure: Figure | None
    modality_figure: Figure | None


def render(run: Run) -> str:
    """The report as HTML text.  The same run gives the same bytes."""
    cases = tables.case_values(run)
    timed = tables.runtime_cases(run)
    accuracy = tables.accuracy_summary(run, cases)
    runtime = tables.runtime_summary(run, timed)
    counts = tables.complexity(run)
    board = leaderboard.rows(run, accuracy, runtime, counts)
    several = _several_deployments(run)
    curves = tables.training_curves(run)
    phases = tables.phases(run)
    context: dict[str, Any] = {
        "run": run.info,
        "status_line": status_line(run),
        "conclusions": conclude(run, board, accuracy, runtime),
        "sections": _sections(run, cases, accuracy, board),
        "complexity": _unless_empty(views.complexity_table(counts, several)),
        "runtime": _unless_empty(views.runtime_table(runtime, several)),
        "runtime_cases": _unless_empty(views.runtime_case_table(timed, several)),
        "phases": _unless_empty(views.phase_table(phases, several)),
        "phase_figure": figures.phase_bars(phases, several),
        "training": _unless_empty(views.training_table(tables.training(run))),
        "training_figure": figures.training_curves(curves),
        "ablations": _unless_empty(views.ablation_table(tables.ablations(run, cases, timed), several)),
        "problems": _unless_empty(views.problem_table(tables.problems(run))),
        "command": shlex.join(run.info.command),
        "commit": run.info.provenance.git,
    }
    page = _environment().get_template("report.html.j2").render(context)
    return str(page)


def write(run: Run, out: Path | None = None) -> Path:
    """Write the report, by default into the run folder; returns its path."""
    path = run.folder / REPORT_FILE if out is None else out
    write_atomic(path, render(run))
    return path


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "moment": moment,
        "duration": text.duration,
        "size": text.size,
        "sentence": text.sentence,
    }
    return environment


def moment(iso: str | None) -> str:
    """``2 January 2026, 03:04 UTC`` of an ISO time; the text as it is if it is none."""
    if not iso:
        return text.DASH
    try:
        parsed = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    utc = parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    return f"{utc.day} {utc:%B %Y, %H:%M} UTC"


def _several_deployments(run: Run) -> bool:
    return len({job.deployment for job in run.info.jobs if job.deployment is not None}) > 1


def _unless_empty(table: Table) -> Table | None:
    return table if table.rows else None


def _sections(
    run: Run, cases: pd.DataFrame, accuracy: pd.DataFrame, board: Sequence[LeaderboardRow]
) -> list[DataSection]:
    modal = tables.accuracy_by_modality(run, cases)
    sections = []
    for number, (dataset, rows) in enumerate(leaderboard.groups(board).items(), 1):
        mine = accuracy[accuracy["dataset"] == dataset] if dataset else accuracy[accuracy["dataset"].isna()]
        modal_mine = modal[modal["dataset"] == dataset] if dataset else modal[modal["dataset"].isna()]
        pairs = [(m, p) for p in ("strict", "cvpr24") for m in ("dsc", "nsd")]
        shown = [views.modality_table(mine, modal_mine, rows, metric, protocol) for metric, protocol in pairs]
        remarks = leaderboard.missing_costs(rows)
        sections.append(
            DataSection(
                name=dataset or "",
                anchor=f"data-{number}",
                leaderboard=views.leaderboard_table(rows, f"leaderboard-{number}", leaderboard.CAPTION, remarks),
                accuracy=tuple(t for t in shown if t is not None and t.rows),
                cost_figure=figures.accuracy_cost(rows, dataset),
                modality_figure=figures.modality_dots(modal_mine, rows, dataset),
            )
        )
    return sections
