"""`bench run` and `bench validate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from harness import torchrun
from harness.commands.terminal import TerminalWatcher, duration, error_line
from harness.estimate import estimate
from harness.plan import Plan, make_plan
from harness.results import Results, open_results
from harness.run import Run, require_sandboxes
from harness.suitefile import InvalidSuite, find_suite, read_suite
from harness.tensorboard import write_stored


def run_suite(
    suite: str, overrides: Sequence[str], dry_run: bool, fresh: Sequence[str], folder: str | None, as_json: bool
) -> int:
    """Plan and execute a suite, then write its report and print its leaderboard.

    Returns:
        0, or 1 if a job failed (every finished result is kept and shown), or 130 after Ctrl-C.
    """
    results = open_results(folder)
    plan = make_plan(read_suite(find_suite(suite), overrides, results)[0], results, fresh)
    if dry_run:
        print_plan(plan, results, as_json)
        return 0
    if torchrun.rank():
        return follow(plan, results)
    require_sandboxes(plan)
    options = [word for kind in fresh for word in ("--fresh", kind)] + (["--results", folder] if folder else [])
    run = Run(plan, results, ["bench", "run", suite, *overrides, *options], overrides, suite)
    code = execute(run, plan, results, quiet=as_json)
    if code != 130:
        finish(run, results, as_json)
    return code


def follow(plan: Plan, results: Results) -> int:
    """Take part in the trainings of a plan as one of the further processes of ``torchrun``."""
    from harness.training import follower

    follower.follow((job.spec for job in plan.unique), results)
    return 0


def execute(run: Run, plan: Plan, results: Results, quiet: bool = False) -> int:
    """Do the jobs under a progress display; 0, 1 (failed jobs) or 130 (Ctrl-C)."""
    console = Console(stderr=True, quiet=quiet)
    seconds, sure = estimate(plan.unique, results)
    todo = sum(not job.cached for job in plan.unique)
    known = "" if sure else ", a rough guess"
    what = f"{todo} of {len(plan.unique)} jobs to do, about {duration(seconds)}{known}" if todo else "all from cache"
    console.print(f"{'Resuming' if run.resumed else 'Run'} {run.folder.name}: {what}", highlight=False, soft_wrap=True)
    try:
        with TerminalWatcher(console, len(plan.unique), len(plan.unique) - todo) as watcher:
            failed = run.execute(watcher)
    except KeyboardInterrupt:
        print("\nInterrupted. Nothing is lost: the same command goes on from here.", file=sys.stderr)  # noqa: T201
        return 130
    write_stored((job.spec for job in plan.unique), results)
    return 1 if failed else 0


def finish(run: Run, results: Results, as_json: bool) -> None:
    """Report and leaderboard: views that can be made again at any time."""
    import reports
    from harness.commands.views import show_leaderboard

    run.event("report")
    loaded = reports.load_run(run.folder, results.store.root)
    page = reports.html.write(loaded)
    run.event("finished")
    show_leaderboard(loaded, "json" if as_json else "table")
    if not as_json:
        Console().print(f"Report: {_shown(page)}", highlight=False, soft_wrap=True)


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def print_plan(plan: Plan, results: Results, as_json: bool) -> None:
    """The plan of `--dry-run`: every job, whether it is stored, and what the rest will take."""
    seconds, sure = estimate(plan.unique, results)
    if as_json:
        jobs = [_job_row(job) for job in plan.jobs]
        data = {"suite": plan.suite.name, "estimated_seconds": round(seconds), "estimate_from_history": sure}
        print(json.dumps(data | {"datasets": plan.datasets, "jobs": jobs}, indent=1))  # noqa: T201
        return
    table = Table(title=f"Plan of {plan.suite.name}", title_justify="left")
    for column in ("Job", "Variant", "How and on what", "Units", "State"):
        table.add_column(column, justify="right" if column == "Units" else "left", overflow="fold")
    for job in plan.jobs:
        how = " · ".join(part for part in (job.deployment, job.threads, job.sandbox, job.dataset) if part)
        table.add_row(
            job.stage or job.spec.kind, job.row, how or "–", str(job.units), "cached" if job.cached else "to do"
        )
    console = Console()
    console.print(table)
    todo = sum(not job.cached for job in plan.unique)
    source = "from earlier runs on this machine" if sure else "a rough guess until jobs of its kind have run here"
    console.print(f"{todo} of {len(plan.unique)} jobs to do, about {duration(seconds)} ({source}).", highlight=False)
    if plan.suite.takes:
        console.print(f"The suite says: {plan.suite.takes}", highlight=False)


def _job_row(job: Any) -> dict[str, Any]:
    row = {k: getattr(job, k) for k in ("row", "deployment", "sandbox", "dataset", "units", "cached", "digest")}
    return {"kind": job.spec.kind, "seed": job.spec.seed, "needs": list(job.needs), **row}


def validate_suite(suite: str, overrides: Sequence[str], folder: str | None, as_json: bool) -> int:
    """Check a suite; 0 if it is fine, 2 if not, with every problem printed."""
    try:
        checked, document = read_suite(find_suite(suite), overrides, open_results(folder))
    except InvalidSuite as error:
        rows = [
            {"place": str(p.place), "field": p.field, "message": p.message, "remedy": p.remedy} for p in error.problems
        ]
        if as_json:
            print(json.dumps({"valid": False, "problems": rows}, indent=1))  # noqa: T201
        else:
            for problem in error.problems:
                error_line(str(problem))
        return error.exit_code
    if as_json:
        print(json.dumps({"valid": True, "problems": []}))  # noqa: T201
    else:
        files = len(document.includes)
        Console().print(f"{suite} is valid ({len(checked.variants)} variants, {files} files).", highlight=False)
    return 0
