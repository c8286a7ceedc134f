"""Deployments: how far each is from eager torch in fp32, what it reached, and the warnings that follow from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from reports import deployments, text
from reports.frame import Run
from reports.tables.common import grouped, joined, none_if_missing, unique

COLUMNS: tuple[str, ...] = (
    "variant", "deployment", "seed", "reference", "backend", "settings", "threads", "agreement", "worst", "dsc",
    "images", "objects", "volume_dsc", "volume_worst", "volume_truth", "volumes", "volume_objects", "difference",
    "ratio", "ratio_encode", "ratio_decode", "time_note", "file_size", "layers", "layers_of", "layers_by_part",
    "share", "share_by_part", "weights", "training", "note", "flag", "status", "reason",
)  # fmt: skip

_NUMBERS: tuple[str, ...] = (
    "agreement", "worst", "dsc", "images", "objects", "volume_dsc", "volume_worst", "volume_truth", "volumes",
    "volume_objects", "difference", "ratio", "ratio_encode", "ratio_decode",
    "file_size", "layers", "layers_of", "share", "threads",
)  # fmt: skip

_KEY: tuple[str, ...] = ("variant", "deployment", "seed")
# The records of one comparison.
Part = Sequence[Mapping[Any, Any]]
# A row of a table and its warning.
Notes = Mapping[tuple[str, str | None], str]


def fidelity(run: Run) -> pd.DataFrame:
    """One row a variant, deployment and seed, the reference of a variant first: `COLUMNS`.

    ``agreement`` and ``worst``: share of the mask pixels as eager torch fp32 has them, mean and lowest over objects;
    ``dsc``: mean Dice of those masks, ``volume_dsc`` and ``volume_worst`` of those of volumes by the 3D loop, where
    the deployment's own have ``volume_truth`` to the ground truth; ``difference``: largest of a logit; ``ratio``: time
    ÷ eager torch, of ``encode`` and ``decode`` as well; ``time_note``: why there is no ratio; ``layers`` and ``share``
    (of the multiply-adds): what a quantisation reached; ``weights``: digest of those compared, ``training``: where
    they come from, ``note``: training note.  A deployment that is measured and was compared with nothing has a row
    that says so.
    """
    rows = [_row(run, key, part) for key, part in _parts(run)]
    rows += _not_compared(run, {(row["variant"], row["deployment"]) for row in rows})
    rows += _references(run, rows)
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(_NUMBERS, float) | {"reference": bool})
    order = {label: place for place, label in enumerate(run.variant_order())}
    table["place"] = table["variant"].map(order)
    table["rest"] = ~table["reference"]
    table = table.sort_values(["place", "rest"], kind="stable", ignore_index=True)
    return table[list(COLUMNS)]


def notes(run: Run, table: pd.DataFrame | None = None) -> Notes:
    """(variant, deployment) → the warning that accompanies it in every table; those without one are left out.

    Of several seeds the worst counts.  Numbers of a deployment whose agreement is not known say that.
    ``table``: `fidelity` of the run, if there is one already.
    """
    table = fidelity(run) if table is None else table
    shown = run.frame["kind"].isin(("accuracy", "latency", "runtime")) & run.frame["value"].notna()
    pairs = run.frame.loc[shown, ["variant", "deployment"]].drop_duplicates().itertuples(index=False)
    numbers = {(str(variant), none_if_missing(deployment)) for variant, deployment in pairs}
    found: dict[tuple[str, str | None], str] = {}
    for key, part in grouped(table[~table["reference"]], ["variant", "deployment"]):
        name = str(key["variant"]), None if key["deployment"] is None else str(key["deployment"])
        worst = part["agreement"].min(), part["ratio"].max(), part["volume_dsc"].min()
        said = deployments.flag(*map(_float, worst))
        if part["agreement"].isna().any() and name in numbers:
            said = "; ".join(["mask agreement not measured", *([said] if said else [])])
        if said:
            found[name] = said
    return found


def flagged(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column ``flag``: the warning of each row's variant and deployment, or empty."""
    warned = notes(run)
    pairs = zip(table["variant"], table["deployment"], strict=True)
    return table.assign(flag=[warning(warned, variant, deployment) for variant, deployment in pairs])


def warning(warned: Notes, variant: Any, deployment: Any) -> str:
    """The warning of a variant and deployment, or empty."""
    name = none_if_missing(deployment)
    return warned.get((str(variant), None if name is None else str(name)), "")


def _parts(run: Run) -> Iterator[tuple[dict[str, object], Part]]:
    """The records of every comparison."""
    found: dict[tuple[object, ...], list[dict[Any, Any]]] = {}
    for row in run.frame[run.frame["kind"] == "deploy"].to_dict("records"):
        found.setdefault(tuple(none_if_missing(row[k]) for k in _KEY), []).append(row)
    for values, part in found.items():
        yield dict(zip(_KEY, values, strict=True)), part


def _row(run: Run, key: Mapping[str, object], part: Part) -> dict[str, Any]:
    deployment = None if key["deployment"] is None else str(key["deployment"])
    agreement, said = _value(part, "mask_agreement"), _detail(part, "mask_agreement")
    volume_dsc, looped = _value(part, "volume_dsc"), _detail(part, "volume_dsc")
    layers, share = _detail(part, "quantised_layers"), _detail(part, "quantised_share")
    ratio = _value(part, "speed_ratio")
    training = run.training[str(part[0]["job"])]
    bad = [str(row["status"]) for row in part if row["status"] != "ok"]
    return {
        **_named(run, str(key["variant"]), deployment, key["seed"]),
        "reference": False,
        "agreement": agreement,
        "worst": _float(said.get("worst")),
        "dsc": _float(said.get("dsc")),
        "images": _float(said.get("images")),
        "objects": _float(said.get("objects")),
        "volume_dsc": volume_dsc,
        "volume_worst": _float(looped.get("worst")),
        "volume_truth": _float(looped.get("truth")),
        "reference_truth": _float(looped.get("reference_truth")),
        "volumes": _float(looped.get("volumes")),
        "volume_objects": _float(looped.get("objects")),
        "difference": _value(part, "logit_difference"),
        "ratio": ratio,
        "ratio_encode": _value(part, "speed_ratio", "encode"),
        "ratio_decode": _value(part, "speed_ratio", "decode"),
        "time_note": str(_detail(part, "speed_ratio").get("undefined") or ""),
        "file_size": _value(part, "file_size"),
        "layers": _value(part, "quantised_layers"),
        "layers_of": _float(layers.get("of")),
        "layers_by_part": _by_part(layers, text.count),
        "share": _value(part, "quantised_share"),
        "share_by_part": _by_part(share, text.percent),
        "weights": str(said.get("weights") or ""),
        "training": training.weights,
        "note": training.note,
        "flag": deployments.flag(agreement, ratio, volume_dsc),
        "status": "ok" if agreement is not None or not bad else bad[0],
        "reason": joined(row["reason"] for row in part),
    }


def _named(run: Run, variant: str, deployment: str | None, seed: object) -> dict[str, Any]:
    info = run.info.resolved.deployments.get(deployment or "")
    return {
        "variant": variant,
        "deployment": deployment,
        "seed": seed,
        "backend": deployments.backend(run.info, deployment),
        "settings": deployments.settings(run.info, deployment),
        "threads": info.threads if info else None,
    }


def _bare(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row that compares nothing: texts are empty, numbers missing."""
    texts = ("time_note", "layers_by_part", "share_by_part", "weights", "training", "note", "flag", "reason")
    return {**dict.fromkeys(COLUMNS), **dict.fromkeys(texts, ""), "reference": False, **row}


def _not_compared(run: Run, compared: set[tuple[str, str | None]]) -> Iterator[dict[str, Any]]:
    """Rows of the deployments that are measured in this run and were not compared with the reference."""
    for job in run.info.jobs:
        name = job.variant, job.deployment
        ours = job.kind in ("accuracy", "latency", "runtime") and deployments.plain(run.info, job.deployment) is False
        if ours and name not in compared:
            compared.add(name)
            training = run.training[job.digest]
            about = {"training": training.weights, "note": training.note}
            why = {"status": "skipped", "reason": deployments.NOT_COMPARED}
            yield _bare({**_named(run, job.variant, job.deployment, job.seed), **about, **why})


def _references(run: Run, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The row of eager torch in fp32, for every variant and seed that something was compared with."""
    compared = [row for row in rows if row["agreement"] is not None]
    for variant, seed in dict.fromkeys((row["variant"], row["seed"]) for row in compared):
        mine = [row for row in compared if (row["variant"], row["seed"]) == (variant, seed)]
        plain = unique(j.deployment for j in run.info.jobs if j.variant == variant and _is_plain(run, j.deployment))
        same = {key: mine[0][key] for key in ("images", "objects", "training", "note")}
        looped = next((row for row in mine if row["volume_dsc"] is not None), None)
        if looped is not None:
            same |= {"volume_dsc": 1.0, "volume_truth": looped["reference_truth"]}
            same |= {key: looped[key] for key in ("volumes", "volume_objects")}
        weights = unique(row["weights"] for row in mine)
        about = {"deployment": ", ".join(plain) or None, "backend": "torch", "settings": "eager fp32"}
        exact = {"agreement": 1.0, "worst": 1.0, "difference": 0.0, "ratio": 1.0, "status": "ok"}
        digest = {"weights": weights[0] if len(weights) == 1 else ""}
        threads = _named(run, variant, plain[0] if plain else None, seed)
        yield _bare({**threads, **about, **exact, **same, **digest, "reference": True})


def _is_plain(run: Run, deployment: str | None) -> bool:
    return deployments.plain(run.info, deployment) is True


def _value(part: Part, metric: str, phase: str | None = None) -> float | None:
    for row in part:
        if row["metric"] == metric and none_if_missing(row["phase"]) == phase and not text.missing(row["value"]):
            return float(row["value"])
    return None


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not pd.isna(value) else None


def _detail(part: Part, metric: str) -> dict[str, Any]:
    """The detail of a metric; a detail that is no JSON object says nothing."""
    for said in unique(row["detail"] for row in part if row["metric"] == metric):
        try:
            data = json.loads(said)
        except ValueError:
            continue
        if isinstance(data, dict):
            return data
    return {}


def _by_part(detail: Mapping[str, Any], show: Callable[[float], str]) -> str:
    """``image encoder 0, mask decoder 47``, from the numbers a detail gives by part."""
    parts = detail.get("by_part")
    numbers = parts.items() if isinstance(parts, dict) else ()
    return ", ".join(f"{name.replace('_', ' ')} {show(n)}" for name, n in numbers if isinstance(n, int | float))
