"""The rows of the leaderboard: one a variant, deployment and data set.

The rank is that of the first of the suite's rules that can be applied (`harness.ranking`); rows that the data do not
separate share it.  A rank is claimed only among rows that can be compared: weights without a training note, and the
same cases.  All other rows follow in the order of the suite, without a rank; nothing is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness.ranking.rules import rules
from reports import ranks, text
from reports.frame import Run
from reports.places import Place, Timing, place, place_names
from reports.ranks import Key, RowStanding
from reports.tables import accuracy_summary, case_values, complexity, runtime_cases, runtime_summary
from reports.tables.common import none_if_missing
from reports.tables.fidelity import notes, warning

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

PROTOCOL = "strict"


@dataclass(frozen=True)
class LeaderboardRow:
    """One row.  ``rank`` is ``None`` where no order is claimed; ``reason`` says why numbers are missing or reduced.

    ``standings`` has one entry a rule of the suite, in that order, and none where no order is claimed; ``rank`` is that
    of the first rule that could be applied.  ``only``: what the board was restricted to, in words; empty: nothing.
    ``dsc``, ``nsd``, ``dsc_micro``: protocol ``strict``, ``_low`` and ``_high`` the ends of the 95 % interval (``None``
    where there is none, see `harness.stats.bootstrap`); ``dsc_cvpr24``, ``nsd_cvpr24``: the challenge's; ``flops`` in
    multiply-adds; ``flag`` is the warning of the deployment; ``timings`` has one entry a sandbox and protocol;
    ``lost_seeds`` are not among the ``seeds``.
    """

    rank: int | None
    variant: str
    deployment: str | None
    dataset: str | None
    note: str
    flag: str
    weights: str
    tiny: bool
    dsc: float | None
    dsc_low: float | None
    dsc_high: float | None
    nsd: float | None
    nsd_low: float | None
    nsd_high: float | None
    dsc_micro: float | None
    dsc_cvpr24: float | None
    nsd_cvpr24: float | None
    cases: int
    objects: int
    failed: int
    skipped: int
    seeds: int
    lost_seeds: int
    status: str
    reason: str
    params: float | None
    flops: float | None
    params_status: str
    flops_status: str
    cost_reason: str
    timings: tuple[Timing, ...] = field(default=())
    standings: tuple[RowStanding, ...] = field(default=())
    only: str = ""

    @property
    def has_accuracy(self) -> bool:
        """Whether there is a mean of any metric that a board shows."""
        return any(value is not None for value in (self.dsc, self.nsd, self.dsc_cvpr24, self.nsd_cvpr24))

    @property
    def standing(self) -> RowStanding | None:
        """The standing that the rank is taken from."""
        return next((found for found in self.standings if found.rank is not None), None)


def rows(
    run: Run,
    accuracy: pd.DataFrame | None = None,
    runtime: pd.DataFrame | None = None,
    counts: pd.DataFrame | None = None,
    cases: pd.DataFrame | None = None,
    timed: pd.DataFrame | None = None,
) -> list[LeaderboardRow]:
    """The leaderboard of a run, data set by data set; tables already computed may be given.

    Ranks are computed from the rows and cases that the run holds, see `reports.restrict`.

    A run that only trains, compares deployments or measures latency has none: all of it is in their tables.
    """
    if not {job.kind for job in run.info.jobs} & {"accuracy", "complexity", "runtime"}:
        return []
    cases = case_values(run) if cases is None else cases
    timed = runtime_cases(run) if timed is None else timed
    accuracy = accuracy_summary(run, cases) if accuracy is None else accuracy
    runtime = runtime_summary(run, timed) if runtime is None else runtime
    counts = complexity(run) if counts is None else counts
    keys = _keys(run, accuracy, runtime)
    warned = notes(run)
    found = {key: _row(run, key, warning(warned, *key[:2]), accuracy, runtime, counts) for key in keys}
    case_sets = _case_sets(accuracy)
    order = {label: i for i, label in enumerate(run.variant_order())}
    result: list[LeaderboardRow] = []
    for dataset in dict.fromkeys(key[2] for key in keys):
        group = {key: row for key, row in found.items() if key[2] == dataset}
        ranked = _ranked(run, group, case_sets, cases, timed)
        rest = [row for key, row in group.items() if key not in ranked]
        result += ranked.values()
        result += sorted(rest, key=lambda r: order[r.variant])
    return result


def _keys(run: Run, accuracy: pd.DataFrame, runtime: pd.DataFrame) -> list[Key]:
    """Variant × deployment × data set, as far as something was planned for it; variants with counts alone included."""
    found: dict[Key, None] = {}
    for table in (accuracy, runtime):
        for row in table[["variant", "deployment", "dataset"]].itertuples(index=False):
            found[(str(row[0]), _word(row[1]), _word(row[2]))] = None
    named = {key[0] for key in found}
    datasets = list(dict.fromkeys(key[2] for key in found)) or [None]
    for job in run.info.jobs:
        # What of a variant was only compared with eager torch, or timed warm, stands in the tables of that.
        if job.variant not in named and job.kind not in ("deploy", "latency"):
            found |= {(job.variant, job.deployment, dataset): None for dataset in datasets}
    return list(found)


def _word(value: Any) -> str | None:
    plain = none_if_missing(value)
    return None if plain is None else str(plain)


def _number(value: Any) -> float | None:
    plain = none_if_missing(value)
    return None if plain is None else float(plain)  # type: ignore[arg-type]


def _same(column: pd.Series, value: str | None) -> pd.Series:
    return column.isna() if value is None else column == value


def _case_sets(accuracy: pd.DataFrame) -> dict[Key, str]:
    """The cases a row was scored on, by the DSC of protocol strict, or what there is in its place."""
    main = (accuracy["metric"] == "dsc") & (accuracy["protocol"] == PROTOCOL)
    table = accuracy.assign(rest=~main).sort_values("rest", kind="stable")
    records = table[["variant", "deployment", "dataset", "case_set"]].itertuples(index=False)
    found: dict[Key, str] = {}
    for r in records:
        found.setdefault((str(r[0]), _word(r[1]), _word(r[2])), str(r[3]))
    return found


def _ranked(
    run: Run, group: dict[Key, LeaderboardRow], case_sets: dict[Key, str], cases: pd.DataFrame, timed: pd.DataFrame
) -> dict[Key, LeaderboardRow]:
    """The rows whose order can be claimed, best first, with their standings; none if fewer than two can be compared."""
    fit = _comparable(group, case_sets)
    if len(fit) < 2:
        return {}
    names = _names(fit, several=len({deployment for _, deployment, _ in group}) > 1)
    found = [ranks.standings(applied, names) for applied in _applied(run, names, cases, timed)]
    if not found:
        return {}
    # Where no rule can be applied, the rows keep the reasons.
    leading = next((one for one in found if any(s.rank for s in one.values())), found[0])
    rows = {}
    for key, standing in leading.items():
        rows[key] = replace(group[key], rank=standing.rank, standings=tuple(one[key] for one in found))
    return rows


def _comparable(group: dict[Key, LeaderboardRow], case_sets: dict[Key, str]) -> list[Key]:
    """Rows with an accuracy, without a note, and with the cases that most such rows have."""
    fit = [k for k, r in group.items() if r.has_accuracy and not (r.note or r.skipped or r.lost_seeds)]
    largest = max((group[k].cases for k in fit), default=0)
    reference = next((case_sets[k] for k in fit if group[k].cases == largest), "")
    return [k for k in fit if case_sets[k] == reference]


def _names(keys: Iterable[Key], several: bool = True) -> dict[Key, str]:
    """A name for each row as `labels` gives them: with the deployment where there are ``several``."""
    return {k: k[0] + (f" · {k[1]}" if several and k[1] else "") for k in keys}


def _applied(run: Run, names: dict[Key, str], cases: pd.DataFrame, timed: pd.DataFrame) -> list[ranks.Applied]:
    return ranks.apply(rules(run.info.resolved.ranking), names, cases, timed)


def modality_ranks(
    run: Run, board: Sequence[LeaderboardRow], cases: pd.DataFrame, timed: pd.DataFrame
) -> dict[str, dict[Key, RowStanding]]:
    """Ranks computed anew on the cases of every modality, by the rule that gave the rows of one data set their rank."""
    ranked = [row for row in board if row.rank is not None]
    if not ranked:
        return {}
    names = _names([(row.variant, row.deployment, row.dataset) for row in ranked])
    leading = next(rule for rule in rules(run.info.resolved.ranking) if rule.name == _rule_of(ranked[0]))
    (applied,) = ranks.apply([leading], names, cases, timed)
    return {name: ranks.standings(applied, names, name) for name in applied.modalities}


def _rule_of(row: LeaderboardRow) -> str:
    return row.standing.rule if row.standing else ""


_ACCURACY = {
    **{
        f"{metric}{end}": ((PROTOCOL, metric), f"macro{end}")
        for metric in ("dsc", "nsd")
        for end in ("", "_low", "_high")
    },
    "dsc_micro": ((PROTOCOL, "dsc"), "micro"),
    "dsc_cvpr24": (("cvpr24", "dsc"), "macro"),
    "nsd_cvpr24": (("cvpr24", "nsd"), "macro"),
}
"""Column of a row → (protocol, metric) and column of `reports.tables.accuracy_summary`."""


def _row(
    run: Run, key: Key, flag: str, accuracy: pd.DataFrame, runtime: pd.DataFrame, counts: pd.DataFrame
) -> LeaderboardRow:
    variant, deployment, dataset = key

    def mine(table: pd.DataFrame) -> pd.DataFrame:
        same = (table["variant"] == variant) & _same(table["deployment"], deployment)
        return table[same & _same(table["dataset"], dataset)]

    scores = mine(accuracy)
    values = {(r["protocol"], r["metric"]): r for r in scores.to_dict("records")}
    main = values.get((PROTOCOL, "dsc")) or (next(iter(values.values())) if values else {})
    cost = counts[
        (counts["variant"] == variant) & (_same(counts["deployment"], deployment) | counts["deployment"].isna())
    ]
    note, weights = _training(run, key)
    counted = ("cases", "objects", "failed", "skipped", "seeds", "lost_seeds")
    numbers: dict[str, Any] = {name: int(main.get(name, 0)) for name in counted}
    numbers |= {column: _number(values.get(where, {}).get(of)) for column, (where, of) in _ACCURACY.items()}
    return LeaderboardRow(
        rank=None,
        variant=variant,
        deployment=deployment,
        dataset=dataset,
        note=note if main else "",
        flag=flag,
        weights=weights,
        tiny=run.info.variants[variant].tiny,
        **numbers,
        status=str(main.get("status", "skipped")),
        reason=str(main.get("reason", "") if main else "no accuracy was planned for this row"),
        params=_number(cost["params"].iloc[0]) if len(cost) else None,
        flops=_number(cost["flops"].iloc[0]) if len(cost) else None,
        params_status=str(cost["params_status"].iloc[0]) if len(cost) else "",
        flops_status=str(cost["flops_status"].iloc[0]) if len(cost) else "",
        cost_reason=str(cost["reason"].iloc[0]) if len(cost) else "",
        timings=tuple(_timing(r) for r in mine(runtime).to_dict("records")),
        only=run.only,
    )


def _training(run: Run, key: Key) -> tuple[str, str]:
    """Note and origin of the weights behind a row's accuracy."""
    mine = [j for j in run.info.jobs if j.variant == key[0] and not j.of_teacher]
    here = [j for j in mine if (j.variant, j.deployment, j.dataset) == key]
    # The weights the accuracy was made with; where there is none, those of the row's runtime, else of the variant.
    jobs = [j for j in here if j.kind == "accuracy"] or here or mine
    used = [run.training[j.digest] for j in jobs]
    notes = dict.fromkeys(t.note for t in used if t.note)
    return "; ".join(notes), "; ".join(dict.fromkeys(t.weights for t in used))


def _timing(row: dict[Any, Any]) -> Timing:
    sandbox, protocol = place(row["sandbox"], row["protocol"])
    return Timing(
        sandbox=sandbox,
        protocol=protocol,
        wall=_number(row["wall"]),
        peak_anonymous=_number(row["peak_anonymous"]),
        peak_memory=_number(row["peak_memory"]),
        cases=int(row["cases"]),
        ok=int(row["ok"]),
        failed=int(row["failed"]),
        status=str(row["status"]),
        reason=str(row["reason"]),
    )


def places(board: Sequence[LeaderboardRow]) -> dict[Place, str]:
    """Sandboxes and protocols that occur, in order of first appearance, with the names of their columns."""
    return place_names(t.place for row in board for t in row.timings)


def timing_at(row: LeaderboardRow, where: Place) -> Timing | None:
    """The timing of a row in one sandbox under one protocol."""
    return next((t for t in row.timings if t.place == where), None)


def problem(row: LeaderboardRow) -> str:
    """What is missing from a row's accuracy, in words; empty if nothing is."""
    if row.status != "ok":
        return f"{row.status}: {row.reason}"
    bad = [f"{row.failed} of {row.cases} cases failed"] if row.failed else []
    bad += [f"{row.skipped} skipped"] if row.skipped else []
    bad += [f"{row.lost_seeds} of {row.seeds + row.lost_seeds} seeds without a value"] if row.lost_seeds else []
    return f"{', '.join(bad)}: {row.reason}" if bad else ""


def remark(row: LeaderboardRow) -> str:
    """Training note, warning of the deployment and problem of a row."""
    return "; ".join(part for part in (row.note, row.flag, problem(row)) if part)


def problem_lines(board: Sequence[LeaderboardRow]) -> list[str]:
    """What is missing from the accuracy of the rows, in words; rows that miss the same for one reason share a line."""
    found: dict[str, list[str]] = {}
    for label, row in zip(labels(board), board, strict=True):
        if problem(row):
            found.setdefault(problem(row), []).append(label)
    return [f"{text.listed(who)}: {said}" for said, who in found.items()]


def labels(board: Sequence[LeaderboardRow]) -> list[str]:
    """Names of the rows; the deployment is part of it where the rows differ in it."""
    several = len({row.deployment for row in board}) > 1
    return [row.variant + (f" · {row.deployment}" if several and row.deployment else "") for row in board]


def groups(board: Sequence[LeaderboardRow]) -> dict[str | None, list[LeaderboardRow]]:
    """The rows by data set."""
    found: dict[str | None, list[LeaderboardRow]] = {}
    for row in board:
        found.setdefault(row.dataset, []).append(row)
    return found


def missing_costs(board: Sequence[LeaderboardRow]) -> list[str]:
    """A sentence for every reason that kept a time, part of its cases or a count from being measured."""
    found: dict[tuple[str, str, str], list[str]] = {}
    names = places(board)
    for label, row in zip(labels(board), board, strict=True):
        for t in row.timings:
            if t.reason:
                how = t.status if t.wall is None else "failed cases"
                found.setdefault((names[t.place], how, t.reason), []).append(label)
    for label, row in zip(labels(board), board, strict=True):
        if row.cost_reason:
            found.setdefault(("complexity", "not counted", row.cost_reason), []).append(label)
    timed = {name: sum(t.place == where for row in board for t in row.timings) for where, name in names.items()}
    said = []
    for (what, how, reason), who in found.items():
        everyone = len(who) == timed.get(what, len(board)) > 1
        said.append(f"{what}, {how}: {reason} ({'every row' if everyone else text.listed(who)})")
    return said
