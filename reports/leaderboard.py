"""The leaderboard: one row a variant, deployment and data set, on the terminal and as Markdown, CSV and JSON.

The order is by the macro average DSC of protocol ``strict``; equal values share a rank.  A rank is claimed only among
rows that can be compared: weights without a training note, and the same cases.  All other rows follow in the order of
the suite, without a rank; nothing is left out.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports import text
from reports.frame import Run, load_run
from reports.places import Place, Timing, place, place_names
from reports.tables import accuracy_summary, complexity, runtime_summary
from reports.tables.common import none_if_missing

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

PROTOCOL = "strict"
CAPTION = (
    "DSC and NSD: macro average over modalities, protocol strict unless named; a failed case counts as 0. "
    "Rank: by DSC, equal values share it. "
    "Rows that carry a training note, miss cases or seeds, or have no competitor carry no rank: their order means "
    "nothing. Wall: median over cases of a cold run, protocol strict unless named; n: how many cases it rests on if "
    "not all. A case that failed in any repeat has no time."
)


@dataclass(frozen=True)
class LeaderboardRow:
    """One row.  ``rank`` is ``None`` where no order is claimed; ``reason`` says why numbers are missing or reduced.

    ``dsc``, ``nsd``, ``dsc_micro``: protocol ``strict``; ``dsc_cvpr24``, ``nsd_cvpr24``: the challenge's; ``flops`` in
    multiply-adds; ``timings`` has one entry a sandbox and protocol; ``lost_seeds`` are not among the ``seeds``.
    """

    rank: int | None
    variant: str
    deployment: str | None
    dataset: str | None
    note: str
    weights: str
    tiny: bool
    dsc: float | None
    nsd: float | None
    dsc_micro: float | None
    dsc_cvpr24: float | None
    nsd_cvpr24: float | None
    cases: int
    objects: int
    failed: int
    skipped: int
    seeds: int
    lost_seeds: int
    status: str
    reason: str
    params: float | None
    flops: float | None
    params_status: str
    flops_status: str
    cost_reason: str
    timings: tuple[Timing, ...] = field(default=())


def load(run_folder: Path, store_root: Path) -> Run:
    """The run whose leaderboard is wanted.  ``BenchError`` if it cannot be read."""
    return load_run(run_folder, store_root)


def rows(
    run: Run,
    accuracy: pd.DataFrame | None = None,
    runtime: pd.DataFrame | None = None,
    counts: pd.DataFrame | None = None,
) -> list[LeaderboardRow]:
    """The leaderboard of a run, data set by data set; tables already computed may be given."""
    accuracy = accuracy_summary(run) if accuracy is None else accuracy
    runtime = runtime_summary(run) if runtime is None else runtime
    counts = complexity(run) if counts is None else counts
    keys = _keys(run, accuracy, runtime)
    found = {key: _row(run, key, accuracy, runtime, counts) for key in keys}
    case_sets = _case_sets(accuracy)
    order = {label: i for i, label in enumerate(run.variant_order())}
    result: list[LeaderboardRow] = []
    for dataset in dict.fromkeys(key[2] for key in keys):
        group = {key: row for key, row in found.items() if key[2] == dataset}
        ranked = _ranked(group, case_sets)
        rest = [row for key, row in group.items() if key not in {k for k, _ in ranked}]
        result += [row for _, row in ranked]
        result += sorted(rest, key=lambda r: order[r.variant])
    return result


Key = tuple[str, str | None, str | None]


def _keys(run: Run, accuracy: pd.DataFrame, runtime: pd.DataFrame) -> list[Key]:
    """Variant × deployment × data set, as far as something was planned for it; variants with counts alone included."""
    found: dict[Key, None] = {}
    for table in (accuracy, runtime):
        for row in table[["variant", "deployment", "dataset"]].itertuples(index=False):
            found[(str(row[0]), _word(row[1]), _word(row[2]))] = None
    named = {key[0] for key in found}
    datasets = list(dict.fromkeys(key[2] for key in found)) or [None]
    for job in run.info.jobs:
        if job.variant not in named:
            found |= {(job.variant, job.deployment, dataset): None for dataset in datasets}
    return list(found)


def _word(value: Any) -> str | None:
    plain = none_if_missing(value)
    return None if plain is None else str(plain)


def _number(value: Any) -> float | None:
    plain = none_if_missing(value)
    return None if plain is None else float(plain)  # type: ignore[arg-type]


def _same(column: pd.Series, value: str | None) -> pd.Series:
    return column.isna() if value is None else column == value


def _case_sets(accuracy: pd.DataFrame) -> dict[Key, str]:
    dsc = accuracy[(accuracy["metric"] == "dsc") & (accuracy["protocol"] == PROTOCOL)]
    records = dsc[["variant", "deployment", "dataset", "case_set"]].itertuples(index=False)
    return {(str(r[0]), _word(r[1]), _word(r[2])): str(r[3]) for r in records}


def _ranked(group: dict[Key, LeaderboardRow], case_sets: dict[Key, str]) -> list[tuple[Key, LeaderboardRow]]:
    """The rows whose order can be claimed, best first, with their ranks; none if fewer than two can be compared."""
    fit = [k for k, r in group.items() if r.dsc is not None and not (r.note or r.skipped or r.lost_seeds)]
    largest = max((group[k].cases for k in fit), default=0)
    reference = next((case_sets[k] for k in fit if group[k].cases == largest), "")
    fit = [k for k in fit if case_sets[k] == reference]
    if len(fit) < 2:
        return []
    values = {k: group[k].dsc or 0.0 for k in fit}
    fit.sort(key=lambda k: -values[k])
    ranks = {k: 1 + sum(values[other] > values[k] for other in fit) for k in fit}
    return [(k, replace(group[k], rank=ranks[k])) for k in fit]


def _row(run: Run, key: Key, accuracy: pd.DataFrame, runtime: pd.DataFrame, counts: pd.DataFrame) -> LeaderboardRow:
    variant, deployment, dataset = key

    def mine(table: pd.DataFrame) -> pd.DataFrame:
        same = (table["variant"] == variant) & _same(table["deployment"], deployment)
        return table[same & _same(table["dataset"], dataset)]

    scores = mine(accuracy)
    values = {(r["protocol"], r["metric"]): r for r in scores.to_dict("records")}
    main = values.get((PROTOCOL, "dsc")) or (next(iter(values.values())) if values else {})
    cost = counts[
        (counts["variant"] == variant) & (_same(counts["deployment"], deployment) | counts["deployment"].isna())
    ]
    note, weights = _training(run, key)
    return LeaderboardRow(
        rank=None,
        variant=variant,
        deployment=deployment,
        dataset=dataset,
        note=note if main else "",
        weights=weights,
        tiny=run.info.variants[variant].tiny,
        dsc=_number(values.get((PROTOCOL, "dsc"), {}).get("macro")),
        nsd=_number(values.get((PROTOCOL, "nsd"), {}).get("macro")),
        dsc_micro=_number(values.get((PROTOCOL, "dsc"), {}).get("micro")),
        dsc_cvpr24=_number(values.get(("cvpr24", "dsc"), {}).get("macro")),
        nsd_cvpr24=_number(values.get(("cvpr24", "nsd"), {}).get("macro")),
        **{name: int(main.get(name, 0)) for name in ("cases", "objects", "failed", "skipped", "seeds", "lost_seeds")},
        status=str(main.get("status", "skipped")),
        reason=str(main.get("reason", "") if main else "no accuracy was planned for this row"),
        params=_number(cost["params"].iloc[0]) if len(cost) else None,
        flops=_number(cost["flops"].iloc[0]) if len(cost) else None,
        params_status=str(cost["params_status"].iloc[0]) if len(cost) else "",
        flops_status=str(cost["flops_status"].iloc[0]) if len(cost) else "",
        cost_reason=str(cost["reason"].iloc[0]) if len(cost) else "",
        timings=tuple(_timing(r) for r in mine(runtime).to_dict("records")),
    )


def _training(run: Run, key: Key) -> tuple[str, str]:
    """Note and origin of the weights behind a row's accuracy."""
    mine = [j for j in run.info.jobs if j.variant == key[0]]
    here = [j for j in mine if (j.variant, j.deployment, j.dataset) == key]
    # The weights the accuracy was made with; where there is none, those of the row's runtime, else of the variant.
    jobs = [j for j in here if j.kind == "accuracy"] or here or mine
    used = [run.training[j.digest] for j in jobs]
    notes = dict.fromkeys(t.note for t in used if t.note)
    return "; ".join(notes), "; ".join(dict.fromkeys(t.weights for t in used))


def _timing(row: dict[Any, Any]) -> Timing:
    sandbox, protocol = place(row["sandbox"], row["protocol"])
    return Timing(
        sandbox=sandbox,
        protocol=protocol,
        wall=_number(row["wall"]),
        peak_memory=_number(row["peak_memory"]),
        cases=int(row["cases"]),
        ok=int(row["ok"]),
        failed=int(row["failed"]),
        status=str(row["status"]),
        reason=str(row["reason"]),
    )


def places(board: Sequence[LeaderboardRow]) -> dict[Place, str]:
    """Sandboxes and protocols that occur, in order of first appearance, with the names of their columns."""
    return place_names(t.place for row in board for t in row.timings)


def timing_at(row: LeaderboardRow, where: Place) -> Timing | None:
    """The timing of a row in one sandbox under one protocol."""
    return next((t for t in row.timings if t.place == where), None)


def problem(row: LeaderboardRow) -> str:
    """What is missing from a row's accuracy, in words; empty if nothing is."""
    if row.status != "ok":
        return f"{row.status}: {row.reason}"
    bad = [f"{row.failed} of {row.cases} cases failed"] if row.failed else []
    bad += [f"{row.skipped} skipped"] if row.skipped else []
    bad += [f"{row.lost_seeds} of {row.seeds + row.lost_seeds} seeds without a value"] if row.lost_seeds else []
    return f"{', '.join(bad)}: {row.reason}" if bad else ""


def remark(row: LeaderboardRow) -> str:
    """Training note and problem of a row."""
    return "; ".join(part for part in (row.note, problem(row)) if part)


def wall_text(row: LeaderboardRow, where: Place) -> str:
    """Median wall time with how many cases it rests on if some failed, or the status."""
    found = timing_at(row, where)
    if found is None:
        return text.DASH
    if found.wall is None:
        return found.status
    good = f" ({found.rests_on})" if found.rests_on else ""
    return f"{text.seconds(found.wall)} s{good}"


def labels(board: Sequence[LeaderboardRow]) -> list[str]:
    """Names of the rows; the deployment is part of it where the rows differ in it."""
    several = len({row.deployment for row in board}) > 1
    return [row.variant + (f" · {row.deployment}" if several and row.deployment else "") for row in board]


def groups(board: Sequence[LeaderboardRow]) -> dict[str | None, list[LeaderboardRow]]:
    """The rows by data set."""
    found: dict[str | None, list[LeaderboardRow]] = {}
    for row in board:
        found.setdefault(row.dataset, []).append(row)
    return found


def count_texts(row: LeaderboardRow) -> tuple[str, str]:
    """Parameters and FLOPs, or why there is no count."""
    params = text.scaled(row.params) if row.params_status in ("ok", "") else row.params_status
    return params, text.scaled(row.flops) if row.flops_status in ("ok", "") else row.flops_status


_NUMBERS = ("DSC", "NSD", "Cases", "Params", "FLOPs")


def _numbers(row: LeaderboardRow, where: Iterable[Place]) -> list[str]:
    cells = [text.score(row.dsc), text.score(row.nsd), str(row.cases), *count_texts(row)]
    return [*cells, *(wall_text(row, one) for one in where)]


def _rank(row: LeaderboardRow) -> str:
    return text.DASH if row.rank is None else str(row.rank)


def to_terminal(board: Sequence[LeaderboardRow]) -> RenderableType:
    """A Rich renderable; the training note stands under the name of its variant, reasons below the table."""
    from rich import box
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    parts: list[Any] = []
    for dataset, group in groups(board).items():
        names = places(group)
        table = Table(
            title=f"Leaderboard · data set {dataset or 'none'}",
            box=box.SIMPLE_HEAD,
            title_justify="left",
            pad_edge=False,
            collapse_padding=True,
        )
        table.add_column("", justify="right")
        table.add_column("Variant", min_width=18, overflow="fold")
        for head in (*_NUMBERS, *(f"Wall {name}".replace(" ", "\n") for name in names.values())):
            table.add_column(head, justify="right", no_wrap=True)
        lines: list[Any] = []
        for label, row in zip(labels(group), group, strict=True):
            cell = Text(label)
            cell.append(" tiny" if row.tiny else "", style="dim")
            cell.append(f"\n{row.note}" if row.note else "", style="yellow")
            numbers = [text.DASH if n == "unsupported" else n.replace(" (", "\n(") for n in _numbers(row, names)]
            table.add_row(_rank(row), cell, *numbers)  # what is unsupported, and why, stands below the table
            if problem(row):
                lines.append(Text(f"{label}: {problem(row)}", style="yellow"))
        parts += [table, *(Padding(line, (0, 1)) for line in [*lines, *(Text(m) for m in missing_costs(group))])]
    parts.append(Padding(Text(CAPTION, style="dim"), (0, 1)))
    return Group(*parts)


def missing_costs(board: Sequence[LeaderboardRow]) -> list[str]:
    """A sentence for every reason that kept a time, part of its cases or a count from being measured."""
    found: dict[tuple[str, str, str], list[str]] = {}
    names = places(board)
    for label, row in zip(labels(board), board, strict=True):
        for t in row.timings:
            if t.reason:
                how = t.status if t.wall is None else "failed cases"
                found.setdefault((names[t.place], how, t.reason), []).append(label)
    for label, row in zip(labels(board), board, strict=True):
        if row.cost_reason:
            found.setdefault(("complexity", "not counted", row.cost_reason), []).append(label)
    timed = {name: sum(t.place == where for row in board for t in row.timings) for where, name in names.items()}
    said = []
    for (what, how, reason), who in found.items():
        everyone = len(who) == timed.get(what, len(board)) > 1
        said.append(f"{what}, {how}: {reason} ({'every row' if everyone else text.listed(who)})")
    return said


def to_markdown(board: Sequence[LeaderboardRow]) -> str:
    """GitHub-flavoured tables, one a data set."""
    lines: list[str] = []
    for dataset, group in groups(board).items():
        names = places(group)
        head = ["Rank", "Variant", "Weights", *_NUMBERS, *(f"Wall {name}" for name in names.values()), "Remark"]
        left = {"Variant", "Weights", "Remark"}
        lines += [f"**Data set {dataset or 'none'}**", "", "| " + " | ".join(head) + " |"]
        lines.append("|" + "|".join("---" if h in left else "---:" for h in head) + "|")
        for label, row in zip(labels(group), group, strict=True):
            cells = [
                _rank(row),
                label + (" (tiny)" if row.tiny else ""),
                row.weights,
                *_numbers(row, names),
                remark(row),
            ]
            lines.append("| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |")
        lines += ["", *(f"- {m}" for m in missing_costs(group)), ""]
    return "\n".join([*lines, CAPTION, ""])


# Columns of every place: prefix and suffix (the unit) around its name.
_TIMED = {"wall": "_s", "peak_memory": "_bytes", "cases": "", "ok": "", "failed": "", "status": "", "reason": ""}


def to_csv(board: Sequence[LeaderboardRow]) -> str:
    """Unrounded values, one row a leaderboard row; columns of every place, e.g. ``wall_docker_cvpr24_s``."""
    names = [n for n in LeaderboardRow.__dataclass_fields__ if n != "timings"]
    timed = [(where, name.replace(" ", "_"), field) for where, name in places(board).items() for field in _TIMED]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*names, *(f"{field}_{name}{_TIMED[field]}" for _, name, field in timed)])
    for row in board:
        cells = [getattr(row, n) for n in names]
        cells += [getattr(timing_at(row, where), field, "") for where, _, field in timed]
        writer.writerow(["" if c is None else c for c in cells])
    return out.getvalue()


def to_json(board: Sequence[LeaderboardRow]) -> str:
    """Unrounded values with the caption that belongs to them."""
    return json.dumps({"caption": CAPTION, "rows": [asdict(row) for row in board]}, indent=2, ensure_ascii=False) + "\n"
