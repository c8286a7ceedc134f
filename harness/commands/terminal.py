"""What a person sees while a run goes on: a live display on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from harness.plan import PlannedJob

MARKS = {
    "done": "[green]done[/]",
    "cached": "[cyan]cached[/]",
    "skipped": "[yellow]skipped[/]",
    "failed": "[red]failed[/]",
}
LINE_EVERY_S = 15.0


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def error_line(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr)  # noqa: T201


class TerminalWatcher:
    """Overall bar, the job at work and its own bar; where there is no terminal, a line now and then."""

    def __init__(self, console: Console, total: int, cached: int) -> None:
        self._console = console
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        self._live = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        self._overall = self._live.add_task("jobs", total=total, completed=cached, note="") if self._live else None
        self._job = self._live.add_task("", total=1.0, visible=False, note="") if self._live else None
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def started(self, job: PlannedJob, index: int, total: int) -> None:
        if self._live and self._job is not None:
            self._live.reset(self._job, total=1.0, description=escape(job.title), visible=True, note="")
        else:
            self._console.print(f"[{index + 1}/{total}] {job.title}", markup=False, highlight=False)
            self._last_line = time.monotonic()

    def progress(self, job: PlannedJob, fraction: float, message: str) -> None:
        if self._live and self._job is not None:
            self._live.update(self._job, description=escape(job.title), completed=fraction, note=escape(message))
        elif time.monotonic() - self._last_line > LINE_EVERY_S:
            self._console.print(f"    {fraction:4.0%} {message}", markup=False, highlight=False)
            self._last_line = time.monotonic()

    def ended(self, job: PlannedJob, state: str, reason: str | None, seconds: float) -> None:
        tail = f": {escape(reason)}" if reason else f" in {duration(seconds)}"
        self._console.print(f"{MARKS[state]} {escape(job.title)}{tail}", highlight=False, soft_wrap=True)
        if self._live and self._overall is not None and self._job is not None:
            self._live.advance(self._overall)
            self._live.update(self._job, visible=False)
