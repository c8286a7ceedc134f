"""What ways of execution gain over the authors' scripts, and orders that the allocator decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.schema import Record
from reports import html, tables
from reports.frame import Run, load_run
from reports.tables.gains import remarks
from tests.reports.synthetic import SyntheticRun

PLAIN = {"backend": "torch", "precision": "fp32", "threads": 2}
DEPLOYMENTS = {
    "scripts": PLAIN | {"allocator": "system", "execution": "reference"},
    "system": PLAIN | {"allocator": "system"},
    "kept": PLAIN | {"allocator": "keep-pages"},
}
WOBBLE = (1.0, 1.02, 0.99, 1.03, 1.01, 0.98, 1.04, 1.05)


class TimedRun(SyntheticRun):
    """A made-up run with eight repeats of one case."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.data["resolved"] = {"deployments": DEPLOYMENTS}

    def timed(self, variant: str, deployment: str, seconds: float, session: str = "s1", repeats: int = 8) -> None:
        about: dict[str, Any] = {"case": "2DBox_CT_0001", "ndim": 2, "protocol": "strict"}
        detail = json.dumps({"session": session, "outside_s": 0.05})
        rows = [
            Record("wall", seconds * WOBBLE[n] * (1 + 0.001 * n * len(deployment)), repeat=n, detail=detail, **about)
            for n in range(repeats)
        ]
        where = {"deployment": deployment, "dataset": "phantoms", "sandbox": "docker"}
        self._add("runtime", variant, rows, settings={"protocol": "strict"}, **where)


@pytest.fixture
def run(tmp_path: Path) -> TimedRun:
    return TimedRun(tmp_path)


def loaded(made: TimedRun) -> Run:
    return load_run(*made.write())


def test_a_gain_is_the_median_of_paired_ratios_to_the_variants_own_reference(run: TimedRun):
    run.timed("litemedsam", "scripts", 6.0)
    run.timed("litemedsam", "kept", 2.0)
    run.timed("swiftmedsam_v2", "kept", 1.0)
    (row,) = tables.gains(loaded(run)).to_dict("records")
    assert (row["variant"], row["deployment"], row["reference"], row["pairs"]) == ("litemedsam", "kept", "scripts", 8)
    assert row["gain"] == pytest.approx(3.0, rel=0.02)
    assert row["low"] <= row["gain"] <= row["high"]
    assert row["verdict"] == "faster"
    assert row["p"] == pytest.approx(2 / 2**8)
    assert row["interleaved"]


def test_few_pairs_and_pairs_of_two_sessions_are_said_to_be_such(run: TimedRun):
    run.timed("litemedsam", "scripts", 6.0, repeats=3)
    run.timed("litemedsam", "kept", 2.0, session="s2", repeats=3)
    (row,) = tables.gains(loaded(run)).to_dict("records")
    assert row["verdict"] == "too few pairs"
    assert not row["interleaved"]


def test_an_order_that_the_allocator_decides_is_said_in_words(run: TimedRun):
    for variant, system, kept in (("litemedsam", 1.2, 0.70), ("swiftmedsam_v2", 0.8, 0.75)):
        run.timed(variant, "system", system)
        run.timed(variant, "kept", kept)
    table = tables.orders(loaded(run))
    (row,) = table.to_dict("records")
    assert row["first_ratio"] == pytest.approx(1.5)
    assert row["second_ratio"] == pytest.approx(0.7 / 0.75)
    assert row["changes"] == "the order is reversed"
    (said,) = remarks(table)
    assert "the allocator decides" in said
    assert "litemedsam ÷ swiftmedsam_v2" in said


def test_an_order_that_stands_under_both_allocators_is_not_mentioned(run: TimedRun):
    for variant, factor in (("litemedsam", 1.0), ("swiftmedsam_v2", 0.5)):
        run.timed(variant, "system", 2 * factor)
        run.timed(variant, "kept", factor)
    table = tables.orders(loaded(run))
    assert len(table) == 1
    assert not list(remarks(table))


def test_the_page_shows_gains_and_what_the_harness_cost(run: TimedRun):
    run.timed("litemedsam", "scripts", 6.0)
    run.timed("litemedsam", "kept", 2.0)
    page = html.render(loaded(run))
    assert "Gained over the authors" in page
    assert "×3.0" in page
    assert "beside 16 runs the harness spent 1.2% of their time" in page


def test_a_page_without_a_reference_has_no_table_of_gains(run: TimedRun):
    run.timed("litemedsam", "kept", 2.0)
    assert "Gained over the authors" not in html.render(loaded(run))
