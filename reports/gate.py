"""The gate: a run against a stored baseline, with an exit code that says what happened.

0 ok · 1 regression · 2 broken · 3 nothing measured; the rules are those of `reports.verdict`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports import text
from reports.frame import load_run
from reports.verdict import Finding, GateResult, baseline_of, compare, load_baseline

if TYPE_CHECKING:
    from rich.console import RenderableType

_ORDER = ("broken", "regression", "improved", "not compared", "ok")
_STYLES = {"broken": "red", "regression": "red", "improved": "green", "not compared": "dim", "ok": ""}
_NUMBERS = ("Baseline", "Now", "Change")
_HEAD = ("Verdict", "Cell", "Metric", "Baseline", "Now", "Change", "Limit", "Reason")


def save_baseline(run_folder: Path, store_root: Path) -> dict[str, Any]:
    """What a gate needs to know of a finished run, as plain JSON data.

    Raises:
        BenchError: the run cannot be read, or is not finished.
    """
    return baseline_of(load_run(run_folder, store_root))


def check(run_folder: Path, store_root: Path, baseline: Path) -> GateResult:
    """Compare a run with a stored baseline by the gates of its suite.

    Raises:
        BenchError: the run or the baseline cannot be read (exit code 2).
    """
    before = load_baseline(baseline)
    return compare(load_run(run_folder, store_root), before)


def _change(finding: Finding) -> str:
    change = finding.change
    if change is None or finding.verdict == "not compared":
        return text.DASH
    if abs(change) <= 1e-9 * max(abs(finding.before or 0), abs(finding.after or 0)):
        return "0"
    sign = "+" if change > 0 else ""
    return sign + text.of_metric(finding.metric, change)


def _cells(finding: Finding) -> tuple[str, ...]:
    metric = finding.metric + (f" ({finding.protocol})" if finding.protocol else "")
    before, after = (text.of_metric(finding.metric, value) for value in (finding.before, finding.after))
    return finding.verdict, finding.cell, metric, before, after, _change(finding), finding.limit, finding.reason


def _sorted(result: GateResult) -> list[Finding]:
    return sorted(result.findings, key=lambda f: _ORDER.index(f.verdict))


def to_text(result: GateResult) -> str:
    """A plain table, worst first, the remarks and the outcome in the last line."""
    rows = [_HEAD, *(_cells(f) for f in _sorted(result))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD) - 1)]
    lines = [f"Gate: run {result.run} against baseline {result.baseline}", ""]
    for row in rows if result.findings else []:
        fixed = [c.rjust(w) if 3 <= i <= 5 else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=False))]
        lines.append("  ".join([*fixed, row[-1]]).rstrip())
    lines += ["", *(f"Note: {remark}." for remark in result.remarks), f"Gate {result.summary}"]
    return "\n".join(lines) + "\n"


def to_terminal(result: GateResult) -> RenderableType:
    """The findings as a Rich table, worst first; the outcome is the last line."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title_justify="left")
    table.title = f"Gate: run {result.run} against baseline {result.baseline}"
    verdict_head, cell_head, metric_head, *numbers = _HEAD[:6]
    for head in (verdict_head, metric_head, cell_head, *numbers):
        number = head in _NUMBERS
        table.add_column(head, justify="right" if number else "left", no_wrap=number, overflow="fold")
    reasons = []
    for finding in _sorted(result):
        verdict, cell, metric, before, after, change, limit, reason = _cells(finding)
        table.add_row(Text(verdict, style=_STYLES[finding.verdict]), metric, cell, before, after, change)
        if finding.verdict not in ("ok", "improved"):
            reasons.append(Text(f"{verdict}: {metric} of {cell}: {reason or limit} (limit: {limit})"))
    remarks = [Text(text.sentence(remark), style="dim") for remark in result.remarks]
    outcome = Text(f"Gate {result.summary}", style="bold green" if result.exit_code == 0 else "bold red")
    return Group(*([table] if result.findings else []), *reasons, *remarks, outcome)


def to_markdown(result: GateResult) -> str:
    """For a pull request: the outcome first."""
    lines = [f"**Gate {result.summary}**", "", f"Run `{result.run}` against baseline `{result.baseline}`.", ""]
    if result.findings:
        lines += ["| " + " | ".join(_HEAD) + " |", "|---|---|---|---:|---:|---:|---|---|"]
        lines += ["| " + " | ".join(c.replace("|", "\\|") for c in _cells(f)) + " |" for f in _sorted(result)]
        lines.append("")
    return "\n".join([*lines, *(f"- {text.sentence(remark)}" for remark in result.remarks), ""])


def to_json(result: GateResult) -> str:
    """Unrounded values."""
    data = asdict(result) | {"summary": result.summary, "compared": result.compared}
    data["findings"] = [asdict(f) | {"change": f.change} for f in result.findings]
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
