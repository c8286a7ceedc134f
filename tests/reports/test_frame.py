from __future__ import annotations

import json

import pytest

from harness.errors import BenchError
from harness.schema import Record
from harness.store import records_key
from reports.frame import Run, load_run
from reports.training import Training
from tests.reports.synthetic import SyntheticRun


@pytest.mark.parametrize(
    ("training", "note"),
    [
        (Training("trained", 20, converged=False), "under-trained, 20 steps"),
        (Training("trained", 1, converged=False), "under-trained, 1 step"),
        (Training("trained", 5000, converged=True), ""),
        (Training("trained", 0, converged=False), "untrained"),
        (Training("trained", 0, converged=True), "untrained"),
        (Training("none"), "untrained"),
        (Training("unfinished"), "untrained"),
        (Training("file"), ""),
        (Training("reference"), ""),
    ],
)
def test_the_training_note_says_how_far_training_went(training: Training, note: str) -> None:
    assert training.note == note


def notes_of(run: Run, kind: str = "accuracy") -> dict[str, set[str]]:
    frame = run.frame[run.frame["kind"] == kind]
    return {str(v): set(part["note"]) for v, part in frame.groupby("variant")}


def test_every_accuracy_row_carries_the_note_of_the_training_it_needs(run: Run) -> None:
    notes = notes_of(run)
    assert notes["tiny"] == {"under-trained, 120 steps"}
    assert notes["litemedsam"] == {"under-trained, 12 steps"}
    assert notes["dummy"] == {""}


def test_fine_tuned_weights_say_so(synthetic: SyntheticRun) -> None:
    synthetic.job("train", "litemedsam")["weights"] = {"file": "lite_medsam.pth", "train_job": None}
    run = load_run(*synthetic.write())
    made = run.training[synthetic.job("accuracy", "litemedsam")["digest"]]
    assert (made.note, made.weights) == ("fine-tuned, 12 steps", "from file, then trained here, 12 steps")


def test_weights_from_a_file_need_no_note_and_no_weights_do(synthetic: SyntheticRun) -> None:
    for variant in ("tiny", "litemedsam"):
        synthetic.job("accuracy", variant)["needs"] = []
    synthetic.data["variants"]["litemedsam"]["weights"] = "lite_medsam.pth"
    notes = notes_of(load_run(*synthetic.write()))
    assert notes["litemedsam"] == {""}
    assert notes["tiny"] == {"untrained"}


def test_a_variant_with_nothing_to_train_needs_no_note(synthetic: SyntheticRun) -> None:
    synthetic.job("accuracy", "tiny")["needs"] = []
    synthetic.data["variants"]["tiny"]["trainable"] = False
    assert notes_of(load_run(*synthetic.write()))["tiny"] == {""}


def test_training_that_broke_off_took_the_steps_it_has_losses_of(synthetic: SyntheticRun) -> None:
    train = synthetic.job("train", "tiny")["digest"]
    losses = [Record("train_loss", 1.0, repeat=i) for i in range(7)]
    lost = [Record(m, status="crashed", reason="diverged") for m in ("train_steps", "converged")]
    synthetic.replace(train, [*losses, *lost])
    assert notes_of(load_run(*synthetic.write()))["tiny"] == {"under-trained, 7 steps"}


def test_a_job_without_records_is_a_row_with_status_and_reason(run: Run) -> None:
    docker = run.frame[run.frame["sandbox"] == "docker"]
    assert set(docker["status"]) == {"skipped"}
    assert docker["reason"].str.contains("no Docker engine").all()
    assert docker["whole_job"].all()
    failed = run.frame[(run.frame["kind"] == "train") & (run.frame["variant"] == "swiftmedsam_v1")]
    assert set(failed["status"]) == {"crashed"}


def test_every_job_of_the_run_has_a_row(run: Run) -> None:
    assert set(run.frame["job"]) == {job.digest for job in run.info.jobs}


def test_a_skipped_accuracy_job_has_a_row_for_every_protocol_it_would_have_had(run: Run) -> None:
    rows = run.frame[(run.frame["kind"] == "accuracy") & (run.frame["variant"] == "swiftmedsam_v1")]
    assert {*zip(rows["metric"], rows["protocol"], strict=True)} == {
        ("dsc", "strict"),
        ("nsd", "strict"),
        ("dsc", "cvpr24"),
        ("nsd", "cvpr24"),
    }


def test_a_done_job_whose_records_are_gone_is_a_failure_not_a_gap(synthetic: SyntheticRun) -> None:
    digest = synthetic.job("accuracy", "dummy")["digest"]
    del synthetic.records[digest]
    run = load_run(*synthetic.write())
    rows = run.frame[run.frame["job"] == digest]
    assert set(rows["status"]) == {"crashed"}
    assert rows["reason"].str.contains("missing from the store").all()


def test_a_job_not_reached_says_so(synthetic: SyntheticRun) -> None:
    job = synthetic.job("accuracy", "dummy")
    del synthetic.records[job["digest"]]
    job["state"] = "pending"
    run = load_run(*synthetic.write())
    assert set(run.frame.loc[run.frame["job"] == job["digest"], "reason"]) == {"the run has not reached this job"}


def test_numbers_without_a_data_digest_are_withheld_with_a_reason(synthetic: SyntheticRun) -> None:
    synthetic.data["provenance"]["datasets"]["phantoms"]["digest"] = None
    run = load_run(*synthetic.write())
    measured = run.frame[run.frame["kind"].isin(["accuracy", "runtime"])]
    assert measured["value"].isna().all()
    assert measured["reason"].str.contains("digest of the data set 'phantoms'").all()
    assert run.frame.loc[run.frame["kind"] == "complexity", "value"].notna().any()
    assert run.withheld


def test_times_without_a_machine_are_withheld_and_accuracy_is_not(synthetic: SyntheticRun) -> None:
    synthetic.data["provenance"]["machine"] = None
    run = load_run(*synthetic.write())
    assert run.frame.loc[run.frame["kind"] == "runtime", "value"].isna().all()
    assert run.frame.loc[run.frame["kind"] == "accuracy", "value"].notna().any()


def test_nothing_is_shown_without_versions(synthetic: SyntheticRun) -> None:
    synthetic.data["provenance"]["versions"] = {}
    assert load_run(*synthetic.write()).frame["value"].isna().all()


def test_two_rows_that_share_a_job_are_both_there(synthetic: SyntheticRun) -> None:
    synthetic.data["variants"]["alias"] = dict(synthetic.data["variants"]["tiny"])
    synthetic.data["jobs"] += [{**j, "variant": "alias"} for j in synthetic.data["jobs"] if j["variant"] == "tiny"]
    frame = load_run(*synthetic.write()).frame
    assert (frame["variant"] == "alias").sum() == (frame["variant"] == "tiny").sum() > 0


def test_a_missing_run_is_one_clear_sentence(tmp_path) -> None:
    with pytest.raises(BenchError, match=r"run\.json does not exist"):
        load_run(tmp_path / "runs" / "none", tmp_path / "store")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format"),
        ({"status": "exploded"}, "status"),
        ({"variants": {}}, "names the variant"),
        ({"gates": [{"metric": "dsc"}]}, "max_drop"),
    ],
)
def test_a_wrong_field_of_run_json_is_named(synthetic: SyntheticRun, change: dict, said: str) -> None:
    synthetic.data |= change
    with pytest.raises(BenchError, match=said):
        load_run(*synthetic.write())


def test_run_json_that_is_cut_off_is_one_clear_sentence(synthetic: SyntheticRun) -> None:
    folder, store = synthetic.write()
    (folder / "run.json").write_text(json.dumps(synthetic.data)[:500])
    with pytest.raises(BenchError, match="cannot be read as JSON"):
        load_run(folder, store)


def test_sealed_records_that_are_no_parquet_are_named(synthetic: SyntheticRun) -> None:
    folder, store = synthetic.write()
    key = records_key(synthetic.job("accuracy", "tiny")["digest"])
    (store / key).write_bytes(b"not parquet")
    with pytest.raises(BenchError, match="not a readable file of sealed records"):
        load_run(folder, store)


def test_a_run_without_jobs_loads(synthetic: SyntheticRun) -> None:
    synthetic.data["jobs"] = []
    assert load_run(*synthetic.write()).frame.empty


def test_a_variant_that_cannot_be_trained_has_no_note_and_the_suite_file_is_named(synthetic: SyntheticRun) -> None:
    synthetic.data["variants"]["dummy"] |= {"family": "box", "trainable": False}
    synthetic.data["variants"]["tiny"] |= {"trainable": True}
    run = load_run(*synthetic.write())
    notes = run.frame[run.frame["kind"] == "accuracy"].groupby("variant")["note"].first()
    assert (notes["dummy"], notes["tiny"]) == ("", "under-trained, 120 steps")
    assert run.info.suite.path == "suites/quickstart.yaml"
