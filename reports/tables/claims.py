"""Times of the published workload as ratios to LiteMedSAM, beside the ratios that the papers claim.

What papers print (``suites/published/runtime.yaml``) is no result of a run; it ships with this package and is read when
a table is made.  Seconds are never compared across machines, ratios are: each paper's with its own measurement of
LiteMedSAM, ours with LiteMedSAM in the same sandbox under the same deployment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from harness.errors import BenchError
from reports.frame import IMAGE_FAMILY, Run
from reports.tables.common import grouped, joined, none_if_missing
from reports.tables.cost import RUNTIME_ROW, runtime_cases

FIGURES: Final = Path(__file__).resolve().parents[2] / "suites" / "published" / "runtime.yaml"
BASELINE: Final = "litemedsam"
WORKLOAD_KIND: Final = "workload"
AGREES: Final = 1.1
"""Ratios that differ by no more than this factor are said to agree."""
NAN: Final = float("nan")
GEOMETRIC_MEAN: Final = "geometric mean"
"""What stands for the case in the row of a mean."""

WORK: Final = ("read", "preprocess", "encode", "decode", "postprocess", "write")
"""Phases of a run in which the case is worked on: where a clock inside a script stands."""
_SECONDS: Final = ("work", "baseline_work", "wall", "baseline")
NOT_BESIDE: Final = "LiteMedSAM was not measured under this deployment in this sandbox"
NO_SCRIPTS: Final = "LiteMedSAM was not measured in this sandbox as the authors' scripts run it"

CLAIM_COLUMNS: tuple[str, ...] = (
    *RUNTIME_ROW, "case", "cases", "work", "baseline_work", "work_ratio", "wall", "baseline", "ratio",
    "baseline_deployment", "claimed", "difference", "difference_of", "source", "remark", "data", "status", "reason",
    "flag",
)  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """What a paper claims of a variant: time ÷ time of LiteMedSAM, both its own, by case."""

    variant: str
    fused: bool
    source: str
    remark: str
    ratios: Mapping[str, float]


@cache
def claims_of(path: Path = FIGURES) -> tuple[Claim, ...]:
    """The claims of a file of published runtimes.

    Raises:
        BenchError: the file cannot be read, or is not such a file.
    """
    import yaml

    try:
        printed = yaml.safe_load(path.read_text(encoding="utf-8"))["tables"]
        return tuple(claim for table in printed for claim in _claims(table))
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError, ZeroDivisionError) as error:
        raise BenchError(f"{path}: cannot be read as published runtimes ({error}): install the package again") from None


def _claims(table: dict[str, Any]) -> list[Claim]:
    columns, seconds = table["columns"], table["seconds"]
    base = [column["variant"] for column in columns].index(BASELINE)
    return [
        Claim(
            column["variant"],
            bool(column.get("fused", False)),
            f"{table['source']}, column {column['printed']!r}",
            str(table.get("remark", "")),
            {case: figures[place] / figures[base] for case, figures in seconds.items()},
        )
        for place, column in enumerate(columns)
        if place != base
    ]


@dataclass(frozen=True)
class _Beside:
    """What a row is held against: LiteMedSAM's cases by name, why there are none, and a claim.

    ``judged``: the row is executed as the claim's was, so that the difference has a word.
    """

    deployment: object = None
    cases: Mapping[Any, Mapping[Any, Any]] = field(default_factory=dict)
    status: str = "skipped"
    reason: str = NOT_BESIDE
    claim: Claim | None = None
    judged: bool = False

    def said(self, work_ratio: float, ratio: float, claimed: float) -> dict[str, object]:
        """The word of the difference and which ratio it is of: the work's, or the wall's where phases are missing."""
        name, value = ("work", work_ratio) if work_ratio > 0 else ("wall", ratio)
        found = difference(value, claimed) if self.judged else ""
        return {"difference": found, "difference_of": name if found else ""}


def claims(run: Run, cases: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row a variant and case of the published workload, and one for their geometric mean: `CLAIM_COLUMNS`.

    ``work`` (seconds of the phases `WORK`), ``wall`` and those of LiteMedSAM, ``baseline_work`` and ``baseline``, are
    medians over repeats in seconds; ``work_ratio`` and ``ratio`` are their quotients; a case in which either failed has
    none.  ``difference`` tells in words how ``work_ratio`` stands to ``claimed`` (``difference_of`` is ``work``, or
    ``wall`` where phases are missing), for rows that are executed as the authors' scripts do alone.

    The row of the mean (``case`` is `GEOMETRIC_MEAN`) says over how many ``cases`` it is taken; its ``claimed`` is
    taken over the same cases.  A row that has no LiteMedSAM beside it, or no cases, has a mean with status and reason.
    ``data`` says what the cases are.  Rows of LiteMedSAM are left out, and so is everything where the suite has no
    LiteMedSAM on the workload.

    Args:
        cases: `runtime_cases` of the run, if there is one already.
    """
    stated = run.info.provenance.datasets
    datasets = {name: data.description or "" for name, data in stated.items() if data.kind == WORKLOAD_KIND}
    timed = runtime_cases(run) if cases is None else cases
    timed = _with_work(run, timed[timed["dataset"].isin(list(datasets))])
    base = timed[timed["variant"].map(lambda label: _is_baseline(run, label)).astype(bool)]
    rows: list[dict[str, object]] = []
    for key, part in grouped(timed[~timed["variant"].isin(base["variant"])], RUNTIME_ROW) if len(base) else ():
        beside = _beside(run, base, key)
        found: list[dict[str, object]] = []
        if beside.cases:
            found = [_row(record, beside) for record in part[part["case"].notna()].to_dict("records")]
        mean = _mean(found, part, beside) if found else _no_mean(part, beside)
        rows += [row | key | {"data": datasets[str(key["dataset"])]} for row in (*found, mean)]
    return pd.DataFrame(rows, columns=list(CLAIM_COLUMNS))


def _with_work(run: Run, cases: pd.DataFrame) -> pd.DataFrame:
    """The cases with ``work``: seconds of the phases `WORK`, median over repeats; NaN where none was recorded."""
    keys = [*RUNTIME_ROW, "seed", "case"]
    frame = run.frame[(run.frame["kind"] == "runtime") & (run.frame["metric"] == "phase")]
    frame = frame[frame["phase"].isin(WORK) & frame["value"].notna()]
    runs = frame.groupby([*keys, "repeat"], dropna=False)["value"].sum()
    work = runs.groupby(keys, dropna=False).median().rename("work").reset_index()
    joint = cases.merge(work.astype({key: cases[key].dtype for key in keys}), on=keys, how="left")
    joint["work"] = joint["work"].where(joint["status"] == "ok")
    return joint


def difference(ratio: float, claimed: float) -> str:
    """How a measured ratio stands to a claimed one, in plain words; empty if either is missing."""
    if not (ratio > 0 and claimed > 0):
        return ""
    factor = ratio / claimed
    if 1 / AGREES <= factor <= AGREES:
        return "as claimed, within 10 %"
    said = f"{'slower' if factor > 1 else 'faster'} than claimed, by a factor of {max(factor, 1 / factor):.2f}"
    if claimed < 1 <= ratio:
        return f"{said}; claimed to be faster than LiteMedSAM and is not"
    if ratio < 1 <= claimed:
        return f"{said}; faster than LiteMedSAM, which is not claimed"
    return said


def _is_baseline(run: Run, label: str) -> bool:
    variant = run.info.variants[label]
    return variant.name == BASELINE and not variant.set and variant.family != IMAGE_FAMILY


def _beside(run: Run, base: pd.DataFrame, key: Mapping[str, object]) -> _Beside:
    """LiteMedSAM's cases in the same sandbox, under the same deployment, or else one that differs in fusing alone.

    An image that is not ours has no deployment: it stands beside LiteMedSAM as the authors' scripts run it.
    """
    here = base
    for column in ("dataset", "sandbox", "protocol"):
        here = here[here[column].isna() if key[column] is None else here[column] == key[column]]
    names = [none_if_missing(name) for name in here["deployment"].unique()]
    claim = _claim(run, str(key["variant"]), key["deployment"])
    if run.info.variants[str(key["variant"])].family == IMAGE_FAMILY:
        alike, reason = [name for name in names if _as_scripts(run, name, fused=False)], NO_SCRIPTS
    else:
        wanted, reason = _unfused(run, key["deployment"]), NOT_BESIDE
        alike = [name for name in names if name == key["deployment"]]
        alike += [name for name in names if wanted is not None and _unfused(run, name) == wanted]
    if not alike:
        return _Beside(reason=reason, claim=claim)
    chosen = here[here["deployment"].isna() if alike[0] is None else here["deployment"] == alike[0]]
    lost, good = chosen[chosen["case"].isna()], chosen[chosen["case"].notna()]
    cases = good.drop_duplicates("case").set_index("case").to_dict("index")
    judged = claim is not None and _as_scripts(run, key["deployment"], claim.fused)
    found = _Beside(alike[0], cases, claim=claim, judged=judged)
    if len(lost) and not cases:
        told = f"LiteMedSAM: {joined(lost['reason'])}"
        return replace(found, status=str(lost["status"].iloc[0]), reason=told)
    return found


def _unfused(run: Run, deployment: object) -> object:
    """The settings of a deployment but for fusing; ``None`` if the run does not state them."""
    stated = run.info.resolved.deployments.get(str(deployment))
    return None if stated is None else stated.model_copy(update={"fuse": False})


def _as_scripts(run: Run, deployment: object, fused: bool) -> bool:
    """Whether a deployment is what the authors' scripts do: eager torch in fp32, the system's allocator, box by box."""
    stated = run.info.resolved.deployments.get(str(deployment))
    if stated is None or stated.fuse != fused or stated.delay:
        return False
    eager = stated.model_copy(update={"fuse": False}).plain
    return eager and stated.allocator == "system" and stated.execution == "reference"


def _claim(run: Run, label: str, deployment: object) -> Claim | None:
    """What a paper claims of a row; of a paper with both, the claim that is fused as the deployment is."""
    variant = run.info.variants[label]
    if variant.set or variant.family == IMAGE_FAMILY:
        return None
    found = [claim for claim in claims_of() if claim.variant == variant.name]
    if len(found) <= 1:
        return found[0] if found else None
    stated = run.info.resolved.deployments.get(str(deployment))
    fused = stated is not None and stated.fuse
    return next((claim for claim in found if claim.fused == fused), None)


def _row(record: Mapping[Any, Any], beside: _Beside) -> dict[str, object]:
    name = str(record["case"])
    base = beside.cases.get(name)
    baseline, baseline_work = (NAN if base is None else float(base[column]) for column in ("wall", "work"))
    ratio, work_ratio = _quotient(float(record["wall"]), baseline), _quotient(float(record["work"]), baseline_work)
    claimed = NAN if beside.claim is None else beside.claim.ratios.get(name, NAN)
    status, reason = str(record["status"]), str(record["reason"] or "")
    if status == "ok" and base is None:
        status, reason = "skipped", "LiteMedSAM was not measured on this case"
    elif status == "ok" and base is not None and base["status"] != "ok":
        status, reason = str(base["status"]), f"LiteMedSAM: {base['reason']}"
    return {
        **{"case": name, "cases": 1, "work": record["work"], "baseline_work": baseline_work, "work_ratio": work_ratio},
        **{"wall": record["wall"], "baseline": baseline, "ratio": ratio, "baseline_deployment": beside.deployment},
        **{"claimed": claimed, **beside.said(work_ratio, ratio, claimed)},
        **{"flag": record["flag"], "status": status, "reason": reason, **_source(beside.claim)},
    }


def _quotient(value: float, other: float) -> float:
    return value / other if other > 0 else NAN


def _mean(rows: list[dict[str, object]], part: pd.DataFrame, beside: _Beside) -> dict[str, object]:
    both = [row for row in rows if pd.notna(row["ratio"])]  # type: ignore[call-overload]
    bad = [row for row in rows if row["status"] != "ok"]
    work_ratio, ratio, claimed = (_geometric(row[name] for row in both) for name in ("work_ratio", "ratio", "claimed"))
    failed = f"{len(bad)} of {len(rows)} cases missing: {bad[0]['reason']}" if bad else ""
    return {
        **{"case": GEOMETRIC_MEAN, "cases": len(both), "work_ratio": work_ratio, "ratio": ratio, "claimed": claimed},
        **dict.fromkeys(_SECONDS, NAN),
        **{"baseline_deployment": beside.deployment, **beside.said(work_ratio, ratio, claimed)},
        **{"flag": rows[0]["flag"], "reason": joined([failed, *part.loc[part["case"].isna(), "reason"]])},
        **{"status": "ok" if both else bad[0]["status"], **_source(beside.claim)},
    }


def _no_mean(part: pd.DataFrame, beside: _Beside) -> dict[str, object]:
    """The row of a mean that does not exist: nothing was measured, or nothing that it could be held against."""
    bad = part[part["status"] != "ok"]
    lost = len(bad) == len(part)
    return {
        **{"case": GEOMETRIC_MEAN, "cases": 0, **dict.fromkeys((*_SECONDS, "work_ratio", "ratio", "claimed"), NAN)},
        **{"baseline_deployment": beside.deployment, "difference": "", "difference_of": "", **_source(beside.claim)},
        **{"flag": part["flag"].iloc[0], "status": str(bad["status"].iloc[0]) if lost else beside.status},
        **{"reason": joined(bad["reason"]) if lost else beside.reason},
    }


def _source(claim: Claim | None) -> dict[str, object]:
    return {"source": claim.source if claim else "", "remark": claim.remark if claim else ""}


def _geometric(values: Iterable[object]) -> float:
    """Geometric mean; not a number where there is no value, or one is missing."""
    found = np.array(list(values), dtype=float)
    return float(np.exp(np.log(found).mean())) if len(found) else NAN
