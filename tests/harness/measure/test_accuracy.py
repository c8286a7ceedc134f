"""Every case of a data set gets its records, whatever happens to it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.config import AccuracySettings, FolderData, VariantRef
from harness.data import Case, write_case
from harness.errors import BenchError
from harness.inference import Prediction
from harness.jobs import JobSpec
from harness.measure import accuracy
from harness.measure.attempts import ATTEMPTS, Attempts
from harness.schema import Record
from tests.harness.measure.support import PlainContext


def image_case(name: str = "2DBox_US_0001", objects: int = 2) -> Case:
    truth = np.zeros((60, 80), np.uint16)
    boxes = []
    for i in range(objects):
        truth[10:40, 5 + 35 * i : 35 + 35 * i] = i + 1
        boxes.append([5 + 35 * i, 10, 34 + 35 * i, 39])
    image = np.repeat((40 * truth[..., None]).astype(np.uint8), 3, axis=2)
    return Case(name, "US", image, np.array(boxes, np.int64), None, truth)


def volume_case(name: str = "3DBox_CT_0001", spacing: tuple[float, float, float] | None = (0.8, 0.8, 2.5)) -> Case:
    truth = np.zeros((6, 40, 48), np.uint16)
    truth[1:5, 8:30, 10:36] = 1
    boxes = np.array([[10, 8, 1, 35, 29, 4]], np.int64)
    return Case(name, "CT", (200 * truth).astype(np.uint8), boxes, spacing, truth)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "cases"
    path.mkdir()
    for case in (image_case(), volume_case()):
        write_case(case, path / f"{case.name}.npz")
    return path


def job(folder: Path, **settings: object) -> JobSpec:
    data = FolderData(kind="npz", path=str(folder))
    return JobSpec(kind="accuracy", variant=VariantRef(name="dummy"), dataset=data, settings=settings)


def by_case(context: PlainContext, case: str, metric: str, protocol: str | None) -> list[Record]:
    return [r for r in context.units[case] if r.metric == metric and r.protocol == protocol]


def test_strict_records_every_object_and_cvpr24_every_case(folder: Path, tmp_path: Path) -> None:
    context = PlainContext(tmp_path)
    accuracy.run(job(folder), context)
    assert sorted(context.units) == ["2DBox_US_0001", "3DBox_CT_0001"]
    strict = by_case(context, "2DBox_US_0001", "dsc", "strict")
    assert [r.object for r in strict] == [1, 2]
    assert all(0.8 < r.value < 1 and (r.modality, r.ndim) == ("US", 2) for r in strict)
    (case,) = by_case(context, "2DBox_US_0001", "dsc", "cvpr24")
    assert case.object is None
    assert case.value == pytest.approx(np.mean([r.value for r in strict]), abs=5e-5)
    assert len(by_case(context, "3DBox_CT_0001", "nsd", "strict")) == 1
    (encodes,) = by_case(context, "3DBox_CT_0001", "encodes", None)
    assert encodes.value == 4


def test_only_the_protocols_asked_for_are_recorded(folder: Path, tmp_path: Path) -> None:
    context = PlainContext(tmp_path)
    accuracy.run(job(folder, protocols=("cvpr24",)), context)
    assert {r.protocol for r in context.records} == {"cvpr24", None}


def test_more_metrics_are_recorded_where_a_protocol_has_them(folder: Path, tmp_path: Path) -> None:
    context = PlainContext(tmp_path)
    accuracy.run(job(folder, metrics=("nsd", "hd95", "volume_error", "box_iou")), context)
    assert {(r.metric, r.protocol) for r in context.records} == {
        *((metric, "strict") for metric in ("nsd", "hd95", "volume_error", "box_iou")),
        ("nsd", "cvpr24"),
        ("encodes", None),
    }
    (far,) = by_case(context, "3DBox_CT_0001", "hd95", "strict")
    assert far.object == 1
    assert far.value is not None
    assert far.unit == "mm, 2D: px"


def test_metrics_that_no_protocol_asked_for_has_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cvpr24 has dsc and nsd alone.*add strict to `protocols`"):
        AccuracySettings(protocols=("cvpr24",), metrics=("hd95",))


def test_a_subset_is_all_that_is_measured(folder: Path, tmp_path: Path) -> None:
    context = PlainContext(tmp_path)
    accuracy.run(job(folder, subset={"names": ["3D*"]}), context)
    assert list(context.units) == ["3DBox_CT_0001"]


@pytest.mark.parametrize(("loop", "slices"), [("litemedsam-2024-05-23", 4), ("swin", 2), ("published", 4)])
def test_volumes_are_gone_through_by_the_loop_asked_for(folder: Path, tmp_path: Path, loop: str, slices: int) -> None:
    context = PlainContext(tmp_path)
    accuracy.run(job(folder, loop=loop), context)
    (encodes,) = by_case(context, "3DBox_CT_0001", "encodes", None)
    assert encodes.value == slices


def test_rules_that_the_suite_sets_instead_of_the_variant_s_own_are_followed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = []

    def segment(session, case, chosen, *how):
        rules.append(chosen)
        return Prediction(np.zeros(case.size, np.uint8), 1)

    monkeypatch.setattr(accuracy, "segment", segment)
    overridden = job(folder).model_copy(update={"variant": VariantRef(name="dummy", set={"preprocess": "gray-code"})})
    accuracy.run(overridden, PlainContext(tmp_path))
    assert {r.preprocess for r in rules} == {"gray-code"}


def test_a_deployment_that_does_not_apply_gives_every_case_an_unsupported_record_a_metric(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "open_session", lambda *_, **__: pytest.fail("there is nothing to run"))
    context = PlainContext(tmp_path)
    description = context.artifacts / "abc" / "deployment.json"
    description.parent.mkdir(parents=True)
    description.write_text(json.dumps({"format": 1, "unsupported": "it has nothing to fuse"}))
    accuracy.run(job(folder).model_copy(update={"deploy_job": "abc"}), context)
    for name in ("2DBox_US_0001", "3DBox_CT_0001"):
        records = context.units[name]
        assert {(r.metric, r.protocol) for r in records} == {
            *((m, p) for m in ("dsc", "nsd") for p in ("strict", "cvpr24")),
            ("encodes", None),
        }
        assert {(r.status, r.reason, r.value) for r in records} == {("unsupported", "it has nothing to fuse", None)}


def test_a_prepared_deployment_is_opened_from_its_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def open_session(*what, prepared):
        opened.append(prepared)
        return real(*what, prepared=prepared)

    real = accuracy.open_session
    monkeypatch.setattr(accuracy, "open_session", open_session)
    context = PlainContext(tmp_path)
    description = context.artifacts / "abc" / "deployment.json"
    description.parent.mkdir(parents=True)
    description.write_text(json.dumps({"format": 1, "unsupported": None}))
    accuracy.run(job(folder).model_copy(update={"deploy_job": "abc"}), context)
    assert opened == [description.parent]


def test_cases_already_in_the_journal_are_not_measured_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = PlainContext(tmp_path)
    context.units["2DBox_US_0001"] = []
    accuracy.run(job(folder), context)
    assert context.units["2DBox_US_0001"] == []
    assert context.units["3DBox_CT_0001"]
    monkeypatch.setattr(accuracy, "open_session", lambda *_, **__: pytest.fail("nothing is left to do"))
    accuracy.run(job(folder), context)


def test_the_two_protocols_read_the_spacing_in_their_own_order(folder: Path, tmp_path: Path) -> None:
    context = PlainContext(tmp_path)
    accuracy.run(job(folder), context)
    (strict,) = by_case(context, "3DBox_CT_0001", "nsd", "strict")
    (cvpr24,) = by_case(context, "3DBox_CT_0001", "nsd", "cvpr24")
    assert abs(strict.value - cvpr24.value) > 1e-3


def test_a_value_the_protocol_leaves_undefined_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "cases"
    folder.mkdir()
    write_case(volume_case(spacing=None), folder / "3DBox_CT_0001.npz")
    context = PlainContext(tmp_path)
    accuracy.run(job(folder), context)
    for protocol in ("strict", "cvpr24"):
        (record,) = by_case(context, "3DBox_CT_0001", "nsd", protocol)
        assert (record.value, record.status) == (None, "ok")
        assert "no spacing" in json.loads(record.detail)["undefined"]
        assert by_case(context, "3DBox_CT_0001", "dsc", protocol)[0].value > 0.5


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (RuntimeError("shape mismatch\nlong story"), "crashed", "RuntimeError: shape mismatch"),
        (BenchError("a.npz: field 'imgs' is missing"), "crashed", "a.npz: field 'imgs' is missing"),
        (MemoryError(), "oom", "MemoryError"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "oom", "RuntimeError"),
    ],
)
def test_a_failing_case_is_recorded_for_every_metric_and_the_others_go_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str, reason: str
) -> None:
    real = accuracy.segment

    def segment(session, case, rules, *how):
        if case.ndim == 2:
            raise error
        return real(session, case, rules, *how)

    monkeypatch.setattr(accuracy, "segment", segment)
    context = PlainContext(tmp_path)
    accuracy.run(job(folder), context)
    failed = context.units["2DBox_US_0001"]
    assert {(r.metric, r.protocol) for r in failed} == {
        ("dsc", "strict"),
        ("nsd", "strict"),
        ("dsc", "cvpr24"),
        ("nsd", "cvpr24"),
        ("encodes", None),
    }
    assert all(r.status == status and r.value is None and r.reason.startswith(reason) for r in failed)
    assert all("\n" not in r.reason and r.modality == "US" for r in failed)
    assert all(r.status == "ok" for r in context.units["3DBox_CT_0001"])


@pytest.mark.parametrize(
    ("segs", "reason"),
    [
        (np.zeros((60, 79), np.uint8), "shape"),
        (np.zeros((60, 80), np.float32), "float32"),
        (np.full((60, 80), 9, np.uint8), "labels 9..9 for 2 boxes"),
    ],
)
def test_a_prediction_that_is_no_segmentation_of_the_case_is_invalid(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segs: np.ndarray, reason: str
) -> None:
    monkeypatch.setattr(accuracy, "segment", lambda *_: Prediction(segs, 1))
    context = PlainContext(tmp_path)
    accuracy.run(job(folder, subset={"names": ["2D*"]}), context)
    assert {r.status for r in context.records} == {"invalid-output"}
    assert all(reason in r.reason for r in context.records)


def test_a_case_without_ground_truth_is_skipped(tmp_path: Path) -> None:
    folder = tmp_path / "cases"
    folder.mkdir()
    case = image_case()
    write_case(Case(case.name, "US", case.image, case.boxes), folder / f"{case.name}.npz")
    context = PlainContext(tmp_path)
    accuracy.run(job(folder), context)
    assert {r.status for r in context.records} == {"skipped"}
    assert all("ground truth" in r.reason for r in context.records)


def test_progress_is_told_case_by_case(folder: Path, tmp_path: Path) -> None:
    context = PlainContext(tmp_path)
    accuracy.run(job(folder), context)
    assert (0.5, "3DBox_CT_0001 (2 of 2)") in context.messages


def test_a_label_without_a_box_counts_as_missed(tmp_path: Path) -> None:
    folder = tmp_path / "cases"
    folder.mkdir()
    case = image_case()
    write_case(replace(case, boxes=case.boxes[:1]), folder / f"{case.name}.npz")
    context = PlainContext(tmp_path)
    accuracy.run(job(folder), context)
    for metric in ("dsc", "nsd"):
        boxed, missed = by_case(context, case.name, metric, "strict")
        assert (missed.object, missed.value, missed.status) == (2, 0.0, "ok")
        assert "no box" in json.loads(missed.detail)
        assert boxed.value > 0.5
        assert boxed.detail is None


def test_a_label_that_is_nowhere_is_undefined_for_that_reason_also_without_a_spacing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cases"
    folder.mkdir()
    case = volume_case(spacing=None)
    assert case.truth is not None
    write_case(replace(case, truth=np.zeros_like(case.truth)), folder / f"{case.name}.npz")
    monkeypatch.setattr(accuracy, "segment", lambda *_: Prediction(np.zeros(case.size, np.uint8), 1))
    context = PlainContext(tmp_path)
    accuracy.run(job(folder), context)
    for metric in ("dsc", "nsd"):
        (record,) = by_case(context, case.name, metric, "strict")
        assert (record.value, record.status) == (None, "ok")
        assert "neither in the ground truth nor" in json.loads(record.detail)["undefined"]
    (record,) = by_case(context, case.name, "dsc", "cvpr24")
    assert "no object" in json.loads(record.detail)["undefined"]


def test_a_case_that_kills_the_process_is_given_up_after_its_third_death(folder: Path, tmp_path: Path) -> None:
    root = Path(accuracy.__file__).parents[2]
    code = f"""
import os
from pathlib import Path
from harness.measure import accuracy
from harness.measure.attempts import ATTEMPTS, Attempts
from tests.harness.measure.support import PlainContext
from tests.harness.measure.test_accuracy import job
accuracy.segment = lambda *_: os.kill(os.getpid(), 9)
accuracy.run(job(Path({str(folder)!r}), subset={{"names": ["2D*"]}}), PlainContext(Path({str(tmp_path)!r})))
"""
    subprocess.run([sys.executable, "-c", code], cwd=root, check=False)
    context = PlainContext(tmp_path)
    attempting = context.work / "attempting"
    begun = json.loads(attempting.read_text())
    assert begun == {"case": "2DBox_US_0001", "times": 1}
    attempting.write_text(json.dumps({**begun, "times": ATTEMPTS}))
    accuracy.run(job(folder), context)
    assert {(r.status, r.reason) for r in context.units["2DBox_US_0001"]} == {("crashed", accuracy.DIED)}
    assert {r.status for r in context.units["3DBox_CT_0001"]} == {"ok"}
    assert not attempting.exists()


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_healthy_case_outlives_runs_that_were_killed(folder: Path, tmp_path: Path, deaths: int) -> None:
    context = PlainContext(tmp_path)
    (context.work / "attempting").write_text(json.dumps({"case": "2DBox_US_0001", "times": deaths}))
    accuracy.run(job(folder), context)
    assert {r.status for r in context.records} == {"ok"}
    assert not (context.work / "attempting").exists()


def test_every_death_is_counted_and_an_interruption_is_none(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path / "attempting")
    for times in (1, 2):
        with attempts.attempting("a"):
            left_by_a_kill = attempts.file.read_text()
        attempts.file.write_text(left_by_a_kill)
        assert (attempts.deaths("a"), attempts.deaths("b")) == (times, 0)
    with pytest.raises(KeyboardInterrupt), attempts.attempting("a"):
        raise KeyboardInterrupt
    assert attempts.deaths("a") == 0


def test_data_that_changed_since_the_plan_are_not_measured(folder: Path, tmp_path: Path) -> None:
    spec = job(folder).model_copy(update={"inputs": {"dataset": "0" * 64}})
    with pytest.raises(BenchError, match="changed since"):
        accuracy.run(spec, PlainContext(tmp_path))
