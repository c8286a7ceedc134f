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
from harness.schema import ACCURACY_METRICS
from reports import deployments, figures, leaderboard, tables, text, views
from reports.board import LeaderboardRow, modality_ranks
from reports.curves import training_curves
from reports.drawing import Figure
from reports.frame import Run
from reports.speed import throughput
from reports.summary import conclude, status_line
from reports.tables.fidelity import Notes, notes, warning
from reports.tables.gains import remarks as order_remarks
from reports.tables.latency import networks
from reports.views import Table

REPORT_FILE = "report.html"


@dataclass(frozen=True)
class DataSection:
    """What the page shows of one data set: leaderboard, accuracy and the figures that belong to them."""

    name: str
    anchor: str
    leaderboard: Table
    rankings: Table | None
    modality_ranks: Table | None
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
    board = leaderboard.rows(run, accuracy, runtime, counts, cases, timed)
    several = _several_deployments(run)
    main = _main_deployment(run)
    compared = tables.fidelity(run)
    curves = tables.training_curves(run)
    claimed = tables.claims(run, timed)
    phases = tables.phases(run)
    warm = tables.latency(run)
    ablated = tables.ablations(run, cases, timed)
    context: dict[str, Any] = {
        "run": run.info,
        "status_line": status_line(run),
        "conclusions": conclude(run, board, accuracy, runtime, compared),
        "sections": _sections(run, cases, timed, accuracy, board),
        "complexity": _unless_empty(views.complexity_table(counts, several)),
        "published": _unless_empty(views.published_table(tables.published(run))),
        "runtime": _unless_empty(views.runtime_table(runtime, several, list(order_remarks(tables.orders(run))))),
        "runtime_cases": _unless_empty(views.runtime_case_table(timed, several)),
        "gains": _unless_empty(views.gain_table(tables.gains(run))),
        "claims": _unless_empty(views.claim_table(claimed)),
        "claim_cases": _unless_empty(views.claim_case_table(claimed)),
        "phases": _unless_empty(views.phase_table(phases, several)),
        "phase_figure": figures.phase_bars(phases, several, main),
        "latency": views.latency_section(run, warm, throughput(networks(run, warm), several, main)),
        "training": _unless_empty(views.training_table(tables.training(run))),
        "training_figure": training_curves(curves),
        "ablations": _unless_empty(views.ablation_table(ablated, several)),
        "verdicts": _unless_empty(views.verdict_table(ablated, several)),
        "deployments": views.deployment_section(compared),
        "problems": _unless_empty(views.problem_table(tables.problems(run))),
        "flags": _flags_of_jobs(run, notes(run, compared)),
        "flag_rule": deployments.RULE,
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


def _flags_of_jobs(run: Run, warned: Notes) -> dict[tuple[str, str | None], str]:
    return {(job.variant, job.deployment): warning(warned, job.variant, job.deployment) for job in run.info.jobs}


def _main_deployment(run: Run) -> str | None:
    """The deployment that stands for a variant in a crowded figure: eager torch fp32, else the first of the suite."""
    used = list(dict.fromkeys(j.deployment for j in run.info.jobs if j.kind in ("accuracy", "latency", "runtime")))
    return next((name for name in used if deployments.plain(run.info, name)), used[0] if used else None)


def loops(run: Run, rows: Sequence[LeaderboardRow]) -> list[str]:
    """Which 3D loop the volumes were segmented with, if a data set has volumes; one remark, or one for each loop."""
    frame = run.frame
    volumes = set(frame.loc[(frame["kind"] == "accuracy") & (frame["ndim"] == 3), "job"])
    shown = {(row.variant, row.dataset) for row in rows}
    found: dict[str, list[str]] = {}
    for job in run.info.jobs:
        if job.digest in volumes and (job.variant, job.dataset) in shown and job.settings.get("loop"):
            found.setdefault(str(job.settings["loop"]), []).append(job.variant)
    if len(found) == 1:
        return [f"Volumes: 3D loop {next(iter(found))}."]
    return [f"Volumes of {text.listed(list(dict.fromkeys(who)))}: 3D loop {name}." for name, who in found.items()]


def _unless_empty(table: Table) -> Table | None:
    return table if table.rows else None


def _sections(
    run: Run, cases: pd.DataFrame, timed: pd.DataFrame, accuracy: pd.DataFrame, board: Sequence[LeaderboardRow]
) -> list[DataSection]:
    main = _main_deployment(run)
    modal = tables.accuracy_by_modality(run, cases)
    sections = []
    for number, (dataset, rows) in enumerate(leaderboard.groups(board).items(), 1):
        mine = accuracy[accuracy["dataset"] == dataset] if dataset else accuracy[accuracy["dataset"].isna()]
        modal_mine = modal[modal["dataset"] == dataset] if dataset else modal[modal["dataset"].isna()]
        pairs = [(m, p) for p in ("strict", "cvpr24") for m in ACCURACY_METRICS]
        shown = [views.modality_table(mine, modal_mine, rows, metric, protocol) for metric, protocol in pairs]
        remarks = [*leaderboard.missing_costs(rows), *loops(run, rows), *leaderboard.rank_remarks(rows)]
        sections.append(
            DataSection(
                name=dataset or "",
                anchor=f"data-{number}",
                leaderboard=views.leaderboard_table(rows, f"leaderboard-{number}", leaderboard.caption(rows), remarks),
                rankings=views.ranking_table(rows, f"rankings-{number}"),
                modality_ranks=views.modality_rank_table(
                    rows, modality_ranks(run, rows, cases, timed), f"modality-ranks-{number}"
                ),
                accuracy=tuple(t for t in shown if t is not None and t.rows),
                cost_figure=figures.accuracy_cost(rows, dataset, main),
                modality_figure=figures.modality_dots(modal_mine, rows, dataset, main),
            )
        )
    return sections
