"""Tables of the page that a critical reader asks for: training, ablations, and everything that is not ok."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from reports import text
from reports.places import Place, place, place_names
from reports.tables.common import grouped, joined, none_if_missing
from reports.views.model import Cell, Column, Table, joined_words, number, of_metric, variant_cell, word


def training_table(table: pd.DataFrame) -> Table:
    """What training each variant had."""
    columns = (
        Column("Variant", numeric=False),
        Column("Seed"),
        Column("Steps", "done of planned"),
        Column("Converged", numeric=False),
        of_metric("train_loss", "first tenth", "Loss"),
        of_metric("train_loss", "last tenth", "Loss"),
        Column("Status", numeric=False),
    )
    rows = []
    for r in table.to_dict("records"):
        planned = none_if_missing(r["planned"])
        steps = str(r["steps"]) if planned is None else f"{r['steps']} of {planned}"
        bad = r["status"] != "ok"
        rows.append(
            (
                variant_cell(r["variant"], None, r["note"]),
                number(r["seed"], str(r["seed"])),
                number(r["steps"], steps),
                word("yes" if r["converged"] else "no"),
                number(r["first_loss"], text.fixed(r["first_loss"], 3)),
                number(r["last_loss"], text.fixed(r["last_loss"], 3)),
                Cell(status=r["status"], reason=r["reason"], small=r["reason"], sort=r["status"])
                if bad
                else word("ok"),
            )
        )
    return Table("training", "Loss: mean over the first and the last tenth of the steps.", columns, tuple(rows))


_ABLATED: tuple[tuple[str, str | None, str], ...] = (
    ("dsc", "strict", "strict, macro"),
    ("nsd", "strict", "strict, macro"),
    ("dsc", "cvpr24", "cvpr24, macro"),
    ("nsd", "cvpr24", "cvpr24, macro"),
    ("params", None, ""),
    ("flops", None, "multiply-adds"),
)


def ablation_table(table: pd.DataFrame, several: bool) -> Table:
    """A row an ablated variant and place (deployment, data set); in each cell the difference to the base."""
    timed = table[table["metric"] == "wall"]
    places = place_names(place(s, p) for s, p in zip(timed["sandbox"], timed["protocol"], strict=True))
    shown = [
        c
        for c in _ABLATED
        if ((table["metric"] == c[0]) & (table["protocol"].isna() | (table["protocol"] == c[1]))).any()
    ]
    columns = [Column("Variant", numeric=False), Column("Base", numeric=False), Column("Changed", numeric=False)]
    titles = {"params": "Params", "flops": "FLOPs"}
    columns += [of_metric(metric, sub, titles.get(metric)) for metric, _, sub in shown]
    columns += [of_metric("wall", f"{name}, s", "Wall") for name in places.values()]
    counts = table[table["metric"].isin(("params", "flops"))]
    rows = []
    for key, part in grouped(table[~table["metric"].isin(("params", "flops"))], ["variant", "deployment", "dataset"]):
        mine = pd.concat([part, counts[counts["variant"] == key["variant"]]])
        rows.append(_ablation_row(key, mine, shown, list(places), several))
    with_rows = {row[0].text for row in rows}
    for key, part in grouped(counts[~counts["variant"].isin(with_rows)], ["variant"]):
        rows.append(_ablation_row(key, part, shown, list(places), several))
    caption = (
        "Difference to the base, over the cases both have: of macro averages for accuracy, of medians for wall time. "
        "Below it the two values. No test of significance is made: a difference alone is no finding."
    )
    return Table("ablations", caption, tuple(columns), tuple(rows))


def _ablation_row(
    key: Mapping[str, object],
    part: pd.DataFrame,
    shown: Sequence[tuple[str, str | None, str]],
    places: Sequence[Place],
    several: bool,
) -> tuple[Cell, ...]:
    first = part.iloc[0]
    notes = (joined(part["note"]), joined(part["base_note"]))
    found = {
        (
            r["metric"],
            place(r["sandbox"], r["protocol"]) if r["metric"] == "wall" else none_if_missing(r["protocol"]),
        ): r
        for r in part.to_dict("records")
    }
    cells = [_difference(found.get((metric, protocol))) for metric, protocol, _ in shown]
    cells += [_difference(found.get(("wall", where))) for where in places]
    deployment = key.get("deployment") if several else None
    return (
        variant_cell(first["variant"], deployment, notes[0]),
        variant_cell(first["base"], None, notes[1]),
        word(first["changed"]),
        *cells,
    )


def _difference(row: dict[Any, Any] | None) -> Cell:
    if row is None:
        return Cell(text.DASH)
    metric, difference = row["metric"], row["difference"]
    show = text.seconds if metric == "wall" else lambda value: text.of_metric(metric, value)
    values = f"{show(row['value'])} / {show(row['base_value'])}"
    return number(difference, ("+" if difference > 0 else "") + show(difference), small=values)


def problem_table(table: pd.DataFrame) -> Table:
    """Every cell that is not ok, failures first; rows that share status, reason and place are listed together."""
    columns = (
        Column("Status", numeric=False),
        Column("What", numeric=False),
        Column("Where", numeric=False),
        Column("Who", numeric=False),
        Column("Cases"),
        Column("Reason", numeric=False),
    )
    rows = []
    for key, part in grouped(table, ["status", "kind", "dataset", "sandbox", "protocol", "reason"]):
        names = list(dict.fromkeys(name for names in part["names"] for name in names))
        metrics = list(dict.fromkeys(m for metrics in part["metrics"] for m in metrics))
        cases = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        who = dict.fromkeys(joined_words(v, d) for v, d in zip(part["variant"], part["deployment"], strict=True))
        rows.append(
            (
                Cell(status=str(key["status"]), sort=str(key["status"]), reason=str(key["reason"])),
                Cell(str(key["kind"]), str(key["kind"]), small=", ".join(metrics)),
                Cell(
                    joined_words(key["sandbox"], key["dataset"]) or text.DASH,
                    joined_words(key["sandbox"]),
                    small=joined_words(key["protocol"]),
                ),
                word(", ".join(who)),
                number(len(names), str(len(names)) if names else "all"),
                Cell(str(key["reason"]), str(key["reason"]), small=cases),
            )
        )
    last = ("unsupported", "skipped")
    rows.sort(key=lambda row: last.index(row[0].status) + 1 if row[0].status in last else 0)
    return Table("problems", "Nothing that failed or was skipped is missing from this list.", columns, tuple(rows))
