"""Tables of the page that show ranks: by every rule, and on the cases of every modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reports import ranks, text
from reports.board import LeaderboardRow, labels
from reports.ranks import Key, RowStanding
from reports.views.model import Cell, Column, Table, number, variant_cell


def _ranked(board: Sequence[LeaderboardRow]) -> list[tuple[str, LeaderboardRow]]:
    return [(label, row) for label, row in zip(labels(board), board, strict=True) if row.rank is not None]


def _name(label: str, row: LeaderboardRow) -> Cell:
    return variant_cell(label, tag="tiny" if row.tiny else "", flag=row.flag)


def _cell(standing: RowStanding | None) -> Cell:
    if standing is None or standing.rank is None:
        return Cell(text.DASH)
    return number(standing.rank, ranks.shown(standing), small=ranks.interval(standing))


def ranking_table(board: Sequence[LeaderboardRow], name: str) -> Table | None:
    """Ranks of one data set by every rule of the suite; ``None`` where there is one rule, or no rank."""
    ranked = _ranked(board)
    if not ranked or len(ranked[0][1].standings) < 2:
        return None
    columns = [Column("Variant", numeric=False)]
    rows: list[list[Cell]] = [[_name(label, row)] for label, row in ranked]
    for at, standing in enumerate(ranked[0][1].standings):
        tau = "not applied" if standing.rank is None else f"tau {text.fixed(standing.tau, 2)}"
        columns += [Column(standing.rule, tau), Column("Score", _unit(standing.scheme))]
        for cells, (_, row) in zip(rows, ranked, strict=True):
            mine = row.standings[at]
            cells += [_cell(mine), number(mine.score, text.fixed(mine.score, 2))]
    caption = (
        "Ranks by the rules of the suite, with the 95 % interval of the place. tau: mean of Kendall's tau between a "
        "ranking and those of resamples of its cases; 1: always the same order."
    )
    return Table(name, caption, tuple(columns), tuple(tuple(cells) for cells in rows))


def _unit(scheme: str) -> str:
    return "rivals beaten" if scheme == "test-based" else "mean rank"


def modality_rank_table(
    board: Sequence[LeaderboardRow], by_modality: Mapping[str, Mapping[Key, RowStanding]], name: str
) -> Table | None:
    """Ranks of one data set, computed anew on the cases of each modality; ``None`` without ranks."""
    ranked = _ranked(board)
    if not ranked or not by_modality:
        return None
    columns = [Column("Variant", numeric=False), Column("Rank", "all cases")]
    columns += [Column(m, f"n = {next(iter(found.values())).cases}") for m, found in by_modality.items()]
    rows = []
    for label, row in ranked:
        key = (row.variant, row.deployment, row.dataset)
        found_here = (_cell(found.get(key)) for found in by_modality.values())
        rows.append((_name(label, row), _cell(row.standing), *found_here))
    rule = ranked[0][1].standing
    caption = (
        f"Rule {rule.rule if rule else ''} on the cases of each modality alone, n cases each; = and intervals as in "
        "the leaderboard. A modality of few cases separates nothing: its rows share a rank."
    )
    return Table(name, caption, tuple(columns), tuple(rows))
