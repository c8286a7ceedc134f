"""Warm latency on the page: times, shares of the machine's limit, ratios of the encoders, and their order in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.schema import METRICS
from reports import order, text
from reports.drawing import Figure
from reports.frame import Run
from reports.official import official
from reports.tables.common import grouped, unique
from reports.tables.latency import allocator_pairs, label, order_changes, ratios
from reports.views.model import Cell, Column, Table, joined_words, merged, number, of_metric, variant_cell

CAPTION = (
    "One warm process a row: seconds of encoding one image and of decoding one box of it, median of n rounds. In every "
    "round the machine's own matrix product (GEMM), with as many threads and the best library at hand, is timed as "
    "well; the share is the multiply-adds of the encoder ÷ what the product does in the same time."
)
RATIO_CAPTION = (
    "Seconds of one encoding ÷ {reference}'s under the same deployment and threads; below it the same ratio in units "
    "of the machine's matrix product of the same round, in which a drift of the clock between two jobs cancels."
)


@dataclass(frozen=True)
class LatencySection:
    """What the page shows of warm latency; what a run cannot show is missing."""

    times: Table
    ratios: Table | None
    figure: Figure | None = None


def latency_section(run: Run, table: pd.DataFrame, figure: Figure | None = None) -> LatencySection | None:
    """Of `reports.tables.latency`; ``None`` if nothing was measured and nothing should have been."""
    if table.empty:
        return None
    compared = ratios(run, table)
    several = compared["variant"].nunique() > 1
    return LatencySection(latency_table(table), ratio_table(run, compared) if several else None, figure)


def latency_table(table: pd.DataFrame) -> Table:
    """A row a variant, deployment and number of threads."""
    records = table.to_dict("records")
    bf16 = bool(table["share_bf16"].notna().any())
    columns = [
        Column("Variant", numeric=False),
        Column("Threads"),
        Column("n", "rounds"),
        of_metric("latency", "median, s", "Encode"),
        of_metric("latency", "median, s", "Decode"),
        of_metric("throughput", "images / s", "Throughput"),
        of_metric("gemm_peak", "multiply-adds / s", "GEMM"),
        of_metric("gemm_share", "of fp32 GEMM", "Share"),
        *([of_metric("gemm_share", "of bf16 GEMM", "Share")] if bf16 else []),
    ]
    rows = tuple(_row(r, bf16, _has_percentiles(table)) for r in records)
    failed = merged((_who(r), said) for r in records if (said := reason_words(r)))
    return Table("latency", CAPTION, tuple(columns), rows, (*failed, *_remarks(table)))


def reason_words(row: Mapping[Any, Any]) -> str:
    """Why something of a row is missing, with the status of the row if it is not ok; empty if nothing is said."""
    if row["status"] == "ok":
        return str(row["reason"] or "")
    return f"{row['status']}: {row['reason']}"


def _who(r: dict[Any, Any]) -> str:
    return joined_words(r["variant"], r["deployment"])


def _row(r: dict[Any, Any], bf16: bool, percentiles: bool) -> tuple[Cell, ...]:
    name = variant_cell(r["variant"], r["deployment"], flag=r["flag"])
    threads = number(r["threads"], text.fixed(r["threads"], 0))
    if r["status"] != "ok" and text.missing(r["encode"]):
        blank = (Cell(text.DASH) for _ in range(4 + bf16))
        return (name, threads, Cell(text.DASH), Cell(status=r["status"], reason=r["reason"]), *blank)
    notes = [] if r["status"] == "ok" else [r["status"]]
    notes += [f"{text.fixed(r['disturbed'], 0)} disturbed"] if r["disturbed"] else []
    cells = [name, threads, number(r["n"], text.fixed(r["n"], 0), note=", ".join(notes))]
    for phase in ("encode", "decode"):
        cells.append(number(r[phase], shown_seconds(r[phase]), small=_percentiles(r, phase) if percentiles else ""))
    cells += [number(r["throughput"], text.fixed(r["throughput"], METRICS["throughput"].decimals))]
    cells += [number(r["gemm"], text.scaled(r["gemm"]), small=r["gemm_by"])]
    cells += [number(r["share"], text.percent(r["share"]))]
    return (*cells, *([number(r["share_bf16"], text.percent(r["share_bf16"]))] if bf16 else []))


def shown_seconds(value: float) -> str:
    """Milliseconds matter: a decoding takes some of them."""
    if value < 0.001:
        return text.tiny(value)
    return text.fixed(value, METRICS["latency"].decimals) if value < 0.1 else text.seconds(value)


def _has_percentiles(table: pd.DataFrame) -> bool:
    return bool(table["n"].max() >= order.needed(order.PERCENTILES[0]))


def _percentiles(r: dict[Any, Any], phase: str) -> str:
    """``p90 0.71``, a line each; those that n does not allow in one line."""
    names = [f"p{round(100 * share)}" for share in order.PERCENTILES]
    found = [(name, r[f"{phase}_{name}"]) for name in names]
    lines = [f"{name} {shown_seconds(value)}" for name, value in found if not text.missing(value)]
    small = [name for name, value in found if text.missing(value)]
    return "\n".join([*lines, *([f"{', '.join(small)}: n too small"] if small else [])])


def _remarks(table: pd.DataFrame) -> list[str]:
    needs = ", ".join(f"p{round(100 * share)} from n = {order.needed(share)}" for share in order.PERCENTILES)
    said = [f"A percentile is shown where {order.BEYOND} observations lie beyond it: {needs}."]
    if not _has_percentiles(table):
        said = [f"Percentiles: n too small. {said[0]}"]
    if table["disturbed"].any():
        said.append(
            "Disturbed rounds count like all others: the CPU was slower than before, throttled, or taken by the "
            "hypervisor meanwhile. Ratios in units of the matrix product suffer less than seconds."
        )
    if table["gemm_by"].nunique() > 1:
        said.append("The matrix product is that of the fastest library and size, chosen anew for each row.")
    return said


def ratio_table(run: Run, table: pd.DataFrame) -> Table:
    """A row a variant (fused ones apart) and number of threads, a column a deployment; the order in words below."""
    reference = str(table["reference"].iloc[0])
    names, infos = unique(table["column"]), run.info.resolved.deployments
    many = table["threads"].nunique() > 1
    columns = [Column("Variant", numeric=False)]
    columns += [Column("Threads")] if many else []
    columns += [Column(n, f"allocator {infos[n].allocator}" if n in infos else "", better="lower") for n in names]
    rows = []
    for key, part in grouped(table, ["threads", "variant", "fused"]):
        cells = {r["column"]: _ratio(r) for r in part.to_dict("records")}
        name = variant_cell(label(key["variant"], key["fused"]), flag="; ".join(unique(part["flag"])))
        threads = [number(key["threads"], text.fixed(float(str(key["threads"])), 0))] if many else []
        rows.append((name, *threads, *(cells.get(n, Cell(text.DASH)) for n in names)))
    remarks = [*order_words(run, table), *_about_official(table)]
    return Table(
        "latency-ratios", RATIO_CAPTION.format(reference=reference), tuple(columns), tuple(rows), tuple(remarks)
    )


def _ratio(r: dict[Any, Any]) -> Cell:
    lines = [f"in GEMM {text.times(r['ratio_in_gemm'])}"]
    lines += [] if text.missing(r["official"]) else [f"official {text.times(r['official'])}"]
    return number(r["ratio"], text.times(r["ratio"]), small="\n".join(lines))


def _about_official(table: pd.DataFrame) -> list[str]:
    return [f"Official: {official().what}."] if table["official"].notna().any() else []


def order_words(run: Run, table: pd.DataFrame) -> list[str]:
    """Which orders depend on the allocator, in sentences; ``table``: of `reports.tables.latency.ratios`.

    Nothing where no two deployments differ in the allocator alone.
    """
    changes = order_changes(run, table)
    said: list[str] = []
    for key, part in grouped(changes, ["one", "other"]):
        first = part.iloc[0]
        one, other = (f"{key[n]} (allocator {first[f'{n}_allocator']})" for n in ("one", "other"))
        said += _reversed(part[part["change"] == "reversed"], one, other)
        said += _told_apart(part[part["change"] == "only one"], one, other)
        said += _told_apart(part[part["change"] == "only other"], other, one)
        unknown = part[part["change"] == "unknown"]
        if len(unknown):
            said.append(
                f"Whether an order depends on the allocator cannot be told, {_threads(unknown)}: the interval of a "
                f"median takes {order.FEWEST} rounds."
            )
    return [*said, *_unchanged(run, table, changes)]


def _threads(part: pd.DataFrame) -> str:
    """``1 thread``, ``1 and 2 threads``."""
    numbers = [str(int(n)) for n in sorted(set(part["threads"]))]
    return f"{text.listed(numbers)} {'thread' if numbers == ['1'] else 'threads'}"


def _reversed(part: pd.DataFrame, one: str, other: str) -> list[str]:
    """A sentence a pair that changes places, with the ratios of the largest number of threads."""
    said = []
    ahead = part["one_ratios"].map(lambda r: r[0] < r[1]).astype(bool)
    for _, mine in grouped(part.assign(ahead=ahead), ["first", "second", "ahead"]):
        r = mine.sort_values("threads").iloc[-1]
        names = [r["first"], r["second"]][:: 1 if r["ahead"] else -1]
        here, there = (
            [text.times(v) for v in r[c]][:: 1 if r["ahead"] else -1] for c in ("one_ratios", "other_ratios")
        )
        last = "" if mine["threads"].nunique() == 1 else f", ratios of {int(r['threads'])} threads"
        said.append(
            f"The allocator decides the order: {names[0]} is faster than {names[1]} under {one} ({here[0]} against "
            f"{here[1]} in units of the matrix product) and slower under {other} ({there[0]} against {there[1]}); "
            f"{_threads(mine)}{last}."
        )
    return said


def _told_apart(part: pd.DataFrame, told: str, not_told: str) -> list[str]:
    pairs: dict[str, list[str]] = {}
    for key, mine in grouped(part, ["first", "second"]):
        pairs.setdefault(_threads(mine), []).append(f"{key['first']} and {key['second']}")
    return [f"Told apart under {told}, not under {not_told}: {'; '.join(who)}; {n}." for n, who in pairs.items()]


def _unchanged(run: Run, table: pd.DataFrame, changes: pd.DataFrame) -> list[str]:
    """A sentence for every two deployments that differ in the allocator alone and give the same order.

    An order takes two names at least that were measured under both.
    """
    changed = set(zip(changes["one"], changes["other"], changes["threads"], strict=True))
    said = "The allocator does not change the order of the variants"
    return [
        f"{said}, {text.plural(int(n), 'thread')}: {one} and {other}."
        for one, other in allocator_pairs(run, table)
        for n in sorted(set(table["threads"]))
        if (one, other, n) not in changed and len(_names(table, one, n) & _names(table, other, n)) > 1
    ]


def _names(table: pd.DataFrame, column: str, threads: float) -> set[str]:
    """Names measured under a deployment with a number of threads."""
    part = table[(table["column"] == column) & (table["threads"] == threads)]
    return {label(r["variant"], r["fused"]) for r in part.to_dict("records")}
