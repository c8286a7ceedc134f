"""Deployments on the page: an overview, variants × deployments, and a table with all that was compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports import deployments, text
from reports.tables.common import grouped, joined, none_if_missing, unique
from reports.views.model import Cell, Column, Table, joined_words, merged, number, of_metric, variant_cell, word

UNTRAINED = (
    "Weights that are not trained to convergence can exaggerate what bf16 and int8 change: judge a precision on "
    "trained ones."
)
# Rows above which the table of all that was compared is folded below the overview.
FOLDED = 24


@dataclass(frozen=True)
class DeploymentSection:
    """What the page shows of deployments; ``overview`` is missing where the table itself is one."""

    overview: Table | None
    details: Table
    folded: bool


def deployment_section(table: pd.DataFrame) -> DeploymentSection | None:
    """Of `reports.tables.fidelity`; ``None`` if nothing was compared and nothing should have been."""
    if table.empty:
        return None
    ours = table[~table["reference"]]
    overview = _overview(ours) if ours["variant"].nunique() > 1 and ours["deployment"].nunique() > 1 else None
    remarks = () if overview else tuple(_remarks(ours))
    return DeploymentSection(overview, _details(table, remarks), overview is not None and len(table) > FOLDED)


def _overview(table: pd.DataFrame) -> Table:
    """A row a variant, a column a deployment; of several seeds the worst."""
    names = list(dict.fromkeys(table["deployment"]))
    said = {n: joined_words(r["backend"], r["settings"]) for n, r in zip(names, _firsts(table, names), strict=True)}
    columns = [Column("Variant", numeric=False), *(Column(str(n), said[n].replace(" · ", " ")) for n in names)]
    rows = []
    for key, part in grouped(table, ["variant"]):
        cells = {k["deployment"]: _agreement_and_time(mine) for k, mine in grouped(part, ["deployment"])}
        name = variant_cell(key["variant"], note=joined(part["note"]), flag=_tally(part))
        rows.append((name, *(cells.get(n, Cell(text.DASH)) for n in names)))
    caption = (
        "Share of mask pixels that are as eager torch in fp32 has them, mean over masks, never rounded up; below it "
        f"time ÷ eager torch. {deployments.RULE}"
    )
    return Table("deployment-overview", caption, tuple(columns), tuple(rows), tuple(_remarks(table)))


def _firsts(table: pd.DataFrame, names: Sequence[Any]) -> list[dict[Any, Any]]:
    return [table[table["deployment"] == name].iloc[0].to_dict() for name in names]


def _agreement_and_time(part: pd.DataFrame) -> Cell:
    measured = part[part["agreement"].notna()]
    if measured.empty:
        return Cell(status=str(part["status"].iloc[0]), reason=joined(part["reason"]))
    agreement, ratio = float(measured["agreement"].min()), _number(measured["ratio"].max())
    warnings = [f"under {deployments.AGREEMENT:g}"] if deployments.disagreement(agreement) else []
    drifting = deployments.drift(_number(measured["volume_dsc"].min()))
    warnings += [f"volumes under {deployments.VOLUMES:g}"] if drifting else []
    warnings += ["slower"] if deployments.slowness(ratio) else []
    time = "" if ratio is None else text.times(ratio)
    return number(agreement, text.agreement(agreement), small=time, flag=", ".join(warnings))


def _tally(part: pd.DataFrame) -> str:
    """How many deployments of a variant carry a warning, so that none is out of sight on a narrow screen."""
    worst = part.groupby("deployment", sort=False).agg({"agreement": "min", "ratio": "max", "volume_dsc": "min"})
    under = sum(bool(deployments.disagreement(_number(value))) for value in worst["agreement"])
    drifting = sum(bool(deployments.drift(_number(value))) for value in worst["volume_dsc"])
    slower = sum(bool(deployments.slowness(_number(value))) for value in worst["ratio"])
    said = [f"{under} under {deployments.AGREEMENT:g}"] if under else []
    said += [f"{drifting} in volumes under {deployments.VOLUMES:g}"] if drifting else []
    return ", ".join([*said, *([f"{slower} slower"] if slower else [])])


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _remarks(table: pd.DataFrame) -> list[str]:
    """Why there is no number, deployment by deployment, and what the weights mean for the ones there are."""
    said = []
    bad = table[table["reason"] != ""]
    for key, part in grouped(bad, ["reason", "status"]):
        how = "not measured" if key["status"] == "ok" else str(key["status"])
        said.append((_who(part, table), f"{how}: {key['reason']}"))
    untrained = table[(table["note"] != "") & table["agreement"].notna()]
    exact = untrained["settings"].str.startswith("fp32").all()
    return [*merged(said), *([] if untrained.empty or exact else [UNTRAINED])]


def _who(part: pd.DataFrame, table: pd.DataFrame) -> str:
    """``ort-fp32 and ort-int8 of dummy``; ``every variant`` where it is all that have the deployment."""
    found: dict[str, list[str]] = {}
    for key, mine in grouped(part, ["deployment"]):
        names = unique(mine["variant"])
        every = set(names) == set(table.loc[table["deployment"] == key["deployment"], "variant"])
        found.setdefault("every variant" if every and len(names) > 1 else text.listed(names), []).append(
            str(key["deployment"])
        )
    return "; ".join(f"{text.listed(deployed)} of {names}" for names, deployed in found.items())


def _details(table: pd.DataFrame, remarks: tuple[str, ...]) -> Table:
    """Everything that was compared: the reference of a variant first."""
    looped = bool(table["volumes"].notna().any())
    columns = (
        Column("Variant", numeric=False),
        Column("Executed by", numeric=False),
        of_metric("mask_agreement", "mean of masks", "Agreement"),
        of_metric("dsc", "to torch's masks", "DSC"),
        *([of_metric("volume_dsc", "to torch's masks", "DSC of volumes")] if looped else []),
        of_metric("logit_difference", "largest", "Logit difference"),
        of_metric("speed_ratio", "÷ eager torch", "Time"),
        of_metric("file_size", ""),
        Column("Quantised", "layers"),
        Column("Quantised", "multiply-adds"),
        Column("Weights", numeric=False),
    )
    seeds = table["seed"].nunique() > 1
    rows = tuple(_detail_row(r, seeds, looped) for r in table.to_dict("records"))
    measured = table[~table["reference"] & table["agreement"].notna()]
    on = ""
    if len(measured) and measured["images"].notna().any():
        images, masks = int(measured["images"].max()), int(measured["objects"].max())
        on = f" on {text.plural(images, 'image')} with {text.plural(masks, 'mask')}"
    caption = (
        f"Each deployment against eager torch in fp32, same weights and same inputs{on}; DSC: of the masks of both, "
        f"which leaves out the background that any two agree on{_of_volumes(measured)}; time: one image and one box "
        "in a warm process that keeps its pages; quantised multiply-adds: share of the whole, and of each part. "
        f"{deployments.RULE}"
    )
    return Table("deployments", caption, columns, rows, remarks)


def _detail_row(r: dict[Any, Any], seeds: bool, looped: bool) -> tuple[Cell, ...]:
    threads = none_if_missing(r["threads"])
    how = [r["settings"], text.plural(int(threads), "thread") if threads else ""]  # type: ignore[call-overload]
    seed = f"seed {r['seed']}" if seeds else None
    tag = "reference" if r["reference"] else ""
    name = variant_cell(r["variant"], joined_words(r["deployment"], seed), r["note"], tag, r["flag"])
    phases = [(p, r[f"ratio_{p}"]) for p in ("encode", "decode") if not text.missing(r[f"ratio_{p}"])]
    worst = "" if text.missing(r["worst"]) or r["reference"] else f"lowest {text.agreement(r['worst'])}"
    layers = text.DASH if text.missing(r["layers"]) else text.count(r["layers"])
    if not text.missing(r["layers_of"]):
        layers = f"{layers} of {text.count(r['layers_of'])}"
    agreement = number(r["agreement"], text.agreement(r["agreement"]), small=worst)
    return (
        name,
        word(r["backend"], small=_lines(how)),
        agreement if r["status"] == "ok" else Cell(status=r["status"], reason=r["reason"]),
        number(r["dsc"], text.agreement(r["dsc"])),
        *([_on_volumes(r)] if looped else []),
        number(r["difference"], text.tiny(r["difference"])),
        number(
            r["ratio"],
            text.times(r["ratio"]),
            small=_lines([*(f"{p} {text.times(v)}" for p, v in phases), r["time_note"]]),
        ),
        number(r["file_size"], text.size(r["file_size"])),
        number(r["layers"], layers, small=_lines(r["layers_by_part"].split(", "))),
        number(r["share"], text.percent(r["share"]), small=_lines(r["share_by_part"].split(", "))),
        word(r["weights"][:12] or text.DASH, small=r["training"]),
    )


def _of_volumes(measured: pd.DataFrame) -> str:
    """What the caption says of volumes, if there were any."""
    known = measured[measured["volumes"].notna()]
    if known.empty:
        return ""
    volumes, masks = int(known["volumes"].max()), int(known["volume_objects"].max())
    return (
        f"; DSC of volumes: of {text.plural(masks, 'object')} in {text.plural(volumes, 'volume')}, where each slice's "
        "box follows from the mask before, so that differences can grow"
    )


def _on_volumes(r: dict[Any, Any]) -> Cell:
    """Dice of the masks through the 3D loop, the lowest of an object, and how good the masks are at all."""
    said = {"lowest": r["volume_worst"], "to truth": r["volume_truth"]}
    below = [f"{name} {text.agreement(value)}" for name, value in said.items() if not text.missing(value)]
    return number(r["volume_dsc"], text.agreement(r["volume_dsc"]), small=_lines(below))


def _lines(parts: Iterable[str]) -> str:
    """Each on a line of its own."""
    return "\n".join(part for part in parts if part)
