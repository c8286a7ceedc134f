"""A recipe of several stages becomes a chain of jobs, teachers first; equal parts are shared."""

from __future__ import annotations

from pathlib import Path

from harness.plan import Plan, PlannedJob
from tests.harness.small import SMALL
from tests.harness.test_plan import plan_of

STAGES = """\
recipes:
  quick: {steps: 6, batch: 2, checkpoint_every: 2}
  three:
    batch: 2
    stages:
      - {stage: distil, steps: 4, teacher: {name: medsam_vit_tiny, recipe: quick}}
      - {stage: train, epochs: 3}
      - {stage: finetune, steps: 2, data: further, freeze: [image_encoder]}
training: {data: train, recipe: three}
"""
SUITE = (
    SMALL.replace(SMALL[SMALL.index("recipes:") : SMALL.index("subsets:")], STAGES)
    .replace("  dummy:\n", "")
    .replace(
        "  test:\n", "  further: {kind: phantoms, seed: 5, per_modality: 1, size: 96, modalities: [MR]}\n  test:\n"
    )
)


def trainings(plan: Plan) -> list[PlannedJob]:
    return [job for job in plan.jobs if job.spec.kind == "train"]


def staged(folder: Path, *overrides: str, text: str = SUITE) -> list[PlannedJob]:
    return trainings(plan_of(folder, *overrides, text=text))


def test_every_stage_is_a_job_that_starts_from_the_one_before(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, text=SUITE)
    teacher, distil, train, finetune = trainings(plan)
    assert [job.stage for job in trainings(plan)] == ["teacher: train", "distil", "train", "finetune"]
    assert distil.needs == (teacher.digest,)
    assert distil.spec.teacher is not None
    assert distil.spec.teacher.weights.train_job == teacher.digest
    assert distil.spec.weights.train_job is None
    assert (train.needs, train.spec.weights.train_job) == ((distil.digest,), distil.digest)
    assert (finetune.needs, finetune.spec.weights.train_job) == ((train.digest,), train.digest)
    (accuracy,) = [job for job in plan.jobs if job.spec.kind == "accuracy"]
    assert accuracy.spec.weights.train_job == finetune.digest
    assert accuracy.needs == (finetune.digest,)


def test_a_stage_may_have_data_of_its_own_and_is_measured_in_images(tmp_path: Path) -> None:
    teacher, distil, train, finetune = staged(tmp_path)
    assert [job.dataset for job in (teacher, distil, train, finetune)] == ["train", "train", "train", "further"]
    images = [job.units for job in (teacher, distil, train, finetune)]
    assert images == [12, 8, 6, 4], "an epoch of two cases is a step of two"
    *_, smaller = staged(tmp_path, "recipes.three.stages.2.scale=0.5")
    assert smaller.units == 1, "half the side is a quarter of the work"


def test_a_recipe_gives_way_to_another_for_variants_of_a_pattern_whoever_they_are_trained_for(tmp_path: Path) -> None:
    def lengths(*overrides: str) -> list[int]:
        return [job.units for job in staged(tmp_path, *("recipes.other={steps: 1, batch: 2}", *overrides))]

    assert lengths('recipes.three.instead={"rep*": other}') == [12, 8, 6, 4]
    assert lengths('recipes.three.instead={"*_tiny": other, "lite*": quick}') == [2], "the first pattern counts"
    assert lengths('recipes.quick.instead={"medsam_vit_*": other}') == [2, 8, 6, 4], "a teacher's recipe too"


def test_a_changed_stage_reruns_itself_and_what_follows(tmp_path: Path) -> None:
    before = {job.stage: job.digest for job in staged(tmp_path)}
    after = {job.stage: job.digest for job in staged(tmp_path, "recipes.three.stages.1.epochs=4")}
    assert {stage for stage in before if before[stage] != after[stage]} == {"train", "finetune"}


def test_a_changed_teacher_reruns_its_students_distillation(tmp_path: Path) -> None:
    before = {job.stage: job.digest for job in staged(tmp_path)}
    after = {job.stage: job.digest for job in staged(tmp_path, "recipes.quick.steps=7")}
    assert all(before[stage] != after[stage] for stage in before)
    other = staged(tmp_path, "recipes.three.stages.0.teacher.set.depth=4")
    assert other[1].digest != before["distil"]


def test_students_of_one_teacher_and_seeds_of_one_student_share_its_training(tmp_path: Path) -> None:
    text = SUITE.replace("  litemedsam_tiny:\n", "  litemedsam_tiny:\n  rep_medsam_tiny:\n")
    jobs = staged(tmp_path, "training.seeds=[0,1]", text=text)
    taught = [job for job in jobs if job.stage == "teacher: train"]
    assert len(taught) == 4
    assert len({job.digest for job in taught}) == 1
    assert len({job.digest for job in jobs if job.stage == "distil"}) == 4


def test_a_teacher_is_trained_on_the_data_its_student_imitates_it_on(tmp_path: Path) -> None:
    teacher, distil, train, _ = staged(tmp_path, "recipes.three.stages.0.data=further")
    assert [job.dataset for job in (teacher, distil, train)] == ["further", "further", "train"]


def test_what_decides_nothing_is_not_in_a_digest(tmp_path: Path) -> None:
    before = [job.digest for job in staged(tmp_path)]
    fields = ("workers=3", "checkpoint_every=7", "source=elsewhere")
    assert [job.digest for job in staged(tmp_path, *(f"recipes.three.{field}" for field in fields))] == before
    assert [job.digest for job in staged(tmp_path, "recipes.three.batch=3")] != before


def test_a_stage_without_steps_is_left_out(tmp_path: Path) -> None:
    jobs = staged(tmp_path, "recipes.three.stages.0.steps=0")
    assert [job.stage for job in jobs] == ["train", "finetune"]
    assert jobs[0].spec.weights.train_job is None
