"""Cells: the aggregate values of a run that a baseline stores and a gate compares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

from harness.schema import GATEABLE, METRICS, Direction
from reports.frame import Run
from reports.tables import accuracy_summary, complexity, fidelity, runtime_summary
from reports.tables.common import grouped, joined, none_if_missing

Key = tuple[str, str | None, str | None, str | None, str | None, str]


@dataclass(frozen=True)
class Cell:
    """One aggregate.

    Attributes:
        variant, deployment, dataset, sandbox, protocol, metric: what it is, and its `key`.
        aggregate: how it was made from the records, e.g. ``macro average over modalities``.
        value: ``None`` if nothing was measured.
        ok, failed, skipped: numbers of cases (of jobs, where there are no cases); no case is counted twice.
        case_set: fingerprint of the names of the cases; two values are comparable only if it agrees.
        data_digest: of the data set, ``None`` where none is involved.
        status, reason: ``ok`` if there is a value.
        note: training note of the weights, for accuracy.
        flag: warning of the deployment.
        lost_seeds: number of training seeds that the value lacks because their job failed or was skipped.
    """

    variant: str
    deployment: str | None
    dataset: str | None
    sandbox: str | None
    protocol: str | None
    metric: str
    aggregate: str
    value: float | None
    ok: int
    failed: int
    skipped: int
    case_set: str
    data_digest: str | None
    status: str
    reason: str
    note: str
    lost_seeds: int = 0
    flag: str = ""

    @property
    def key(self) -> Key:
        return self.variant, self.deployment, self.dataset, self.sandbox, self.protocol, self.metric

    @property
    def unit(self) -> str:
        return METRICS[self.metric].unit

    @property
    def direction(self) -> Direction:
        return METRICS[self.metric].direction

    @property
    def timed(self) -> bool:
        """Whether the value depends on the machine that measured it."""
        return self.sandbox is not None or self.metric == "speed_ratio"

    @property
    def label(self) -> str:
        """The key in words."""
        parts = [self.variant, self.deployment, self.dataset, self.sandbox]
        return " · ".join(p for p in parts if p)

    def to_json(self) -> dict[str, Any]:
        """Plain data, with unit and direction."""
        return {**asdict(self), "unit": self.unit, "direction": self.direction}


def cells(run: Run) -> list[Cell]:
    """All aggregates of a run, in the order of the suite; cells that hold no value included."""
    digests = {name: data.digest for name, data in run.info.provenance.datasets.items()}
    found = [*_accuracy(run), *_complexity(run), *_runtime(run), *_deployments(run)]
    return [Cell(**{**row, "data_digest": digests.get(row["dataset"])}) for row in found]


def _value(value: Any) -> float | None:
    plain = none_if_missing(value)
    return None if plain is None else float(plain)  # type: ignore[arg-type]


def _rows(table: pd.DataFrame, labels: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], dict[Any, Any]]]:
    """Every row with the fields that are the same for all kinds of cells."""
    for row in table.to_dict("records"):
        base: dict[str, Any] = dict.fromkeys(("deployment", "dataset", "sandbox", "protocol"))
        base |= {name: none_if_missing(row[name]) for name in labels}
        base |= {"variant": row["variant"], "status": row.get("status"), "reason": row["reason"], "note": ""}
        base["flag"] = row.get("flag", "")
        yield base, row


def _accuracy(run: Run) -> Iterator[dict[str, Any]]:
    found = accuracy_summary(run)
    for base, row in _rows(found[found["metric"].isin(GATEABLE)], ("deployment", "dataset", "protocol")):
        yield {
            **base,
            "metric": row["metric"],
            "aggregate": "macro average over modalities",
            "value": _value(row["macro"]),
            **_counts(row),
            "lost_seeds": int(row["lost_seeds"]),
            "case_set": row["case_set"],
            "note": row["note"],
        }


def _counts(row: dict[Any, Any]) -> dict[str, int]:
    """Cases that were ok, failed or skipped; jobs, where there are no cases."""
    if not row["cases"]:
        skipped = row["status"] == "skipped"
        return {"ok": 0, "failed": 0 if skipped else row["lost_seeds"], "skipped": row["lost_seeds"] if skipped else 0}
    failed, skipped_cases = int(row["failed"]), int(row["skipped"])
    return {"ok": int(row["cases"]) - failed - skipped_cases, "failed": failed, "skipped": skipped_cases}


def _complexity(run: Run) -> Iterator[dict[str, Any]]:
    for base, row in _rows(complexity(run), ("deployment",)):
        for metric in ("params", "flops"):
            value = _value(row[metric])
            status = row[f"{metric}_status"]
            good, skipped = value is not None, status == "skipped"
            counts = {"ok": int(good), "failed": int(not good and not skipped), "skipped": int(not good and skipped)}
            about = {**base, "metric": metric, "aggregate": "count", "status": status}
            yield {**about, "value": value, **counts, "case_set": ""}


def _runtime(run: Run) -> Iterator[dict[str, Any]]:
    peaks = dict.fromkeys(("peak_anonymous", "peak_memory"), "largest over cases")
    ways = {"wall": "median over cases of the median over repeats", **peaks}
    for base, row in _rows(runtime_summary(run), ("deployment", "dataset", "sandbox", "protocol")):
        counts = {name: int(row[name]) for name in ("ok", "failed", "skipped")}
        for metric, way in ways.items():
            value = _value(row[metric])
            yield {**base, "metric": metric, "aggregate": way, "value": value, **counts, "case_set": row["case_set"]}


# Metric → column of the table, how its value is made of masks and of seeds, and which seed is the worst.
_COMPARED: dict[str, tuple[str, str, Literal["min", "max"]]] = {
    "mask_agreement": ("agreement", "mean over masks, lowest of the seeds", "min"),
    "volume_dsc": ("volume_dsc", "mean over objects, lowest of the seeds", "min"),
    "logit_difference": ("difference", "largest over masks and seeds", "max"),
    "speed_ratio": ("ratio", "medians of one image and one box, largest of the seeds", "max"),
    "file_size": ("file_size", "all files, largest of the seeds", "max"),
}


def _deployments(run: Run) -> Iterator[dict[str, Any]]:
    """Of several seeds the worst: a gate guards every one of them.  The reference itself is no cell."""
    table = fidelity(run)
    for key, part in grouped(table[~table["reference"]], ["variant", "deployment"]):
        status, reason, note, flag = (joined(part[name]) for name in ("status", "reason", "note", "flag"))
        base: dict[str, Any] = {**dict.fromkeys(("dataset", "sandbox", "protocol")), **key}
        base |= {"reason": reason, "note": note, "flag": flag}
        for metric, (column, way, worst) in _COMPARED.items():
            if metric == "volume_dsc" and table["volumes"].isna().all():
                continue  # a run that asked for no volumes lacks none
            known = part[part[column].notna()]
            lost = part.loc[part[column].isna(), "status"]
            yield {
                **base,
                "metric": metric,
                "aggregate": way,
                "value": _value(known[column].agg(worst)) if len(known) else None,
                "ok": len(known),
                "failed": int((~lost.isin(("ok", "skipped"))).sum()),
                "skipped": int((lost == "skipped").sum()),
                "case_set": "",
                "status": "ok" if len(known) else status,
            }
