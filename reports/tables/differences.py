"""What a row of an ablation says beyond its difference: interval, tests, effect size, seed noise and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.schema import METRICS
from harness.stats import (
    PairedDifference,
    SeedNoise,
    Verdict,
    holm,
    macro_intervals,
    paired_difference,
    seed_noise,
    verdict,
)

EXACT: dict[str, Any] = {"exact": True}
"""Marks a row of counts: two numbers without a case, so that nothing is to be tested."""


def macro_difference(both: pd.DataFrame) -> dict[str, float]:
    """Interval of the difference of macro averages; ``both``: cases of a row and its base (``_v``, ``_b``)."""
    cases = _over_seeds(both, ["modality_v", "case"])
    found = macro_intervals((cases["value_v"] - cases["value_b"]).to_numpy()[:, None], list(cases["modality_v"]))
    return {"difference_low": found.macro[0].low, "difference_high": found.macro[0].high}


def of_cases(both: pd.DataFrame) -> dict[str, Any]:
    """Paired difference of the cases, averaged over seeds first, and the noise of the seeds; same frame as above."""
    cases = _over_seeds(both, ["case"])
    found = paired_difference(cases["value_b"].to_numpy(), cases["value_v"].to_numpy())
    noise = seed_noise((both["value_v"] - both["value_b"]).groupby(both["seed"]).mean().to_numpy())
    return {
        "paired": found.mean,
        "paired_low": found.low,
        "paired_high": found.high,
        "p": found.p,
        "wilcoxon_p": found.wilcoxon_p,
        "effect": found.effect,
        "cases": found.n,
        "seeds": noise.seeds,
        "seed_sd": noise.sd,
        "found": found,
        "noise": noise,
    }


def _over_seeds(both: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    return both.groupby(list(keys), sort=False)[["value_v", "value_b"]].mean().reset_index()


def judge(rows: Sequence[dict[str, Any]]) -> None:
    """Add the p values adjusted for the whole table and the verdicts to its rows."""
    for name in ("p", "wilcoxon_p"):
        for row, adjusted in zip(rows, holm([row.get(name) for row in rows]), strict=True):
            row[f"{name}_holm"] = adjusted
    for row in rows:
        said = _of_counts(row) if row.get("exact") else _of_cases(row)
        row["verdict"], row["verdict_reason"] = said.word, said.reason


def _of_cases(row: dict[str, Any]) -> Verdict:
    found: PairedDifference = row["found"]
    noise: SeedNoise = row["noise"]
    said = verdict(row["metric"], found, row["p_holm"], row["wilcoxon_p_holm"], noise)
    if row.get("apart") and said.word != "not separable":
        # A machine is faster in one hour than in the next; only turns taken in one session cancel that.
        return Verdict("not separable", "timed in different sessions")
    return said


def _of_counts(row: dict[str, Any]) -> Verdict:
    if not np.isfinite(row["difference"]) or row["difference"] == 0:
        return Verdict("not separable", "equal counts")
    return Verdict("better" if (row["difference"] > 0) == (METRICS[row["metric"]].direction == "higher") else "worse")
