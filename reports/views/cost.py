"""Tables of the page that show cost: parameters and multiply-adds, time and memory of cold runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from harness.schema import PARTS, PHASES
from reports import text
from reports.tables.common import joined, none_if_missing
from reports.views.model import Cell, Column, Table, joined_words, number, of_metric, variant_cell, word
from reports.views.model import merged as _merged

COMPLEXITY_CAPTION = (
    "All variants counted one way: fvcore, eval mode, one image of the variant's own input size, one box. One "
    "multiply-add counts as 1, an element of batch normalisation as 2, of layer normalisation as 5; operators the "
    "counter does not know count as 0. Cross-check: torch's own counter, which leaves normalisation out and counts a "
    "multiply-add as 2 FLOPs, halved. Activations: the most bytes of operators' outputs alive at once in one forward."
)


def complexity_table(table: pd.DataFrame, several: bool) -> Table:
    """Parameters, multiply-adds and activations: all variants counted one way."""
    records = table.to_dict("records")
    prompts = any(none_if_missing(r["flops_with_prompts"]) is not None for r in records)
    parts = [(metric, part) for metric in ("params", "flops") for part in PARTS]
    titles = {"params": "Parameters", "flops": "Multiply-adds"}
    columns = (
        Column("Variant", numeric=False),
        of_metric("params", "", titles["params"]),
        of_metric("params_unused", "parameters", "Never executed"),
        of_metric("flops", "fvcore", titles["flops"]),
        *([Column("All its prompts", "multiply-adds")] if prompts else []),
        Column("Cross-check", "FlopCounterMode ÷ 2"),
        of_metric("activation_peak", "float32", "Activations"),
        *(Column(part.replace("_", " "), titles[metric]) for metric, part in parts),
        Column("Not counted", "operator calls"),
    )
    rows = []
    for r in records:
        cells = [
            variant_cell(r["variant"], r["deployment"] if several else None),
            _counted(r, "params", text.count),
            number(r["params_unused"], text.count(r["params_unused"])),
            _counted(r, "flops", text.scaled),
            *([number(r["flops_with_prompts"], text.scaled(r["flops_with_prompts"]))] if prompts else []),
            number(r["flops_cross_check"], text.scaled(r["flops_cross_check"])),
            number(r["activation_peak"], text.size(r["activation_peak"])),
            *(number(r[f"{metric}_{part}"], text.scaled(r[f"{metric}_{part}"])) for metric, part in parts),
            number(r["uncounted"], text.count(r["uncounted"])),
        ]
        rows.append(tuple(cells))
    remarks = _merged([(r["variant"], r["reason"]) for r in records if r["reason"]])
    remarks += _merged([(r["variant"], said) for r in records for said in _further_remarks(r)])
    remarks += _merged([(r["variant"], f"not counted are {r['operators']}") for r in records if r["operators"]])
    return Table("complexity", COMPLEXITY_CAPTION, columns, tuple(rows), tuple(remarks))


def _counted(row: dict[Any, Any], metric: str, show: Callable[[Any], str]) -> Cell:
    """A count, or why there is none."""
    status = row[f"{metric}_status"]
    return number(row[metric], show(row[metric])) if status == "ok" else Cell(status=status, reason=row["reason"])


def _further_remarks(row: dict[Any, Any]) -> list[str]:
    """What the columns beside parameters and multiply-adds need said of a row."""
    said = []
    unexplained = none_if_missing(row["cross_check_unexplained"])
    if unexplained is not None:
        why = "normalisation and fvcore's rounding of einsum" if row["cross_check_rounding"] else "normalisation alone"
        rest = f", but for {text.scaled(row['cross_check_unexplained'])}" if unexplained else ""
        said.append(f"the two counters differ by {why}{rest}")
    if none_if_missing(row["params_unused"]):
        said.append(
            f"of {text.scaled(row['params'])} parameters, {text.scaled(row['params_unused'])} are never executed "
            f"({row['unused_modules']})"
        )
    if row["prompts_convention"]:
        said.append(f"all its prompts are counted with {row['prompts_convention'].rpartition('; ')[2]}")
    return said


def runtime_table(table: pd.DataFrame, several: bool, further: Sequence[str] = ()) -> Table:
    """Cold runs, sandbox by sandbox: a row a variant, deployment, data set and protocol; ``further`` remarks."""
    columns = (
        Column("Variant", numeric=False),
        Column("Sandbox", numeric=False),
        Column("Protocol", numeric=False),
        of_metric("wall", "median, s"),
        of_metric("peak_anonymous", "largest"),
        Column("With page cache", "largest"),
        Column("Cases", "ok of all"),
        Column("Repeats", "a case"),
        Column("Disturbed", "runs"),
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
                    r["variant"],
                    joined_words(r["deployment"] if several else None, r["dataset"] if many else None),
                    flag=r["flag"],
                ),
                word(r["sandbox"]),
                word(r["protocol"]),
                wall,
                number(r["peak_anonymous"], text.size(r["peak_anonymous"])),
                number(r["peak_memory"], text.size(r["peak_memory"])),
                number(r["ok"], f"{r['ok']} of {r['cases']}" if r["cases"] else text.DASH),
                number(r["repeats"], str(r["repeats"]) if r["repeats"] else text.DASH),
                number(r["disturbed"], f"{r['disturbed']} of {r['runs']}" if r["runs"] else text.DASH),
                _limits(r["memory_limit"], text.size),
                _limits(r["cpu_limit"], lambda v: f"{v:g}"),
            )
        )
    remarks = [
        *_reasons(records, several),
        *_not_interleaved(records),
        *_own_cost(records),
        *_page_cache(records),
        *further,
    ]
    return Table("runtime", RUNTIME_CAPTION, columns, tuple(rows), tuple(remarks))


RUNTIME_CAPTION = (
    "Cold runs: a new process or container for every case. Median over the ok cases of the median over repeats. Peak "
    "memory is anonymous memory, sampled; with the page cache, which a machine takes and gives as it likes, it stands "
    "beside. Disturbed: runs during which the hypervisor, heat or other work slowed the machine."
)


def _page_cache(records: Sequence[dict[Any, Any]]) -> list[str]:
    """Rows whose files were read from the disk again: an axis of its own, which nothing warm compares with."""
    rows = [joined_words(r["sandbox"], r["variant"], r["deployment"]) for r in records if "cold" in r["page_cache"]]
    return _merged([(name, "timed with a cold page cache, files read from the disk") for name in rows])


def _own_cost(records: Sequence[dict[Any, Any]]) -> list[str]:
    """What the harness itself cost, sandbox by sandbox."""
    said = []
    for sandbox in dict.fromkeys(r["sandbox"] for r in records):
        mine = [r for r in records if r["sandbox"] == sandbox and r["inside"] > 0 and r["outside"] > 0]
        inside, outside = (sum(r[name] for r in mine) for name in ("inside", "outside"))
        if mine:
            runs = sum(r["runs"] for r in mine)
            said.append(f"{sandbox}: beside {runs} runs the harness spent {outside / inside:.1%} of their time")
    return said


def _not_interleaved(records: Sequence[dict[Any, Any]]) -> list[str]:
    """Which rows were timed at another time than the others: their ratios hold a drift of the machine as well."""
    said = []
    for sandbox in dict.fromkeys(r["sandbox"] for r in records):
        mine = [r for r in records if r["sandbox"] == sandbox and r["sessions"]]
        if len({r["sessions"] for r in mine}) > 1:
            several = len({name for r in mine for name in r["sessions"].split("; ")})
            said.append(
                f"{sandbox}: the rows come from {several} sessions; only rows of one session were timed in turns, and "
                "`bench run --fresh runtime` times all of them together"
            )
    return said


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
        Column("95 % of the median", "s"),
        Column("Range", "s"),
        Column("Repeats"),
        of_metric("peak_anonymous", ""),
        Column("With page cache"),
        Column("Encodings", "of these again"),
        Column("Status", numeric=False),
    )
    rows = []
    for r in table[table["case"].notna()].to_dict("records"):
        bad = r["status"] != "ok"
        several_ok = r["repeats"] > 1 and not bad
        spread = f"{text.seconds(r['wall_min'])}–{text.seconds(r['wall_max'])}" if several_ok else text.DASH
        known = none_if_missing(r["wall_low"]) is not None
        interval = f"{text.seconds(r['wall_low'])}–{text.seconds(r['wall_high'])}" if known else text.DASH
        again = f"{text.count(r['encoded_again'])} again" if r["encoded_again"] > 0 else ""
        rows.append(
            (
                word(r["case"]),
                word(joined_words(r["variant"], r["deployment"] if several else None), flag=r["flag"]),
                word(r["sandbox"]),
                word(r["protocol"]),
                number(r["wall"], text.seconds(r["wall"])),
                Cell(interval),
                Cell(spread),
                number(r["repeats"], str(r["repeats"])),
                number(r["peak_anonymous"], text.size(r["peak_anonymous"])),
                number(r["peak_memory"], text.size(r["peak_memory"])),
                number(r["encodes"], text.count(r["encodes"]), small=again),
                Cell(status=r["status"], reason=r["reason"], small=r["reason"], sort=r["status"])
                if bad
                else word("ok"),
            )
        )
    return Table(
        "runtime-cases",
        "Every case; interval of the median (order statistics, six repeats at least) and range over its repeats. A "
        "case has a time only if every repeat was ok.",
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
        deployment = joined_words(key[1] if several else None, key[4] if many else None)
        name = variant_cell(key[0], deployment, flag=joined(part["flag"]))
        rows.append((name, word(key[2]), word(key[3]), *cells, number(total, text.fixed(total, 3))))
    return Table("phases", "Mean over the repeats of the cases that were ok.", columns, tuple(rows))
