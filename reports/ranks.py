"""Rankings of the rows of a leaderboard by the rules of the suite, on the cases that all of the rule's metrics have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.ranking.rank import Ranking, Standing, rank
from harness.ranking.rules import Rule
from harness.ranking.table import Table
from harness.schema import METRICS
from reports import text
from reports.places import Place, place, place_names
from reports.tables.common import FAILURES, modality_rank

Key = tuple[str, str | None, str | None]
_SANDBOXES = ("docker", "cgroup", "process")
_TIMED = ("wall", "peak_anonymous")


@dataclass(frozen=True)
class RowStanding:
    """How a row stands by one rule; ``rank`` is ``None`` where the rule cannot be applied, and ``reason`` says why.

    ``place``: by the score alone, ``low`` to ``high`` its 95 % interval over resamples of the cases; ``group``: tie
    group, shared with ``shares_with``; ``not_separable``: rows of other groups that the data do not separate from it
    all the same; ``cases``: what the ranking rests on; ``timed_in``: where its times were measured; ``tau``: mean of
    Kendall's tau between the ranking and those of ``samples`` resamples, with its 95 % range and the share of
    resamples in the very same order.
    """

    rule: str
    scheme: str
    rank: int | None = None
    place: int | None = None
    score: float | None = None
    low: int | None = None
    high: int | None = None
    group: int | None = None
    shares_with: tuple[str, ...] = ()
    not_separable: tuple[str, ...] = ()
    cases: int = 0
    left_out: int = 0
    timed_in: str = ""
    samples: int = 0
    tau: float | None = None
    tau_low: float | None = None
    tau_high: float | None = None
    same_order: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Applied:
    """A rule and the values it ranks by; no ``table``: the rule cannot be applied, and ``reason`` says why."""

    rule: Rule
    table: Table | None = None
    timed_in: str = ""
    reason: str = ""

    def ranking(self, modality: str | None = None) -> Ranking | None:
        """The ranking on all cases, or on those of one modality; ``None`` without values."""
        table = self.table if self.table is None or modality is None else self.table.of_stratum(modality)
        return rank(table, self.rule) if table is not None and table.cases else None

    @property
    def modalities(self) -> list[str]:
        """Of the cases, in the order of tables."""
        return sorted(set(self.table.strata) if self.table else (), key=lambda name: (modality_rank(name), name))


def apply(rules: Iterable[Rule], names: Mapping[Key, str], cases: pd.DataFrame, timed: pd.DataFrame) -> list[Applied]:
    """Gather what every rule ranks by.

    Args:
        names: the rows to rank, of one data set, each with the name it is to have.
        cases, timed: `reports.tables.case_values` and `reports.tables.runtime_cases` of the run.
    """
    return [_applied(rule, names, cases, timed) for rule in rules]


def standings(applied: Applied, names: Mapping[Key, str], modality: str | None = None) -> dict[Key, RowStanding]:
    """The standing of every row by one rule, in the order of the ranking; on all cases, or on those of one modality."""
    rule, ranking = applied.rule, applied.ranking(modality)
    if ranking is None:
        return {key: RowStanding(rule.name, rule.scheme, reason=applied.reason) for key in names}
    keys = {name: key for key, name in names.items()}
    return {keys[found.variant]: _standing(applied, ranking, found) for found in ranking.standings}


def _standing(applied: Applied, ranking: Ranking, found: Standing) -> RowStanding:
    shared = ("rank", "place", "score", "low", "high", "group", "shares_with", "not_separable")
    whole = ("cases", "left_out", "samples", "tau", "tau_low", "tau_high", "same_order")
    values: dict[str, Any] = {name: getattr(found, name) for name in shared}
    values |= {name: getattr(ranking, name) for name in whole}
    return RowStanding(applied.rule.name, applied.rule.scheme, timed_in=applied.timed_in, **values)


def _applied(rule: Rule, names: Mapping[Key, str], cases: pd.DataFrame, timed: pd.DataFrame) -> Applied:
    by_time = [metric for metric in rule.weights if metric in _TIMED]
    scores = _of_rows(cases[cases["protocol"] == rule.protocol], names)
    for metric in rule.weights:
        if metric not in _TIMED and scores.loc[scores["metric"] == metric, "row"].nunique() < len(names):
            title = METRICS[metric].title
            return Applied(rule, reason=f"{title}, protocol {rule.protocol}, was not measured of every row")
    parts, where = [scores], ""
    if by_time:
        times = _of_rows(timed[timed["case"].notna()], names)
        chosen = _place(times, rule, len(names))
        if chosen is None:
            return Applied(rule, reason="there is no sandbox in which every row was timed")
        where = place_names([*_places(times), chosen])[chosen]
        parts += [_metric(times[_places_of(times) == chosen], metric) for metric in by_time]
    tidy = pd.concat([_tidy(part) for part in parts if len(part)], ignore_index=True)
    table = Table.of_frame(tidy, list(rule.weights), list(names.values()))
    if not table.cases:
        return Applied(rule, timed_in=where, reason="no case has a value of every metric that the rule weighs")
    return Applied(rule, table, where)


def _of_rows(frame: pd.DataFrame, names: Mapping[Key, str]) -> pd.DataFrame:
    """The records of these rows, with their names in the column ``row``."""
    words = frame[["variant", "deployment", "dataset"]].astype(object)
    words = words.where(words.notna(), None)
    named = [names.get((v, d, s)) for v, d, s in words.itertuples(index=False)]
    frame = frame.assign(row=pd.Series(named, index=frame.index, dtype=object))
    return frame[frame["row"].notna()]


def _metric(times: pd.DataFrame, metric: str) -> pd.DataFrame:
    return times.assign(metric=metric, value=times[metric].astype(float))


def _places_of(times: pd.DataFrame) -> pd.Series:
    pairs = zip(times["sandbox"], times["protocol"], strict=True)
    return pd.Series([place(s, p) for s, p in pairs], index=times.index, dtype=object)


def _places(times: pd.DataFrame) -> list[Place]:
    return list(dict.fromkeys(_places_of(times)))


def _place(times: pd.DataFrame, rule: Rule, rows: int) -> Place | None:
    """Where every row has a time: rather under the rule's protocol, then in a container, then in a control group."""
    good = times[times["status"] == "ok"]
    where = _places_of(good)
    found = [p for p in dict.fromkeys(where) if good.loc[where == p, "row"].nunique() == rows]
    return min(
        found, key=lambda p: (p[1] != rule.protocol, _SANDBOXES.index(p[0]) if p[0] in _SANDBOXES else 9), default=None
    )


def _tidy(frame: pd.DataFrame) -> pd.DataFrame:
    """One value a row, case and metric: the mean over seeds; a case failed if it did under any seed."""
    frame = frame.assign(failed=frame["status"].isin(FAILURES), modality=frame["modality"].fillna("unknown"))
    groups = frame.groupby(["row", "metric", "case"], sort=False)
    found = groups.agg(value=("value", "mean"), failed=("failed", "any"), modality=("modality", "first"))
    return found.reset_index().rename(columns={"row": "variant"})


def explained(found: Sequence[RowStanding]) -> str:
    """What a ranking rests on, in words, from the standings of all rows by one rule."""
    if not found:
        return ""
    one = found[0]
    if one.rank is None:
        return f"{one.rule}: not applied, {one.reason}."
    times = f", times: {one.timed_in}" if one.timed_in else ""
    said = f"{one.rule}: {one.scheme} over {one.cases} case{'' if one.cases == 1 else 's'}{times}"
    if one.left_out:
        said += f" ({one.left_out} without a value of every metric left out)"
    if one.tau is None:
        return f"{said}; {'all rows are equal in it' if one.samples else 'too few cases to resample'}."
    span = f"{text.fixed(one.tau_low, 2)} to {text.fixed(one.tau_high, 2)}"
    return (
        f"{said}; Kendall's tau to {one.samples} resamples {text.fixed(one.tau, 2)} ({span}), "
        f"{text.percent(one.same_order)} in the same order."
    )


_SHARED = (
    "= marks a rank that rows share because the data do not separate them: a row shares the rank of the best row of "
    "its group unless that one beats it in the sign-flip test of the mean of their paired differences (at the rule's "
    "level, 5 % unless it says otherwise, Holm over all pairs)."
)
_BEATEN = "= marks a rank that rows share because they beat the same share of their rivals in the rule's tests."


def rule_of(schemes: Sequence[str]) -> str:
    """What a rank by a rule of these schemes means; shown wherever there is one."""
    shared = [_BEATEN] if "test-based" in schemes else []
    shared += [_SHARED] if set(schemes) - {"test-based"} else []
    return " ".join(
        [
            "Rank: by the first rule named below.",
            *shared,
            "Beside it stands the 95 % interval of the place by score alone, over resamples of the cases.",
        ]
    )


def shown(standing: RowStanding | None) -> str:
    """A rank as tables show it: ``2``, or ``2=`` where it is shared; a dash without a rank."""
    if standing is None or standing.rank is None:
        return text.DASH
    return f"{standing.rank}{'=' if standing.shares_with else ''}"


def interval(standing: RowStanding | None) -> str:
    """The interval of the place: ``1–3``, ``1–1``; empty where there is none."""
    if standing is None or standing.low is None or standing.high is None:
        return ""
    return f"{standing.low}–{standing.high}"


def unclear(found: Mapping[str, RowStanding]) -> list[str]:
    """A sentence for every row that the data do not separate from rows of other ranks; name → standing."""
    said: list[str] = []
    told: set[frozenset[str]] = set()
    for name, standing in found.items():
        others = [other for other in standing.not_separable if frozenset((name, other)) not in told]
        told |= {frozenset((name, other)) for other in others}
        if others:
            said.append(f"{name} is not separable from {text.listed(others)} either, although the ranks differ.")
    return said


def remarks(named: Sequence[tuple[str, Sequence[RowStanding]]]) -> list[str]:
    """What the ranks of one data set rest on, rule by rule; ``named``: every ranked row with its standings."""
    if not named:
        return []
    by_rule = [[standings[at] for _, standings in named] for at in range(len(named[0][1]))]
    said = [explained(found) for found in by_rule]
    leading = next((found for found in by_rule if found[0].rank is not None), None)
    names = [name for name, _ in named]
    return [*said, *(unclear(dict(zip(names, leading, strict=True))) if leading else [])]
