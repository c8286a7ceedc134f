"""Warm latency: times of one encoding and one decoding, their share of the machine's limit, and ratios of variants.

Times of two jobs are minutes apart, and the machine may have been slower in one of them.  So each encoding is also
expressed in what the machine's matrix product does in the same time (seconds × multiply-adds per second of the same
round): such figures are compared where it matters, the ratio of the bare seconds stands beside them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from harness.stats import median_interval
from reports import order
from reports.deployments import differing
from reports.frame import IMAGE_FAMILY, Run
from reports.official import official
from reports.runfile import VariantInfo
from reports.tables.common import grouped, joined, none_if_missing, unique
from reports.tables.fidelity import flagged
from reports.training import REFERENCE_FAMILIES

REFERENCE = "litemedsam"
PHASES: tuple[str, ...] = ("encode", "decode")
COLUMNS: tuple[str, ...] = (
    "variant", "deployment", "threads", "n", "encode", "encode_p90", "encode_p95", "encode_p99", "decode", "decode_p90",
    "decode_p95", "decode_p99", "throughput", "gemm", "gemm_by", "share", "gemm_bf16", "share_bf16", "in_gemm",
    "in_gemm_low", "in_gemm_high", "load", "disturbed", "disturbances", "status", "reason", "flag",
)  # fmt: skip
RATIO_COLUMNS: tuple[str, ...] = (
    "variant", "fused", "deployment", "column", "threads", "reference", "ratio", "ratio_in_gemm", "official", "low",
    "high", "flag",
)  # fmt: skip
CHANGE_COLUMNS: tuple[str, ...] = (
    "first", "second", "threads", "one", "other", "one_allocator", "other_allocator", "one_ratios", "other_ratios",
    "change",
)  # fmt: skip
_NUMBERS = [
    c for c in COLUMNS if c not in ("variant", "deployment", "gemm_by", "disturbances", "status", "reason", "flag")
]


def latency(run: Run) -> pd.DataFrame:
    """One row a variant, deployment and number of threads: `COLUMNS`.

    ``encode`` and ``decode``: median seconds; a percentile that n does not allow is NaN (`reports.order.percentile`);
    ``throughput``: images per second, one after the other; ``gemm`` and ``gemm_bf16``: multiply-adds per second of the
    machine's matrix product, median; ``share``: of it that the encoder reaches, median over rounds; ``in_gemm``:
    multiply-adds that the matrix product does during one encoding, with the interval of its median; ``disturbed``:
    rounds during which something else had the machine, ``disturbances`` says what.
    """
    frame = run.frame[run.frame["kind"] == "latency"]
    rows = [_row(run, key, part) for key, part in grouped(frame, ["job", "variant", "deployment"])]
    table = pd.DataFrame(rows, columns=[c for c in COLUMNS if c != "flag"])
    table = flagged(run, table.astype(dict.fromkeys(_NUMBERS, float)))
    places = {label: place for place, label in enumerate(run.variant_order())}
    names = {name: place for place, name in enumerate(dict.fromkeys(table["deployment"]))}
    table["place"], table["name"] = table["variant"].map(places), table["deployment"].map(names)
    return table.sort_values(["place", "name", "threads"], kind="stable", ignore_index=True)[list(COLUMNS)]


def _row(run: Run, key: Mapping[str, object], part: pd.DataFrame) -> dict[str, Any]:
    good = part[part["value"].notna()]
    details = good["detail"].map(_detail)
    precision = details.map(lambda d: d.get("precision"))
    encodes = _by_round(_encodes(good))
    row: dict[str, Any] = {"variant": key["variant"], "deployment": key["deployment"], "n": len(encodes)}
    row["threads"] = _threads(run, str(key["job"]))
    for phase in PHASES:
        seconds = list(good.loc[(good["metric"] == "latency") & (good["phase"] == phase), "value"])
        row[phase] = order.middle(seconds)
        row |= {f"{phase}_p{round(100 * p)}": order.percentile(seconds, p) for p in order.PERCENTILES}
    row["throughput"] = _throughput(good)
    for name, suffix in (("fp32", ""), ("bf16", "_bf16")):
        peaks, shares = (good[(good["metric"] == m) & (precision == name)] for m in ("gemm_peak", "gemm_share"))
        row[f"gemm{suffix}"], row[f"share{suffix}"] = (
            order.middle(list(peaks["value"])),
            order.middle(list(shares["value"])),
        )
        if name == "fp32":
            row["gemm_by"] = joined(d.get("library") for d in details[peaks.index])
            limits = _by_round(peaks)
    in_gemm = [seconds * limits[number] for number, seconds in encodes.items() if number in limits]
    row["in_gemm"] = order.middle(in_gemm)
    row["in_gemm_low"], row["in_gemm_high"] = median_interval(in_gemm) or (None, None)
    row["load"] = max((d["load"] for d in details if d.get("load") is not None), default=None)
    told = [d["disturbed"] for d in details[_encodes(good).index] if d.get("disturbed")]
    row |= {"disturbed": len(told), "disturbances": joined(word for words in told for word in words)}
    bad = part[part["status"] != "ok"]
    lost = bad[bad["metric"] == "latency"]
    row["status"] = str(lost["status"].iloc[0]) if len(lost) else "ok"
    row["reason"] = joined(bad["reason"])
    return row


def _encodes(records: pd.DataFrame) -> pd.DataFrame:
    """The records of encodings, one a round."""
    return records[(records["metric"] == "latency") & (records["phase"] == "encode")]


def _by_round(records: pd.DataFrame) -> dict[int, float]:
    return {int(n): float(v) for n, v in zip(records["repeat"], records["value"], strict=True)}


def _throughput(good: pd.DataFrame) -> float | None:
    """All images ÷ all seconds, from the images and the rate of every block."""
    blocks = good[good["metric"] == "throughput"]
    images = [float(_detail(d)["images"]) for d in blocks["detail"]]
    seconds = sum(n / rate for n, rate in zip(images, blocks["value"], strict=True))
    return sum(images) / seconds if seconds else None


def _detail(text: object) -> dict[str, Any]:
    data = json.loads(text) if isinstance(text, str) else {}
    return data if isinstance(data, dict) else {}


def _threads(run: Run, digest: str) -> int | None:
    settings = next(job.settings for job in run.info.jobs if job.digest == digest)
    return next(iter(settings.get("threads") or []), None)


def networks(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of variants that are networks: what fills a box without looking is no measure of speed."""
    network = {label for label, variant in run.info.variants.items() if variant.family not in REFERENCE_FAMILIES}
    return table[table["variant"].isin(network)]


def reference_of(run: Run) -> str | None:
    """The row that ratios are made to: LiteMedSAM as it is, else the first of its family."""
    named = [label for label, v in run.info.variants.items() if _is_reference(v)]
    return next(iter([*named, *(label for label, v in run.info.variants.items() if v.family == REFERENCE)]), None)


def _is_reference(variant: VariantInfo) -> bool:
    return variant.name == REFERENCE and not variant.set and variant.family != IMAGE_FAMILY


def ratios(run: Run, table: pd.DataFrame | None = None) -> pd.DataFrame:
    """Every row's encoding ÷ that of `reference_of` under the same deployment and threads: `RATIO_COLUMNS`.

    A deployment that differs from another one of the run in ``fuse`` alone stands in the column of that one: what a
    variant gains by fusing shows beside the variant that did not.  ``ratio``: of median seconds; ``ratio_in_gemm``: of
    medians in units of the matrix product; ``low`` and ``high``: interval of the latter's numerator; ``official``: the
    ratio of the official encoders, where one was measured.
    """
    table = latency(run) if table is None else table
    base, used = reference_of(run), [str(d) for d in unique(table["deployment"])]
    measured = networks(run, table[table["encode"].notna()])
    column_of = {name: _unfused(run, name, used) for name in used}
    rows: list[dict[str, Any]] = []
    for r in measured.to_dict("records"):
        column = column_of.get(str(r["deployment"]), r["deployment"])
        same = (
            (measured["variant"] == base) & (measured["deployment"] == column) & (measured["threads"] == r["threads"])
        )
        if same.any():
            against = measured[same].iloc[0]
            row = {name: r[name] for name in ("variant", "deployment", "threads", "flag")}
            row |= {"fused": column != r["deployment"], "column": column, "reference": base}
            row |= {"low": r["in_gemm_low"], "high": r["in_gemm_high"], "ratio": r["encode"] / against["encode"]}
            row |= {"ratio_in_gemm": r["in_gemm"] / against["in_gemm"], "official": _official(run, r, column)}
            rows.append(row)
    numbers = ("threads", "ratio", "ratio_in_gemm", "official", "low", "high")
    return pd.DataFrame(rows, columns=list(RATIO_COLUMNS)).astype(dict.fromkeys(numbers, float))


def _unfused(run: Run, name: str, used: list[str]) -> str:
    info = run.info.resolved.deployments.get(name)
    if info is None or not info.fuse:
        return name
    return next((other for other in used if _differ(run, name, other) == {"fuse"}), name)


def _differ(run: Run, one: str, other: str) -> set[str]:
    """Settings in which two deployments differ; the number of threads is the measurement's own."""
    return differing(run.info, one, other, ignored=("threads",))


def _official(run: Run, row: Mapping[Any, Any], column: object) -> float | None:
    info, variant = run.info.resolved.deployments.get(str(row["deployment"])), run.info.variants[str(row["variant"])]
    plain = run.info.resolved.deployments.get(str(column))
    known = official()
    if info is None or plain is None or not plain.plain or variant.set or row["threads"] != known.threads:
        return None
    return known.ratio(variant.name, info.fuse, info.allocator)


def order_changes(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """Pairs of variants whose order differs between two deployments that differ in the allocator alone.

    `CHANGE_COLUMNS`; ``table``: of `ratios`.  One is faster than another if the intervals of their medians, in units of
    the matrix product, do not overlap.  ``change``: ``reversed``, ``only one`` or ``only other`` (told apart under that
    deployment alone), ``unknown`` (too few rounds); ``one_ratios``: those of ``first`` and ``second``.
    """
    rows: list[dict[str, Any]] = []
    infos = run.info.resolved.deployments
    for one, other in allocator_pairs(run, table):
        for threads in sorted(set(table["threads"])):
            about = {"threads": threads, "one": one, "other": other}
            about |= {"one_allocator": infos[one].allocator, "other_allocator": infos[other].allocator}
            here, there = (_of_column(table, name, threads) for name in (one, other))
            names = [name for name in here if name in there]
            for i, first in enumerate(names):
                for second in names[i + 1 :]:
                    change = _change(*(order.faster(c[first][1], c[second][1]) for c in (here, there)))
                    if change:
                        both = [(c[first][0], c[second][0]) for c in (here, there)]
                        named = {"first": first, "second": second, "one_ratios": both[0], "other_ratios": both[1]}
                        rows.append({**about, **named, "change": change})
    return pd.DataFrame(rows, columns=list(CHANGE_COLUMNS))


def allocator_pairs(run: Run, table: pd.DataFrame) -> list[tuple[str, str]]:
    """Columns of `ratios` whose deployments differ in the allocator alone."""
    columns = unique(table["column"])
    return [(a, b) for i, a in enumerate(columns) for b in columns[i + 1 :] if _differ(run, a, b) == {"allocator"}]


def label(variant: object, fused: object) -> str:
    """``rep_medsam, fused``."""
    return f"{variant}, fused" if fused else str(variant)


def _of_column(table: pd.DataFrame, column: str, threads: float) -> dict[str, tuple[float, order.Interval | None]]:
    """Name → ratio in units of the matrix product, and the interval of the row's median."""
    part = table[(table["column"] == column) & (table["threads"] == threads)]
    return {
        label(r["variant"], r["fused"]): (
            float(r["ratio_in_gemm"]),
            None if none_if_missing(r["low"]) is None else (float(r["low"]), float(r["high"])),
        )
        for r in part.to_dict("records")
    }


def _change(one: int | None, other: int | None) -> str:
    if one is None or other is None:
        return "unknown"
    if one == other:
        return ""
    return "reversed" if one and other else "only one" if one else "only other"
