"""Figures that papers print for parameters and FLOPs, recomputed by their own conventions."""

from __future__ import annotations

import json

import pandas as pd

from reports.frame import Run
from reports.tables.common import grouped, joined

PUBLISHED_COLUMNS: tuple[str, ...] = (
    "variant", "quantity", "printed", "recomputed", "agrees", "value", "one_way", "convention", "counts", "source",
    "status", "reason",
)  # fmt: skip


def published(run: Run) -> pd.DataFrame:
    """One row a variant and printed figure: `PUBLISHED_COLUMNS`, in the order of the suite.

    ``recomputed`` is ``value`` with the digits of ``printed``, ``agrees`` whether they are the same; ``one_way`` is the
    same quantity of the whole model by the convention that all variants share.
    """
    frame = run.frame[run.frame["kind"] == "complexity"]
    rows = []
    for key, part in grouped(frame, ["variant"]):
        whole = part[part["phase"].isna() & part["value"].notna()].drop_duplicates("metric").set_index("metric")
        for record in part[part["metric"].str.startswith("published_")].to_dict("records"):
            detail = json.loads(record["detail"])
            rows.append(
                {
                    **key,
                    **{name: detail[name] for name in ("quantity", "printed", "convention", "counts", "source")},
                    "recomputed": detail.get("recomputed", ""),
                    "agrees": bool(detail.get("agrees", False)),
                    "value": record["value"],
                    "one_way": whole["value"].get(detail["quantity"], float("nan")),
                    "status": record["status"],
                    "reason": joined([record["reason"]]),
                }
            )
    return pd.DataFrame(rows, columns=list(PUBLISHED_COLUMNS))
