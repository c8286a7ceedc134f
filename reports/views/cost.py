"""Tables of the page that show cost: parameters and FLOPs, time and memory of cold runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from harness.schema import PARTS, PHASES
from reports import text
from reports.tables.common import none_if_missing
from reports.views.model import Cell, Column, Table, joined_words, number, of_metric, variant_cell, word


def complexity_table(table: pd.DataFrame, several: bool) -> Table:
    """Parameters and FLOPs, whole and by part."""
    columns = [Column("Variant", numeric=False)]
    for metric, title, sub in (("params", "Parameters", ""), ("flops", "FLOPs", "multiply-adds")):
        columns.append(of_metric(metric, sub, title))
        columns += [Column(part.replace("_", " "), title) for part in PARTS]
    columns.append(Column("Not counted", "operator calls"))
    records = table.to_dict("records")
    rows = []
    for r in records:
        cells = [variant_cell(r["variant"], r["deployment"] if several else None)]
        for metric, show in (("params", text.count), ("flops", text.scaled)):
            status = r[f"{metric}_status"]
            bad = Cell(status=status, reason=r["reason"])
            cells.append(number(r[metric], show(r[metric])) if status == "ok" else bad)
            cells += [number(r[f"{metric}_{p}"], text.scaled(r[f"{metric}_{p}"])) for p in PARTS]
        rows.append((*cells, number(r["uncounted"], text.count(r["uncounted"]))))
    remarks = _merged([(r["variant"], r["reason"]) for r in records if r["reason"]])
    remarks += _merged([(r["variant"], f"not counted are {r['operators']}") for r in records if r["operators"]])
    caption = "One image and one box. One multiply-add counts as 1. Operators the counter does not know count as 0."
    return Table("complexity", caption, tuple(columns), tuple(rows), tuple(remarks))


def _merged(remarks: Sequence[tuple[str, str]]) -> list[str]:
    """One remark for all rows that share it."""
    found: dict[str, list[str]] = {}
    for who, said in remarks:
        found.setdefault(said, []).append(who)
    return [f"{text.listed(list(dict.fromkeys(who)))}: {said}" for said, who in found.items()]


def runtime_table(table: pd.DataFrame, several: bool) -> Table:
    """Cold runs, sandbox by sandbox: a row a variant, deployment, data set and protocol."""
    columns = (
        Column("Variant", numeric=False),
        Column("Sandbox", numeric=False),
        Column("Protocol", numeric=False),
        of_metric("wall", "median, s"),
        of_metric("peak_memory", "largest"),
        Column("Cases", "ok of all"),
        Column("Repeats", "a case"),
        Column("Memory limit", "read back"),
        Column("CPU limit", "read back"),
    )
    order = {name: place for place, name in enumerate(dict.fromkeys(table["sandbox"]))}
    records = sorted(table.to_dict("records"), key=lambda r: order[r["sandbox"]])
    many = table["dataset"].nunique() > 1
    rows = []
    for r in records:
        bad = none_if_missing(r["wall"]) is None
        wall = Cell(status=r["status"], reason=r["reason"]) if bad else number(r["wall"], text.seconds(r["wall"]))
        rows.append(
            (
                variant_cell(
                    r["variant"], joined_words(r["deployment"] if several else None, r["dataset"] if many else None)
                ),
                word(r["sandbox"]),
                word(r["protocol"]),
                wall,
                number(r["peak_memory"], text.size(r["peak_memory"])),
                number(r["ok"], f"{r['ok']} of {r['cases']}" if r["cases"] else text.DASH),
                number(r["repeats"], str(r["repeats"]) if r["repeats"] else text.DASH),
                _limits(r["memory_limit"], text.size),
                _limits(r["cpu_limit"], lambda v: f"{v:g}"),
            )
        )
    caption = (
        "Cold runs: a new process or container for every case. Median over the ok cases of the median over repeats."
    )
    return Table("runtime", caption, columns, tuple(rows), tuple(_reasons(records, several)))


def _reasons(records: Sequence[dict[Any, Any]], several: bool) -> list[str]:
    """Why times are missing, sandbox by sandbox."""
    said = []
    for sandbox in dict.fromkeys(r["sandbox"] for r in records):
        mine = [r for r in records if r["sandbox"] == sandbox]
        bad = [r for r in mine if r["reason"]]
        if len(bad) == len(mine) > 1 and len({r["reason"] for r in bad}) == 1:
            said.append(f"{sandbox}, every row: {bad[0]['reason']}")
        else:
            names = [joined_words(r["variant"], r["deployment"] if several else None) for r in bad]
            said += _merged([(f"{sandbox}, {n}", r["reason"]) for n, r in zip(names, bad, strict=True)])
    return said


def _limits(values: Sequence[float], show: Callable[[float], str]) -> Cell:
    return number(values[0], " / ".join(show(v) for v in values)) if len(values) else Cell(text.DASH)


def runtime_case_table(table: pd.DataFrame, several: bool) -> Table:
    """Every case of every sandbox."""
    columns = (
        Column("Case", numeric=False),
        Column("Variant", numeric=False),
        Column("Sandbox", numeric=False),
        Column("Protocol", numeric=False),
        of_metric("wall", "median, s"),
        Column("Range", "s"),
        Column("Repeats"),
        of_metric("peak_memory", ""),
        Column("Encodings"),
        Column("Status", numeric=False),
    )
    rows = []
    for r in table[table["case"].notna()].to_dict("records"):
        bad = r["status"] != "ok"
        several_ok = r["repeats"] > 1 and not bad
        spread = f"{text.seconds(r['wall_min'])}–{text.seconds(r['wall_max'])}" if several_ok else text.DASH
        rows.append(
            (
                word(r["case"]),
                word(joined_words(r["variant"], r["deployment"] if several else None)),
                word(r["sandbox"]),
                word(r["protocol"]),
                number(r["wall"], text.seconds(r["wall"])),
                Cell(spread),
                number(r["repeats"], str(r["repeats"])),
                number(r["peak_memory"], text.size(r["peak_memory"])),
                number(r["encodes"], text.count(r["encodes"])),
                Cell(status=r["status"], reason=r["reason"], small=r["reason"], sort=r["status"])
                if bad
                else word("ok"),
            )
        )
    return Table(
        "runtime-cases",
        "Every case; the range is over its repeats. A case has a time only if every repeat was ok.",
        columns,
        tuple(rows),
    )


def phase_table(table: pd.DataFrame, several: bool) -> Table:
    """Mean seconds of every phase."""
    used = [p for p in PHASES if p in set(table["phase"])]
    columns = (
        Column("Variant", numeric=False),
        Column("Sandbox", numeric=False),
        Column("Protocol", numeric=False),
        *(Column(p, "s") for p in used),
        Column("Sum", "s"),
    )
    rows = []
    keys = ["variant", "deployment", "sandbox", "protocol", "dataset"]
    many = table["dataset"].nunique() > 1
    for key, part in table.groupby(keys, sort=False, dropna=False):
        times = dict(zip(part["phase"], part["seconds"], strict=True))
        cells = [number(times.get(p), text.fixed(times.get(p), 3)) for p in used]
        total = part["seconds"].sum()
        name = variant_cell(key[0], joined_words(key[1] if several else None, key[4] if many else None))
        rows.append((name, word(key[2]), word(key[3]), *cells, number(total, text.fixed(total, 3))))
    return Table("phases", "Mean over the repeats of the cases that were ok.", columns, tuple(rows))
