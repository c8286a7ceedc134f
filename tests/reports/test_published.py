"""Published figures stand beside what their conventions yield, and beside the one count that can be compared."""

from __future__ import annotations

import json
import math

import pytest

from harness.schema import Record
from reports import html, tables, views
from reports.frame import Run, load_run
from tests.reports.synthetic import SyntheticRun

WHY = "the figure was counted with thop, which is not installed: `pip install 'ultralytics-thop==2.0.*'`"


def figure(value: float | None, printed: str, recomputed: str = "", **more: str) -> Record:
    about = {"quantity": "flops", "printed": printed, "convention": "fvcore; whole model; train", "counts": "as found"}
    about |= {"source": "a paper, Table 3", "agrees": printed == recomputed, "recomputed": recomputed}
    status = {"status": "ok"} if value is not None else {"status": "unsupported", "reason": WHY}
    return Record("published_flops", value, detail=json.dumps(about), **status, **more)


@pytest.fixture
def audited(synthetic: SyntheticRun) -> Run:
    """A run in which one variant has three printed figures, the second wrong and the third not counted."""
    job = synthetic.job("complexity", "litemedsam")
    records = [
        Record("params", 9_791_300.0),
        Record("flops", 39.64e9),
        Record("params_unused", 21.0, detail=json.dumps({"never": {"mask_decoder.prompt1": 21}})),
        Record("params_unused", 21.0, phase="mask_decoder"),
        Record("activation_peak", 224.5 * 1024**2),
        Record("flops_cross_check", 39.29e9, detail=json.dumps({"unexplained": 0.0, "einsum_rounding": 0.0})),
        Record("flops_with_prompts", 39.7e9, detail=json.dumps({"convention": "fvcore; one box + points"})),
        figure(39.977e9, "39.98 G", "39.98 G"),
        figure(39.64e9, "40.1 G", "39.6 G"),
        figure(None, "47.70 G", phase="image_encoder"),
    ]
    synthetic.replace(job["digest"], records)
    return load_run(*synthetic.write())


def test_every_printed_figure_has_a_row_with_its_convention_and_the_common_count(audited: Run) -> None:
    table = tables.published(audited)
    assert list(table["printed"]) == ["39.98 G", "40.1 G", "47.70 G"]
    assert list(table["agrees"]) == [True, False, False]
    assert list(table["status"]) == ["ok", "ok", "unsupported"]
    assert set(table["one_way"]) == {39.64e9}
    assert set(table["convention"]) == {"fvcore; whole model; train"}
    assert math.isnan(table["value"].iloc[2])


def test_a_figure_that_does_not_come_out_or_cannot_be_counted_says_so(audited: Run) -> None:
    table = views.published_table(tables.published(audited))
    recomputed = [row[3] for row in table.rows]
    assert [cell.text for cell in recomputed] == ["39.98 G", "39.6 G", ""]
    assert [cell.note for cell in recomputed] == ["", "differs from the printed figure", ""]
    assert recomputed[2].status == "unsupported"
    assert table.remarks == (f"litemedsam, 47.70 G: {WHY}",)
    assert "inferred" in table.caption


def test_the_page_shows_both_tables_only_where_figures_were_recomputed(audited: Run, page: str) -> None:
    shown = html.render(audited)
    assert 'id="t-complexity"' in shown
    assert 'id="t-published"' in shown
    assert 'id="t-published"' not in page


def test_the_table_of_complexity_tells_unused_parameters_second_counter_and_activations(audited: Run) -> None:
    counts = tables.complexity(audited)
    row = counts.set_index("variant").loc["litemedsam"]
    assert row["params_unused"] == 21
    assert row["unused_modules"] == "mask_decoder.prompt1 21"
    assert row["flops_cross_check"] == 39.29e9
    # What is wrong with a printed figure is no reason of the common count.
    assert row["reason"] == ""
    table = views.complexity_table(counts, several=False)
    titles = [column.title for column in table.columns]
    cells = dict(zip(titles, next(r for r in table.rows if r[0].text == "litemedsam"), strict=True))
    assert (cells["Never executed"].text, cells["Activations"].text) == ("21", "224 MiB")
    assert (cells["Multiply-adds"].text, cells["Cross-check"].text) == ("39.6 G", "39.3 G")
    assert cells["All its prompts"].text == "39.7 G"
    assert "litemedsam: the two counters differ by normalisation alone" in table.remarks
    assert any("21 are never executed (mask_decoder.prompt1 21)" in remark for remark in table.remarks)


def test_the_column_of_all_prompts_is_left_out_where_no_variant_has_more_than_a_box(run: Run) -> None:
    table = views.complexity_table(tables.complexity(run), several=False)
    assert "All its prompts" not in [column.title for column in table.columns]
