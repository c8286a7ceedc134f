"""Tables of the page that compare ablated variants with their base: differences, and what may be said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from harness.schema import METRICS
from harness.stats import FEWEST
from reports import text
from reports.places import Place, place, place_names
from reports.tables.common import grouped, joined, none_if_missing
from reports.views.model import Cell, Column, Table, joined_words, number, of_metric, variant_cell, word

RULE = (
    "Paired: mean over cases of variant minus base, case by case (micro average; seeds averaged first, a failed case "
    "counts as one where nothing was found), with its 95 % interval (BCa bootstrap over cases). Effect: matched-pairs "
    "rank-biserial, −1 to 1. "
    "Better or worse: the sign-flip test of that mean, adjusted by Holm for all rows here, is under 5 %, the interval "
    "leaves out 0, and the difference is outside the noise of the training seeds where there are several; "
    "Wilcoxon's signed-rank test (Holm, cases without a difference dropped) stands beside it: it asks about most "
    f"cases, not about the mean. Under {FEWEST} cases nothing is separable. One seed: the noise of training is unknown."
)


_ABLATED: tuple[tuple[str, str | None, str], ...] = (
    ("dsc", "strict", "strict, macro"),
    ("nsd", "strict", "strict, macro"),
    ("hd95", "strict", "strict, macro"),
    ("box_iou", "strict", "strict, macro"),
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
        "Below it the two values and the verdict of the table that follows; a difference alone is no finding."
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
    flags = (joined(part["flag"]), joined(part["base_flag"]))
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
        variant_cell(first["variant"], deployment, notes[0], flag=flags[0]),
        variant_cell(first["base"], None, notes[1], flag=flags[1]),
        word(first["changed"]),
        *cells,
    )


def _difference(row: dict[Any, Any] | None) -> Cell:
    if row is None:
        return Cell(text.DASH)
    metric, difference = row["metric"], row["difference"]
    show = text.seconds if metric == "wall" else lambda value: text.of_metric(metric, value)
    values = f"{show(row['value'])} / {show(row['base_value'])} · {row['verdict']}"
    return number(difference, ("+" if difference > 0 else "") + show(difference), small=values)


def verdict_table(table: pd.DataFrame, several: bool) -> Table:
    """One row an ablated variant, place and metric that has cases: what may be said of its difference."""
    columns = (
        Column("Variant", numeric=False),
        Column("Base", numeric=False),
        Column("Metric", numeric=False),
        Column("Difference", "macro"),
        Column("Paired", "micro"),
        Column("p", "sign-flip, Holm"),
        Column("p", "Wilcoxon, Holm"),
        Column("Effect", "rank-biserial"),
        Column("Cases"),
        Column("Seed noise", "SD"),
        Column("Verdict", numeric=False),
    )
    rows = [_verdict_row(row, several) for row in table[table["cases"].notna()].to_dict("records")]
    return Table("verdicts", RULE, columns, tuple(rows))


def _verdict_row(row: dict[Any, Any], several: bool) -> tuple[Cell, ...]:
    decimals = METRICS[row["metric"]].decimals
    where = joined_words(row["protocol"], row["sandbox"], row["dataset"])
    macro = row["difference"] if row["metric"] != "wall" else None
    return (
        variant_cell(row["variant"], row["deployment"] if several else None, row["note"], flag=row["flag"]),
        variant_cell(row["base"], None, row["base_note"], flag=row["base_flag"]),
        Cell(text.metric_title(row["metric"]), row["metric"], small=where),
        _with_interval(macro, row["difference_low"], row["difference_high"], decimals),
        _with_interval(row["paired"], row["paired_low"], row["paired_high"], decimals),
        number(row["p_holm"], text.probability(row["p_holm"])),
        number(row["wilcoxon_p_holm"], text.probability(row["wilcoxon_p_holm"])),
        number(row["effect"], text.signed(row["effect"], 2)),
        number(row["cases"], f"{row['cases']:.0f}"),
        number(row["seed_sd"], text.fixed(row["seed_sd"], decimals + 1), small=text.plural(int(row["seeds"]), "seed")),
        word(row["verdict"], small=row["verdict_reason"]),
    )


def _with_interval(value: float | None, low: float, high: float, decimals: int) -> Cell:
    return number(value, text.signed(value, decimals), small=text.interval(low, high, decimals))
