"""What a run can and cannot tell, in plain words, derived from what it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from reports import text
from reports.frame import Run
from reports.leaderboard import LeaderboardRow
from reports.places import place, place_names

# Below this number of cases a modality's mean is an anecdote; the page says so.
FEW_CASES = 10


@dataclass(frozen=True)
class Conclusions:
    """``banner``: the one sentence nobody may miss, or empty; ``can`` and ``cannot``: sentences."""

    banner: str
    can: tuple[str, ...]
    cannot: tuple[str, ...]


def conclude(run: Run, board: Sequence[LeaderboardRow], accuracy: pd.DataFrame, runtime: pd.DataFrame) -> Conclusions:
    """Sentences for the top of a report; ``accuracy`` and ``runtime``: the summary tables of the run."""
    scored = [row for row in board if row.dsc is not None]
    noted = [row for row in scored if row.note]
    can = [*_can_cost(board), *_can_time(run, runtime), *_can_rank(board)]
    cannot = [
        *_cannot_accuracy(run, scored, noted),
        *_cannot_statistics(run, accuracy),
        *_cannot_time(runtime),
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
    return [f"Times and memory are cold runs in the sandbox {where} on this one machine ({cpu}), every phase recorded."]


def _can_rank(board: Sequence[LeaderboardRow]) -> list[str]:
    ranked = [row for row in board if row.rank is not None]
    if not ranked:
        return []
    return [f"The order of {text.plural(len(ranked), 'row')} by DSC (strict): same cases, no training note."]


def _cannot_accuracy(run: Run, scored: Sequence[LeaderboardRow], noted: Sequence[LeaderboardRow]) -> list[str]:
    said = []
    if noted:
        said.append("Which model is more accurate, for any row with a training note: those rows carry no rank.")
    kinds = {name: data.kind for name, data in run.info.provenance.datasets.items()}
    phantoms = sorted({row.dataset for row in scored if row.dataset and kinds.get(row.dataset) == "phantoms"})
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
        said.append(f"Small differences: {cases}, about {per} {noun} a modality, and no interval is computed.")
    lost = measured[measured["lost_seeds"] > 0]
    if len(lost):
        names = text.listed(list(dict.fromkeys(lost["variant"])))
        said.append(f"The mean over all seeds of {names}: not every seed has a value.")
    if measured["seeds"].max() <= 1:
        said.append("How much a retraining would move a value: there is one seed.")
    return said


def _cannot_time(runtime: pd.DataFrame) -> list[str]:
    said = []
    timed = runtime[runtime["wall"].notna()]
    if len(timed) and timed["repeats"].min() < 2:
        said.append("How much a time varies: a case was run once.")
    partial = timed[timed["failed"] > 0]
    if len(partial):
        names = text.listed(list(dict.fromkeys(partial["variant"])))
        said.append(f"A fair time of {names}: the median leaves out cases that failed.")
    missing = runtime[runtime["wall"].isna()]
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
