"""Training of several stages: what the weights had, and what the report shows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.schema import Record
from reports import board, html, tables, text, views
from reports.curves import training_curves
from reports.drawing import Figure
from reports.frame import Run, load_run
from reports.training import Training
from reports.views import Table
from tests.reports.staged import DISTIL, FINETUNE, HINT, TEACHER, TRAIN, Made, StagedRun
from tests.reports.synthetic import SyntheticRun


@pytest.fixture
def staged(tmp_path: Path) -> StagedRun:
    """The made-up run with stages, not yet written."""
    return StagedRun(tmp_path)


@pytest.fixture(scope="module")
def staged_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The made-up run with stages as it is, loaded."""
    return load_run(*StagedRun(tmp_path_factory.mktemp("staged")).write())


def used(run: Run, variant: str) -> Training:
    """Training of the weights behind a row's accuracy."""
    jobs = [job for job in run.info.jobs if job.kind == "accuracy" and job.variant == variant]
    return run.training[jobs[0].digest]


def loaded(staged: StagedRun, *stages: Made, file: str | None = None) -> Training:
    """Training of a row whose weights these stages made."""
    staged.chain("litemedsam", stages, file=file)
    return used(load_run(*staged.write()), "litemedsam")


def stages_of(run: Run, variant: str, seed: int = 0) -> dict[str, dict[Any, Any]]:
    rows = tables.training(run).to_dict("records")
    return {row["stage"]: row for row in rows if (row["variant"], row["seed"]) == (variant, seed)}


def figure_of(run: Run) -> Figure:
    figure = training_curves(tables.training_curves(run))
    assert figure is not None
    return figure


def test_the_weights_had_the_steps_of_every_stage_and_none_of_the_teacher(staged_run: Run) -> None:
    made = used(staged_run, "tiny")
    assert (made.steps, made.stages) == (240, (("distil", 80), ("train", 160)))
    assert made.note == "under-trained, 80 + 160 steps"
    assert made.weights == "distilled and trained here, 80 + 160 steps"


def test_weights_converged_if_the_last_stage_did(staged: StagedRun) -> None:
    first, last = Made("train", 40, converged=True), Made("finetune", 20, converged=True)
    assert loaded(staged, first, last).note == ""
    assert loaded(staged, first, Made("finetune", 30)).note == "under-trained, 40 + 30 steps"
    assert loaded(staged, Made("train", 50), last).note == ""


def test_given_weights_that_were_trained_by_stages_are_fine_tuned(staged: StagedRun) -> None:
    made = loaded(staged, Made("train", 40), Made("finetune", 20), file="lite_medsam.pth")
    assert made.note == "fine-tuned, 40 + 20 steps"
    assert made.weights == "from file, then trained and fine-tuned here, 40 + 20 steps"


def test_an_encoder_that_imitates_does_not_make_a_trained_model(staged: StagedRun) -> None:
    made = loaded(staged, Made("distil", 120, converged=True))
    assert (made.note, made.weights) == ("distilled only, 120 steps", "distilled here, 120 steps")


def test_a_stage_without_steps_is_not_named(staged: StagedRun) -> None:
    assert loaded(staged, Made("distil", 0), Made("train", 30)).weights == "trained here, 30 steps"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_chain_with_a_stage_that_failed_did_not_finish(staged: StagedRun, place: int) -> None:
    digests = staged.chain("litemedsam", (DISTIL, TRAIN, FINETUNE))
    broken = next(job for job in staged.data["jobs"] if job["digest"] == digests[place])
    broken |= {"state": "failed", "reason": "out of memory"}
    made = used(load_run(*staged.write()), "litemedsam")
    assert (made.origin, made.note, made.weights) == ("unfinished", "untrained", "training did not finish")


def test_a_job_that_names_no_weights_used_the_last_stage_it_needs_not_the_teacher(staged: StagedRun) -> None:
    teacher, distil, train, finetune = staged.chain("litemedsam", (DISTIL, TRAIN, FINETUNE), teacher=TEACHER)
    for job in staged.data["jobs"]:
        if job["kind"] == "accuracy" and job["variant"] == "litemedsam":
            job |= {"needs": [teacher, distil, finetune, train], "weights": None}
    assert used(load_run(*staged.write()), "litemedsam").stages[-1] == ("finetune", 60)


def test_a_run_that_states_no_stages_has_trainings(run: Run) -> None:
    assert used(run, "tiny") == Training("trained", 120, converged=False, stages=(("train", 120),))


def test_the_leaderboard_tells_the_same(staged_run: Run) -> None:
    rows = {row.variant: row for row in board.rows(staged_run)}
    assert rows["tiny"].note == "under-trained, 80 + 160 steps"
    assert rows["litemedsam"].note == ""
    assert rows["litemedsam"].weights == "distilled, trained and fine-tuned here, 120 + 240 + 60 steps"


def test_the_table_has_a_row_a_stage(staged_run: Run) -> None:
    rows = stages_of(staged_run, "litemedsam")
    distil, train, finetune = rows["distil"], rows["train"], rows["finetune"]
    assert [row["steps"] for row in rows.values()] == [120, 240, 60]
    assert pd.isna(train["planned"])
    assert (train["epochs"], distil["planned"]) == (3, 120)
    assert (train["best_step"], train["best_dsc"]) == (240, pytest.approx(0.77, abs=0.01))
    assert distil["best_loss"] < 0.05
    assert pd.isna(distil["best_dsc"])
    assert (train["ended_early"], finetune["ended_early"]) == (False, True)
    assert (distil["hint"], train["hint"]) == ("", HINT)
    notes = [row["note"] for row in stages_of(staged_run, "tiny").values()]
    assert notes == ["", "under-trained, 80 + 160 steps"]


def test_a_common_teacher_is_told_once_under_the_names_of_its_rows(staged: StagedRun) -> None:
    run = load_run(*staged.write())
    assert list(stages_of(run, "litemedsam, tiny (teacher)")) == ["train"]
    staged.chain("tiny-depth2", (DISTIL, TRAIN), teacher=TEACHER)
    table = tables.training(load_run(*staged.write()))
    names = [name for name in table["variant"] if "teacher" in name]
    assert names == ["litemedsam, tiny and 1 more (teacher)"]
    assert table.loc[table["variant"] == names[0], "steps"].tolist() == [60]


def shown(run: Run) -> Table:
    return views.training_table(tables.training(run))


def test_the_page_shows_stages_validation_and_hints_where_there_are_any(staged_run: Run, run: Run) -> None:
    table = shown(staged_run)
    titles = [column.title for column in table.columns]
    rows = {(row[0].text, row[2].text): dict(zip(titles, row, strict=True)) for row in table.rows}
    train, distil = rows["litemedsam", "train"], rows["litemedsam", "distil"]
    assert (train["Steps"].text, train["Steps"].small) == ("240", "3 epochs")
    assert (distil["Steps"].text, distil["Best validation"].text) == ("120 of 120", "loss 0.032")
    assert train["Best validation"].text == "loss 0.770, DSC 0.767"
    assert train["Best validation"].small == "step 240"
    assert rows["litemedsam", "finetune"]["Best validation"].text == text.DASH
    assert rows["litemedsam", "finetune"]["Steps"].small == "ended early"
    assert table.remarks == (f"litemedsam · train: {HINT}",)
    plain = shown(run)
    assert not {"Stage", "Best validation"} & {column.title for column in plain.columns}
    assert not plain.remarks
    assert ("distil" in table.caption, "distil" in plain.caption) == (True, False)


def test_a_stage_that_failed_is_listed_by_its_name(staged: StagedRun) -> None:
    teacher = staged.chain("tiny", (DISTIL,), teacher=TEACHER)[0]
    broken = [job for job in staged.data["jobs"] if job["digest"] == teacher and job["variant"] == "tiny"]
    broken[0] |= {"state": "failed"}
    del staged.records[teacher]
    kinds = tables.problems(load_run(*staged.write()))["kind"]
    assert "train, teacher: train" in set(kinds)


def test_curves_count_steps_through_the_stages_that_minimise_the_same_loss(staged_run: Run) -> None:
    curves = tables.training_curves(staged_run)
    mine = curves[(curves["variant"] == "litemedsam") & (curves["metric"] == "train_loss")]
    assert mine.groupby("stage")["start"].unique().map(list).to_dict() == {
        "distil": [0],
        "train": [0],
        "finetune": [240],
    }
    assert mine.groupby("stage")["step"].max().to_dict() == {"distil": 120, "train": 240, "finetune": 60}
    validated = curves[(curves["variant"] == "litemedsam") & (curves["metric"] == "validation_loss")]
    assert validated.groupby("stage")["step"].count().to_dict() == {"distil": 6, "train": 12}


def test_distillation_has_a_panel_of_its_own_and_the_learning_rate_one_below(staged_run: Run) -> None:
    figure = figure_of(staged_run)
    for title in ("Imitation loss of distillation", "Segmentation loss", "Learning rate", "validation loss"):
        assert f">{title}<" in figure.svg, title
    assert figure.svg.count(">Learning rate<") == 2
    assert ">10⁻⁴<" in figure.svg
    assert "mathdefault" not in figure.svg
    assert ">finetune<" in figure.svg
    assert "different quantities" in figure.caption
    assert "the next stage begins" in figure.caption
    assert "validation" in figure.caption
    assert "Also the losses of validation and the learning rates." in figure.alt
    assert len(figure.svg) < 120_000


def test_a_constant_learning_rate_and_nothing_else_is_one_panel(staged: StagedRun) -> None:
    for job in staged.data["jobs"]:
        if job["kind"] == "train" and job["digest"] in staged.records:
            staged.replace(job["digest"], staged.course(Made("train", 20)))
            job["stage"] = "train"
    figure = figure_of(load_run(*staged.write()))
    assert ">Training loss<" in figure.svg
    for absent in ("Learning rate", "Imitation", "validation"):
        assert absent not in figure.svg


def test_a_figure_says_nothing_of_what_it_does_not_show(run: Run) -> None:
    figure = figure_of(run)
    assert figure.caption == "Loss of the training batches, not smoothed. Lower is better."
    assert figure.alt == "Training loss over steps of 4 trainings."


def test_a_learning_rate_that_falls_by_tenths_has_an_axis_too(synthetic: SyntheticRun) -> None:
    losses = [Record("train_loss", 1.0, repeat=i) for i in (1, 2, 3)]
    rates = [Record("learning_rate", rate, repeat=i) for i, rate in enumerate((5e-4, 4.5e-4, 0.0), 1)]
    synthetic.replace(synthetic.job("train", "tiny")["digest"], [*losses, *rates])
    assert ">5·10⁻⁴<" in figure_of(load_run(*synthetic.write())).svg


def test_many_long_curves_do_not_make_a_large_page(staged: StagedRun) -> None:
    for seed in range(8):
        staged.chain("tiny", (Made("train", 900, validated=True), Made("finetune", 600, validated=True)), seed=seed)
    figure = figure_of(load_run(*staged.write()))
    assert "tiny, seed 7" in figure.svg
    assert len(figure.svg) < 250_000  # 350 kB if each curve had all the points that one alone has


def test_trainings_without_losses_have_no_figure(synthetic: SyntheticRun) -> None:
    for digest in [job["digest"] for job in synthetic.data["jobs"] if job["kind"] == "train"]:
        synthetic.replace(digest, [Record("learning_rate", 1e-3, repeat=1)])
    assert training_curves(tables.training_curves(load_run(*synthetic.write()))) is None


def test_the_page_names_stages_and_teachers(staged_run: Run) -> None:
    page = html.render(staged_run)
    assert "<td>train, teacher: train</td>" in page
    assert "litemedsam, tiny (teacher)" in page
    assert figure_of(staged_run).svg in page


def test_two_stages_of_one_kind_are_told_apart_by_their_place(staged: StagedRun) -> None:
    staged.chain("litemedsam", (Made("train", 200), Made("train", 600), FINETUNE))
    table = views.training_table(tables.training(load_run(*staged.write())))
    stages = [row[2].text for row in table.rows if row[0].text == "litemedsam"]
    assert stages == ["train 1", "train 2", "finetune"]
