"""HD95, volume error and box IoU in the views, where a suite asks for them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.schema import Record
from reports import html, tables
from reports.cells import cells
from reports.frame import Run, load_run
from tests.reports.synthetic import SyntheticRun

BEYOND = {"hd95": lambda dsc: 40 * (1 - dsc), "volume_error": lambda dsc: 0.5 - dsc, "box_iou": lambda dsc: dsc**0.5}


FARTHEST = 123.5


def write(root: Path, detail: str | None = json.dumps({"farthest": FARTHEST})) -> Run:
    """The made-up run with all metrics under protocol strict; of swiftmedsam_v2 the PET case failed."""
    made = SyntheticRun(root)
    for job in made.data["jobs"]:
        if job["kind"] == "accuracy":
            job["settings"]["metrics"] = ["dsc", "nsd", *BEYOND]
            made.records[job["digest"]] = [
                more for record in made.records.get(job["digest"], []) for more in with_all(record, detail)
            ]
    return load_run(*made.write())


def with_all(record: Record, detail: str | None) -> list[Record]:
    if record.metric != "dsc" or record.protocol != "strict":
        return [record]
    values = {m: None if record.value is None else of(record.value) for m, of in BEYOND.items()}
    told = detail if record.value is None else None
    return [record, *(replace(record, metric=m, value=v, detail=told) for m, v in values.items())]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write(tmp_path_factory.mktemp("further"))


def test_a_failed_case_counts_as_one_where_nothing_was_found(run: Run) -> None:
    cases = tables.case_values(run)
    pet = cases[(cases["modality"] == "PET") & (cases["protocol"] == "strict")]
    failed = pet[pet["variant"] == "swiftmedsam_v2"].set_index("metric")["value"].to_dict()
    assert {m: failed[m] for m in ("dsc", "nsd", "volume_error", "box_iou")} == {
        "dsc": 0.0,
        "nsd": 0.0,
        "volume_error": -1.0,
        "box_iou": 0.0,
    }
    assert failed["hd95"] == FARTHEST


def test_where_the_diagonal_is_not_known_a_failed_case_counts_as_the_worst_of_any_row(tmp_path: Path) -> None:
    cases = tables.case_values(write(tmp_path, detail=None))
    pet = cases[(cases["modality"] == "PET") & (cases["metric"] == "hd95")].set_index("variant")["value"]
    assert 0 < pet.drop(index="swiftmedsam_v2").max() <= pet["swiftmedsam_v2"] < 40


def test_the_page_has_a_table_of_each_with_its_direction_and_unit(run: Run) -> None:
    page = html.render(run)
    for name, said in (
        ("hd95", "HD95, mm, 2D: px"),
        ("volume_error", "Relative volume error, + too large"),
        ("box_iou", "Box IoU"),
    ):
        assert f'id="t-{name}-strict' in page
        assert f"{said}, protocol strict, per modality" in page
        assert f'id="t-{name}-cvpr24' not in page, "the challenge has no such metric"
    assert "A failed case counts as its diagonal" in page
    assert "A failed case counts as -1" in page


def test_an_ablation_compares_what_has_a_better_direction(run: Run) -> None:
    found = tables.ablations(run)
    assert {"dsc", "nsd", "hd95", "box_iou"} <= set(found["metric"])
    assert "volume_error" not in set(found["metric"])


def test_a_gate_may_name_those_that_have_a_better_direction(run: Run) -> None:
    found = {cell.metric for cell in cells(run)}
    assert {"hd95", "box_iou"} <= found
    assert "volume_error" not in found


def test_a_job_without_records_stands_for_all_metrics_it_was_asked_for(run: Run) -> None:
    lost = run.frame[(run.frame["variant"] == "swiftmedsam_v1") & (run.frame["kind"] == "accuracy")]
    assert set(lost.loc[lost["protocol"] == "strict", "metric"]) == {"dsc", "nsd", *BEYOND}
    assert set(lost.loc[lost["protocol"] == "cvpr24", "metric"]) == {"dsc", "nsd"}
