"""Stage distil as a job: a student of a tiny teacher, whose embeddings are computed in every step or once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import variants
from harness.config import FolderData, VariantRef, Weights
from harness.errors import BenchError
from harness.jobs import JobSpec, TeacherSpec
from harness.recipe import Stage
from harness.results import MODEL
from harness.training import job
from harness.training.teacher import Teaching
from tests.harness.training.toys import FolderContext, toy_data, write_toys

STUDENT = VariantRef(name="litemedsam_tiny")
TEACHER = VariantRef(name="medsam_vit_tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FolderData:
    return write_toys(tmp_path_factory.mktemp("toys"))


def teacher_spec(ref: VariantRef = TEACHER, seed: int = 9) -> TeacherSpec:
    registered = variants.resolve(ref.name, ref.set)
    model = {"preprocess": registered.preprocess, "input_size": registered.input_size}
    return TeacherSpec(variant=ref, model=model, code="", weights=Weights(seed=seed))


def spec(data: FolderData, teacher: TeacherSpec | None = None, **fields: Any) -> JobSpec:
    given = {"stage": "distil", "steps": 6, "batch": 3, "threads": 1, "learning_rate": 2e-3, "flips": 0.0, **fields}
    settings = Stage.model_validate(given).model_dump(mode="json")
    chosen = teacher or teacher_spec()
    return JobSpec(kind="train", variant=STUDENT, dataset=data, settings=settings, seed=5, teacher=chosen)


def done(folder: Path, spec: JobSpec) -> FolderContext:
    context = FolderContext(folder)
    job.run(spec, context)
    return context


def losses(context: FolderContext) -> list[float]:
    return [r["value"] for r in context.records("train_loss")]


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images teachers have encoded, one entry for every time."""
    seen: list[int] = []
    encode = Teaching._encode

    def counting(self: Teaching, images: Any) -> torch.Tensor:
        seen.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(Teaching, "_encode", counting)
    return seen


@pytest.mark.parametrize("imitation", ["mse", "l1"])
def test_stored_and_live_embeddings_give_the_same_student_and_a_stored_one_is_computed_once(
    data: FolderData, tmp_path: Path, taught: list[int], imitation: str
) -> None:
    live = done(tmp_path / "live", spec(data, embeddings="live", imitation=imitation))
    assert sum(taught) == 18, "six steps of three images"
    taught.clear()
    cached = done(tmp_path / "cached", spec(data, imitation=imitation))
    shown = len({(case, place) for case, place in views_of(data)})
    assert sum(taught) <= shown, "every image and slice once"
    assert losses(cached) == losses(live)
    assert (cached.store / MODEL).read_bytes() == (live.store / MODEL).read_bytes()


def views_of(data: FolderData) -> list[tuple[str, int]]:
    held = toy_data().held.values()
    return [(case.name, place) for case in held for place in range(len(case.image) if case.ndim == 3 else 1)]


def test_the_student_comes_nearer_to_its_teacher_and_only_its_encoder_moves(data: FolderData, tmp_path: Path) -> None:
    context = done(tmp_path, spec(data, steps=30))
    curve = losses(context)
    assert sum(curve[-5:]) < 0.7 * sum(curve[:5])
    torch.set_num_threads(1)
    before = variants.to_published(variants.create(STUDENT.name, seed=5))
    after = load_file(context.store / MODEL)
    moved = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"image_encoder"}


def test_flips_are_the_teachers_too_unless_the_stage_says_otherwise(
    data: FolderData, tmp_path: Path, taught: list[int]
) -> None:
    together = done(tmp_path / "together", spec(data, flips=1.0, embeddings="live"))
    alone = done(tmp_path / "alone", spec(data, flips=1.0, embeddings="live", consistent=False))
    upright = done(tmp_path / "upright", spec(data, flips=0.0, consistent=False))
    assert losses(together)[0] != losses(alone)[0]
    assert upright.records("train_loss") != alone.records("train_loss"), "the student is flipped in both"
    (folder,) = (tmp_path / "upright" / "cache" / "embeddings").iterdir()
    assert "/-" in (next(folder.rglob("index"))).read_text(errors="replace")


def test_a_damaged_embedding_is_found_computed_again_and_told(data: FolderData, tmp_path: Path) -> None:
    first = done(tmp_path / "first", spec(data))
    shard = next((tmp_path / "first" / "cache").rglob("*.f32"))
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    (tmp_path / "second").mkdir()
    (tmp_path / "first" / "cache").rename(tmp_path / "second" / "cache")
    second = done(tmp_path / "second", spec(data))
    assert losses(second) == losses(first)
    (final,) = second.records("train_steps")
    facts = json.loads(final["detail"])["embeddings"]
    assert facts["rebuilt"] == 1
    assert len(facts["notes"]) == 1


def test_a_student_can_be_judged_on_cases_it_does_not_imitate(data: FolderData, tmp_path: Path) -> None:
    context = done(tmp_path, spec(data, validation={"share": 0.4, "every": 2}))
    judged = context.records("validation_loss")
    assert [r["repeat"] for r in judged] == [2, 4, 6]
    assert not context.records("validation_dsc")


def test_a_teacher_of_another_shape_is_refused_in_one_sentence(data: FolderData, tmp_path: Path) -> None:
    other = teacher_spec(VariantRef(name="litemedsam"))
    with pytest.raises(BenchError, match=r"'litemedsam' gives embeddings \(256, 64, 64\), 'litemedsam_tiny' \(64,"):
        done(tmp_path, spec(data, other))


@pytest.mark.slow
def test_from_the_second_epoch_on_stored_embeddings_are_at_least_three_times_as_fast(
    data: FolderData, tmp_path: Path
) -> None:
    """A teacher of 4.3 times the student's operations (ViT-B to TinyViT: 13 times); an epoch is one step."""

    def epochs(folder: Path, embeddings: str) -> list[float]:
        import time

        teacher = teacher_spec(VariantRef(name="medsam_vit_tiny", set={"depth": 32}))
        context = FolderContext(folder)
        at: list[float] = []
        progress = context.progress

        def timed(fraction: float, message: str) -> None:
            at.append(time.perf_counter())
            progress(fraction, message)

        context.progress = timed  # type: ignore[method-assign]
        job.run(spec(data, teacher, steps=12, embeddings=embeddings), context)
        return [after - before for before, after in zip(at[-11:], at[-10:], strict=False)]

    from statistics import median

    assert median(epochs(tmp_path / "live", "live")) > 3 * median(epochs(tmp_path / "cached", "cached"))
