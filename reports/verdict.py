"""Verdicts of a gate: the aggregates of a run against those of a stored baseline, cell by cell.

========  ===========================================================================================
code      meaning
========  ===========================================================================================
0 ok      every gated cell that could be compared is within its limit
1         regression: a cell moved in its bad direction by more than its limit
2         broken: a gated cell that was ok is now missing or has failures, or the baseline is unreadable
3         nothing measured: no cell could be compared, or one of the gates compares nothing at all
========  ===========================================================================================

Broken outweighs regression, regression outweighs nothing measured.  Values are compared only if they were measured on
the same data (digest of the data set, set of cases); times only if they were measured on the same machine.  A failure
is judged first: that a model breaks counts whatever it was measured on.  A gate on times alone is excused on another
machine; for any other reason a gate that compares nothing cannot pass, whatever the other gates say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from harness.errors import BenchError
from harness.schema import METRICS
from reports.cells import Cell, Key, cells
from reports.frame import Run
from reports.runfile import GateRule

BASELINE_FORMAT = 1

Verdict = Literal["ok", "improved", "regression", "broken", "not compared"]
# Why a cell was not compared.
Cause = Literal["", "no baseline value", "other data", "other cases", "other machine", "no direction"]
Judgement = tuple[Verdict, str, Cause]
OK, REGRESSION, BROKEN, NOTHING = 0, 1, 2, 3
WORDS: Mapping[int, str] = {OK: "ok", REGRESSION: "regression", BROKEN: "broken", NOTHING: "nothing measured"}
# Differences below this share of the value are rounding, not change.
_RELATIVE_NOISE = 1e-9


@dataclass(frozen=True)
class Finding:
    """One gated cell.  ``before`` and ``after`` in ``unit``; ``limit`` and ``reason`` in words."""

    verdict: Verdict
    cell: str
    metric: str
    protocol: str | None
    unit: str
    direction: str
    before: float | None
    after: float | None
    limit: str
    reason: str
    cause: Cause = ""

    @property
    def change(self) -> float | None:
        """``after - before``."""
        return None if self.before is None or self.after is None else self.after - self.before


@dataclass(frozen=True)
class GateResult:
    """Outcome of a gate; ``remarks`` say what a reader must know beside the findings."""

    exit_code: int
    findings: tuple[Finding, ...]
    remarks: tuple[str, ...]
    run: str
    baseline: str

    @property
    def compared(self) -> int:
        """How many cells were compared."""
        return sum(f.verdict in ("ok", "improved", "regression") for f in self.findings)

    @property
    def summary(self) -> str:
        """The outcome in one sentence."""
        counts = {v: sum(f.verdict == v for f in self.findings) for v in ("regression", "broken", "improved")}
        said = [f"{self.compared} of {len(self.findings)} gated cells compared"]
        said += [f"{n} {v}" for v, n in counts.items() if n]
        return f"{WORDS[self.exit_code]} (exit {self.exit_code}): {', '.join(said)}"


def baseline_of(run: Run) -> dict[str, Any]:
    """What a gate needs to know of a run, as plain JSON data.

    Raises:
        BenchError: the run is not finished; a baseline of half a run would hide what the other half breaks.
    """
    if run.info.status != "finished":
        raise BenchError(f"run {run.info.id} is {run.info.status}: finish it before it becomes a baseline")
    provenance = run.info.provenance
    machine = provenance.machine
    return {
        "format": BASELINE_FORMAT,
        "run": run.info.id,
        "suite": run.info.suite.name,
        "finished": run.info.finished,
        "machine": machine.fingerprint if machine else None,
        "cpu": machine.cpu if machine else None,
        "versions": dict(provenance.versions),
        "commit": provenance.git.commit if provenance.git else None,
        "cells": [cell.to_json() for cell in cells(run)],
    }


def load_baseline(path: Path) -> dict[str, Any]:
    """Read a baseline.  ``BenchError`` (exit code 2) if it is missing, not JSON, or of another format."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BenchError(f"{path} does not exist: store one with `bench gate --save`") from None
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} is not a readable baseline ({error}): store it again") from None
    _baseline_cells(data, str(path))
    return dict(data)


def _baseline_cells(data: Any, where: str) -> dict[Key, Cell]:
    if not isinstance(data, dict) or data.get("format") != BASELINE_FORMAT:
        raise BenchError(f"{where} is not a baseline of format {BASELINE_FORMAT}: store it again")
    names = set(Cell.__dataclass_fields__)
    try:
        found = [Cell(**{k: v for k, v in row.items() if k in names}) for row in data["cells"]]
        return {cell.key: cell for cell in found if cell.metric in METRICS}
    except (KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"{where}: `cells` is not what a baseline holds ({error}): store it again") from None


def compare(run: Run, baseline: Mapping[str, Any], gates: Sequence[GateRule] | None = None) -> GateResult:
    """Compare a run with a baseline; ``gates`` replaces the gates of the run's suite.

    Raises:
        BenchError: the baseline is not one (exit code 2).
    """
    rules = run.info.gates if gates is None else gates
    before = _baseline_cells(baseline, "the baseline")
    after = {cell.key: cell for cell in cells(run)}
    machine = run.info.provenance.machine
    same_machine = machine is not None and machine.fingerprint == baseline.get("machine")
    findings: list[Finding] = []
    remarks: list[str] = []
    idle = False
    for rule in rules:
        found = list(_judge_rule(rule, before, after, same_machine))
        findings += found
        if guards_nothing := _guards_nothing(rule, found, after):
            remarks.append(f"the gate on {_rule_text(rule)} {guards_nothing}: it guards nothing")
            idle = True
    remarks += _remarks(run, baseline, before, after, same_machine)
    if not rules:
        remarks.append("the suite names no gates: nothing was compared")
    return GateResult(
        _exit_code(findings, idle), tuple(findings), tuple(remarks), run.info.id, str(baseline.get("run", "?"))
    )


def _guards_nothing(rule: GateRule, found: Sequence[Finding], after: Mapping[Key, Cell]) -> str:
    """What keeps a gate from guarding anything, in words; empty if it judged a cell, or times of another machine."""
    if not found:
        said = "matches no cell of the baseline"
        if any(cell.value is not None and _concerns(rule, cell) for cell in after.values()):
            # The baseline was stored before the bench had the metric, or before the suite measured it.
            return f"{said}, but cells of this run; store the baseline again with `bench gate --save FILE`"
        return said
    if any(f.verdict != "not compared" for f in found):
        return ""
    reasons = {f.reason for f in found if f.cause not in ("no baseline value", "other machine")}
    if reasons:
        return f"compares nothing ({'; '.join(sorted(reasons))})"
    return "" if any(f.cause == "other machine" for f in found) else "compares nothing (the baseline has no value)"


def _exit_code(findings: Sequence[Finding], idle_gate: bool) -> int:
    verdicts = {f.verdict for f in findings}
    if "broken" in verdicts:
        return BROKEN
    if "regression" in verdicts:
        return REGRESSION
    return OK if verdicts & {"ok", "improved"} and not idle_gate else NOTHING


def _concerns(rule: GateRule, cell: Cell) -> bool:
    named = any(fnmatchcase(cell.variant, pattern) for pattern in rule.variants)
    return cell.metric == rule.metric and named and rule.protocol in (None, cell.protocol)


def _judge_rule(
    rule: GateRule, before: Mapping[Key, Cell], after: Mapping[Key, Cell], same_machine: bool
) -> Iterator[Finding]:
    for key, old in before.items():
        if _concerns(rule, old):
            verdict, reason, cause = _judge(rule, old, after.get(key), same_machine)
            new = after.get(key)
            yield Finding(
                verdict=verdict,
                cell=old.label,
                metric=old.metric,
                protocol=old.protocol,
                unit=old.unit,
                direction=old.direction,
                before=old.value,
                after=new.value if new else None,
                limit=_limit_text(rule),
                reason=reason,
                cause=cause,
            )


def _judge(rule: GateRule, old: Cell, new: Cell | None, same_machine: bool) -> Judgement:
    """Verdict of one cell and why."""
    if old.value is None:
        return "not compared", f"the baseline has no value ({old.status}: {old.reason})", "no baseline value"
    lost = _lost(old, new)
    if new is None or lost:
        return "broken", lost, ""
    if old.data_digest != new.data_digest and new.data_digest is not None:
        return "not compared", "measured on other data (the digests of the data set differ)", "other data"
    if new.value is None:
        if old.timed and not same_machine:
            return "not compared", f"measured on another machine, and {new.status} here: {new.reason}", "other machine"
        return "broken", f"ok in the baseline, now {new.status}: {new.reason}", ""
    if new.ok < old.ok:
        return "broken", f"{new.ok} ok, {old.ok} in the baseline{': ' + new.reason if new.reason else ''}", ""
    if old.timed and not same_machine:
        reason = "measured on another machine: times and memory of two machines have no difference"
        return "not compared", reason, "other machine"
    if old.case_set != new.case_set:
        return "not compared", "measured on other cases", "other cases"
    return _judge_values(rule, old, old.value, new.value)


def _lost(old: Cell, new: Cell | None) -> str:
    """What failed that did not fail before, in words: it counts on any data and on any machine."""
    if new is None:
        return "ok in the baseline, not part of this run"
    if new.value is None and new.failed:
        return f"ok in the baseline, now {new.status}: {new.reason}"
    if new.failed > old.failed:
        return f"{new.failed} failed, {old.failed} in the baseline: {new.reason}"
    if new.lost_seeds > old.lost_seeds:
        return f"seeds without a value: {new.lost_seeds}, in the baseline {old.lost_seeds}: {new.reason}"
    return ""


def _judge_values(rule: GateRule, cell: Cell, before: float, after: float) -> Judgement:
    if cell.direction == "none":
        return "not compared", f"{cell.metric} has no better direction", "no direction"
    higher = cell.direction == "higher"
    worse = (before - after) if higher else (after - before)
    noise = _RELATIVE_NOISE * max(abs(before), abs(after))
    if rule.max_drop is not None:
        exceeded = worse > rule.max_drop + noise
    else:
        above, below = (before, after) if higher else (after, before)
        # A ratio has no meaning where the lower value is 0: then any change for the worse exceeds it.
        ratio = above / below if below > 0 else (1.0 if above == below else float("inf"))
        exceeded = ratio > (rule.max_ratio or 1.0) * (1 + _RELATIVE_NOISE)
    if exceeded:
        return "regression", "", ""
    return ("improved", "", "") if worse < -noise else ("ok", "", "")


def _limit_text(rule: GateRule) -> str:
    if rule.max_ratio is not None:
        return f"at most ×{rule.max_ratio:g} worse"
    unit = METRICS[rule.metric].unit if rule.metric in METRICS else "1"
    return f"at most {rule.max_drop:g}{'' if unit == '1' else ' ' + unit} worse"


def _rule_text(rule: GateRule) -> str:
    protocol = f" ({rule.protocol})" if rule.protocol else ""
    return f"{rule.metric}{protocol} of {', '.join(rule.variants)}"


def _remarks(
    run: Run, baseline: Mapping[str, Any], before: Mapping[Key, Cell], after: Mapping[Key, Cell], same_machine: bool
) -> list[str]:
    said = []
    if not same_machine and any(c.timed for c in before.values()):
        said.append("the baseline was measured on another machine: no time or memory is compared")
    changed = sorted(
        {c.dataset or "" for k, c in before.items() if k in after and c.data_digest != after[k].data_digest}
    )
    if changed:
        said.append(f"the data set {', '.join(changed)} is not the baseline's: nothing measured on it is compared")
    old, new = dict(baseline.get("versions") or {}), run.info.provenance.versions
    moved = [f"{n} {old[n]} → {new[n]}" for n in sorted(set(old) & set(new)) if old[n] != new[n]]
    if moved:
        said.append(f"library versions differ: {', '.join(moved)}")
    noted = sorted({f"{c.variant} ({c.note})" for c in after.values() if c.note})
    if noted:
        said.append(f"a training note applies to {', '.join(noted)}: the gate guards repeatability there, not accuracy")
    warned = sorted({f"{c.variant} · {c.deployment} ({c.flag})" for c in after.values() if c.flag})
    if warned:
        said.append(f"a warning applies to {', '.join(warned)}")
    different = sorted({c.variant for k, c in after.items() if k in before and c.note != before[k].note})
    if different:
        said.append(f"the training of {', '.join(different)} is not the baseline's")
    return said
