"""Tables of the page that a critical reader asks for: training, and everything that is not ok."""

from __future__ import annotations

from typing import Any

import pandas as pd

from reports import text
from reports.tables.common import grouped, none_if_missing
from reports.views.model import Cell, Column, Table, joined_words, merged, number, of_metric, variant_cell, word


def training_table(table: pd.DataFrame) -> Table:
    """What training each variant had, a row a stage."""
    table = _numbered(table)
    staged = bool((table["stage"] != "train").any())
    validated = bool(table["best_step"].notna().any())
    columns = (
        Column("Variant", numeric=False),
        Column("Seed"),
        *((Column("Stage", numeric=False),) if staged else ()),
        Column("Steps", "done of planned"),
        Column("Converged", numeric=False),
        of_metric("train_loss", "first tenth", "Loss"),
        of_metric("train_loss", "last tenth", "Loss"),
        *((Column("Best validation", "its step"),) if validated else ()),
        Column("Status", numeric=False),
    )
    rows = []
    for r in table.to_dict("records"):
        bad = r["status"] != "ok"
        rows.append(
            (
                variant_cell(r["variant"], None, r["note"]),
                number(r["seed"], str(r["seed"])),
                *((word(r["stage"]),) if staged else ()),
                _steps(r),
                word("yes" if r["converged"] else "no"),
                number(r["first_loss"], text.fixed(r["first_loss"], 3)),
                number(r["last_loss"], text.fixed(r["last_loss"], 3)),
                *((_best(r),) if validated else ()),
                Cell(status=r["status"], reason=r["reason"], small=r["reason"], sort=r["status"])
                if bad
                else word("ok"),
            )
        )
    hints = merged(
        (joined_words(r["variant"], r["stage"] if staged else ""), r["hint"])
        for r in table.to_dict("records")
        if r["hint"]
    )
    return Table("training", _caption(table), columns, tuple(rows), tuple(hints))


def _numbered(table: pd.DataFrame) -> pd.DataFrame:
    """Stages of one name in one training are told apart by their place among them: ``train 1``, ``train 2``."""
    alike = table.groupby(["variant", "seed", "stage"], sort=False)
    several, place = alike["stage"].transform("size") > 1, (alike.cumcount() + 1).astype(str)
    return table.assign(stage=table["stage"].where(~several, table["stage"] + " " + place))


def _caption(table: pd.DataFrame) -> str:
    said = "Loss: mean over the first and the last tenth of the steps."
    distils = bool(table["stage"].str.startswith("distil").any())
    return (
        f"{said} That of distil is the distance to the teacher's embedding, not a loss of masks." if distils else said
    )


def _steps(row: dict[Any, Any]) -> Cell:
    """Steps done, of how many if the recipe counts steps, and what ended them."""
    planned, epochs = _known(row["planned"]), _known(row["epochs"])
    shown = str(row["steps"]) if planned is None else f"{row['steps']} of {planned:.0f}"
    passes = None if epochs is None else text.plural(int(epochs), "epoch")
    return number(row["steps"], shown, small=joined_words(passes, "ended early" if row["ended_early"] else None))


def _best(row: dict[Any, Any]) -> Cell:
    """Loss and DSC of the best validation."""
    step, loss, dsc = (_known(row[name]) for name in ("best_step", "best_loss", "best_dsc"))
    if step is None:
        return Cell(text.DASH)
    words = [f"{name} {text.fixed(value, 3)}" for name, value in (("loss", loss), ("DSC", dsc)) if value is not None]
    return number(loss, ", ".join(words) or text.DASH, small=f"step {step:.0f}")


def _known(value: Any) -> float | None:
    return None if none_if_missing(value) is None else float(value)


def _who(row: dict[Any, Any]) -> str:
    """Variant and deployment, with its warning if it carries one."""
    name = joined_words(row["variant"], row["deployment"])
    return f"{name} ({row['flag']})" if row["flag"] else name


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
        who = dict.fromkeys(_who(row) for row in part.to_dict("records"))
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
