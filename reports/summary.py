"""What a run can and cannot tell, in plain words, derived from what it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports import deployments, text
from reports.board import LeaderboardRow
from reports.frame import IMAGE_FAMILY, Run
from reports.places import place, place_names

# Below this number of cases a modality's mean is an anecdote; the page says so.
FEW_CASES = 10


@dataclass(frozen=True)
class Conclusions:
    """``banner``: the one sentence nobody may miss, or empty; ``can`` and ``cannot``: sentences."""

    banner: str
    can: tuple[str, ...]
    cannot: tuple[str, ...]


def conclude(
    run: Run,
    board: Sequence[LeaderboardRow],
    accuracy: pd.DataFrame,
    runtime: pd.DataFrame,
    compared: pd.DataFrame,
) -> Conclusions:
    """Sentences for the top of a report; ``accuracy``, ``runtime`` and ``compared``: the summary tables of the run."""
    scored = [row for row in board if row.dsc is not None]
    noted = [row for row in scored if row.note]
    can = [*_can_cost(board), *_can_time(run, runtime), *_can_latency(run), *_can_deploy(compared), *_can_rank(board)]
    cannot = [
        *_cannot_accuracy(run, scored, noted),
        *_cannot_statistics(run, accuracy),
        *_cannot_time(runtime, compared),
        *_cannot_deploy(compared),
        *_cannot_state(run),
        *(text.sentence(gap) for gap in run.withheld),
    ]
    return Conclusions(_banner(scored, noted), tuple(can), tuple(cannot))


def _banner(scored: Sequence[LeaderboardRow], noted: Sequence[LeaderboardRow]) -> str:
    if not noted:
        return ""
    notes = text.listed(list(dict.fromkeys(f"{row.variant} ({row.note})" for row in noted)))
    share = "Every accuracy value" if len(noted) == len(scored) else "Accuracy"
    return (
        f"{share} of these rows comes from weights that are not trained to convergence: {notes}. "
        "Such values show that the bench works; they say nothing about how good a model is."
    )


def _can_cost(board: Sequence[LeaderboardRow]) -> list[str]:
    counted = [
        name
        for name, known in (
            ("parameters", any(row.params for row in board)),
            ("FLOPs", any(row.flops for row in board)),
        )
        if known
    ]
    if not counted:
        return []
    return [text.sentence(f"{text.listed(counted)} belong to the architecture: they hold whatever the weights are")]


def _can_time(run: Run, runtime: pd.DataFrame) -> list[str]:
    timed = runtime[runtime["wall"].notna()]
    machine = run.info.provenance.machine
    if timed.empty or machine is None:
        return []
    where = text.listed(list(dict.fromkeys(timed["sandbox"])))
    cpu = f"{machine.cpu}, {machine.cores:g} cores" if machine.cores else machine.cpu
    said = f"Times and memory are cold runs in the sandbox {where} on this one machine ({cpu})"
    # What happens inside an image that is not ours is not visible.
    ours = all(run.info.variants[label].family != IMAGE_FAMILY for label in timed["variant"])
    return [f"{said}, every phase recorded." if ours else f"{said}."]


def _can_latency(run: Run) -> list[str]:
    frame, machine = run.frame, run.info.provenance.machine
    if machine is None or not len(frame[(frame["metric"] == "latency") & frame["value"].notna()]):
        return []
    return [
        f"Warm times are one encoding and one decoding on this one machine ({machine.cpu}), held against its own "
        "matrix product: how near a variant comes to what the machine can do."
    ]


def _can_deploy(compared: pd.DataFrame) -> list[str]:
    """How many deployments give the masks of their variant, and which cost time instead of saving it."""
    ours = compared[~compared["reference"]]
    measured = ours[ours["agreement"].notna()]
    if measured.empty:
        return []
    same = (measured["agreement"] >= deployments.AGREEMENT) & ~(measured["volume_dsc"] < deployments.VOLUMES)
    good, looped = int(same.sum()), measured["volume_dsc"].notna().any()
    apart = int((ours["status"] == "unsupported").sum())
    said = (
        f"{good} of {text.plural(len(measured), 'compared deployment')} "
        f"{'gives' if good == 1 else 'give'} the masks of eager torch in fp32 (agreement at least "
        f"{deployments.AGREEMENT:g}{f', DSC of volumes at least {deployments.VOLUMES:g}' if looped else ''})"
        f"{f'; {apart} more cannot be applied' if apart else ''}."
    )
    slow = [(r, text.times(r["ratio"])) for r in measured.to_dict("records") if deployments.slowness(r["ratio"])]
    return [said, *([f"Slower than eager torch on this machine: {_named(slow)}."] if slow else [])]


def _cannot_deploy(compared: pd.DataFrame) -> list[str]:
    measured = compared[~compared["reference"] & compared["agreement"].notna()]
    rows = measured.to_dict("records")
    under = [
        (r, f"agreement {text.agreement(r['agreement'])}") for r in rows if deployments.disagreement(r["agreement"])
    ]
    under += [
        (r, f"DSC of volumes {text.agreement(r['volume_dsc'])}") for r in rows if deployments.drift(r["volume_dsc"])
    ]
    if not under:
        return []
    return [f"What a variant itself would give, from a deployment that changes its masks: {_named(under)}."]


def _named(found: Sequence[tuple[dict[Any, Any], str]], most: int = 6) -> str:
    """Deployments with what is said of each; of many the first ones and how many are left."""
    names = list(dict.fromkeys(f"{r['variant']} · {r['deployment']} ({said})" for r, said in found))
    if len(names) <= most:
        return text.listed(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more, flagged in the tables"


def _can_rank(board: Sequence[LeaderboardRow]) -> list[str]:
    ranked = [row for row in board if row.rank is not None]
    if not ranked:
        return []
    found: dict[str, list[LeaderboardRow]] = {}
    for row in ranked:
        found.setdefault(row.standing.rule if row.standing else "", []).append(row)
    said = []
    for rule, rows in found.items():
        shared = sum(bool(row.standing and row.standing.shares_with) for row in rows)
        together = f"; {shared} of them share a rank, the data do not separate them" if shared else ""
        said.append(f"The order of {text.plural(len(rows), 'row')} by {rule}: same cases, no training note{together}.")
    return said


def _cannot_accuracy(run: Run, scored: Sequence[LeaderboardRow], noted: Sequence[LeaderboardRow]) -> list[str]:
    said = []
    if noted:
        said.append("Which model is more accurate, for any row with a training note: those rows carry no rank.")
    kinds = {name: data.kind for name, data in run.info.provenance.datasets.items()}
    generated = {name for name, kind in kinds.items() if kind in ("phantoms", "workload")}
    phantoms = sorted({row.dataset for row in scored if row.dataset in generated})
    if phantoms:
        said.append(f"Anything about patients from {text.listed(phantoms)}: its cases are generated phantoms.")
    tiny = sorted({row.variant for row in scored if row.tiny})
    if tiny:
        verb = "it is a small size" if len(tiny) == 1 else "they are small sizes"
        said.append(f"Anything about a paper's model from {text.listed(tiny)}: {verb} made for tests.")
    return said


def _cannot_statistics(run: Run, accuracy: pd.DataFrame) -> list[str]:
    measured = accuracy[accuracy["macro"].notna()]
    if measured.empty:
        return ["How accurate any variant is: no accuracy was measured."]
    said = []
    mean = (measured["cases"] / measured["modalities"].clip(lower=1)).min()
    if mean < FEW_CASES:
        per = f"{mean:.1f}".removesuffix(".0")
        cases = text.plural(int(measured["cases"].min()), "case")
        noun = "case" if per == "1" else "cases"
        said.append(f"Small differences: {cases}, about {per} {noun} a modality: intervals are wide or missing.")
    lost = measured[measured["lost_seeds"] > 0]
    if len(lost):
        names = text.listed(list(dict.fromkeys(lost["variant"])))
        said.append(f"The mean over all seeds of {names}: not every seed has a value.")
    if measured["seeds"].max() <= 1:
        said.append("How much a retraining would move a value: there is one seed.")
    return said


def _cannot_time(runtime: pd.DataFrame, compared: pd.DataFrame) -> list[str]:
    said = []
    timed = runtime[runtime["wall"].notna()]
    if len(timed) and timed["repeats"].min() < 2:
        said.append("How much a time varies: a case was run once.")
    partial = timed[timed["failed"] > 0]
    if len(partial):
        names = text.listed(list(dict.fromkeys(partial["variant"])))
        said.append(f"A fair time of {names}: the median leaves out cases that failed.")
    # What does not apply to a variant is no gap of this run.
    apart = compared.loc[compared["status"] == "unsupported", ["variant", "deployment"]].itertuples(index=False)
    impossible = {tuple(pair) for pair in apart}
    planned = [pair not in impossible for pair in zip(runtime["variant"], runtime["deployment"], strict=True)]
    missing = runtime[runtime["wall"].isna() & pd.Series(planned, index=runtime.index, dtype=bool)]
    places = place_names(place(s, p) for s, p in zip(runtime["sandbox"], runtime["protocol"], strict=True))
    found: dict[str, list[str]] = {}
    for row in missing.to_dict("records"):
        found.setdefault(places[place(row["sandbox"], row["protocol"])], []).append(str(row["variant"]))
    measured = {places[place(s, p)] for s, p in zip(timed["sandbox"], timed["protocol"], strict=True)}
    for name, variants in found.items():
        who = text.listed(list(dict.fromkeys(variants))) if name in measured else "any row"
        said.append(f"The time of {who} in the sandbox {name}: it was not measured.")
    return said


def _cannot_state(run: Run) -> list[str]:
    jobs = run.info.jobs
    pending = sum(job.state == "pending" for job in jobs)
    said = []
    if run.info.status != "finished":
        said.append(f"Anything final: the run is {run.info.status}, {pending} of {len(jobs)} jobs were not reached.")
    failed = sum(job.state == "failed" for job in jobs)
    if failed:
        said.append(f"What {text.plural(failed, 'failed job')} would have given: the reasons are listed below.")
    return said


def status_line(run: Run) -> str:
    """How many jobs ended how, e.g. ``24 jobs: 18 done, 4 cached, 2 skipped``."""
    states = [job.state for job in run.info.jobs]
    counts = [f"{states.count(s)} {s}" for s in ("done", "cached", "failed", "skipped", "pending") if s in states]
    return f"{text.plural(len(states), 'job')}: {', '.join(counts)}" if states else "no jobs"
