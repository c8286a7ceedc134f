from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import variants
from harness.config import FolderData, VariantRef, Weights
from harness.data import write_case
from harness.errors import BenchError
from harness.jobs import JobSpec
from harness.recipe import Stage
from harness.results import MODEL
from harness.training import job
from tests.harness.training.toys import FolderContext, image_case, volume_case, write_toys

TINY = VariantRef(name="litemedsam_tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FolderData:
    return write_toys(tmp_path_factory.mktemp("toys"))


def job_spec(data: FolderData, variant: VariantRef = TINY, **recipe: Any) -> JobSpec:
    settings = Stage(**{"steps": 8, "batch": 1, "checkpoint_every": 2, "threads": 1, **recipe}).model_dump(mode="json")
    return JobSpec(kind="train", variant=variant, dataset=data, settings=settings, seed=5)


@pytest.fixture(scope="module")
def undisturbed(data: FolderData, tmp_path_factory: pytest.TempPathFactory) -> FolderContext:
    context = FolderContext(tmp_path_factory.mktemp("undisturbed"))
    job.run(job_spec(data), context)
    return context


def initial_model() -> variants.PromptableModel:
    torch.set_num_threads(1)  # as in the recipe: the bits of some initialisers depend on it
    return variants.create(TINY.name, seed=5)


def without_hint(context: FolderContext) -> dict[str, Any]:
    """The journal but for what a busy machine adds to it: that the steps waited for data."""
    units = context.units()
    for record in units.get("final", []):
        detail = json.loads(record["detail"] or "{}")
        record["detail"] = {name: value for name, value in detail.items() if name != "hint"}
    return units


def assert_same_outcome(one: FolderContext, other: FolderContext) -> None:
    assert without_hint(one) == without_hint(other)
    assert (one.store / MODEL).read_bytes() == (other.store / MODEL).read_bytes()


def test_a_job_leaves_a_record_a_step_and_a_summary(undisturbed: FolderContext) -> None:
    assert list(undisturbed.units()) == [*(f"step-{n}" for n in range(1, 9)), "final"]
    losses = undisturbed.records("train_loss")
    assert [r["repeat"] for r in losses] == list(range(1, 9))
    assert all(r["status"] == "ok" and r["value"] > 0 for r in losses)
    (steps,), (converged,) = undisturbed.records("train_steps"), undisturbed.records("converged")
    assert (steps["value"], converged["value"]) == (8, 0)
    detail = json.loads(converged["detail"])
    assert detail["images_seen"] == 8
    assert detail["recipe"]["steps"] == 8
    assert detail["loss_first"] == losses[0]["value"]
    assert detail["loss_last"] == losses[-1]["value"]
    assert "at least 1000" in detail["reason"]


def test_progress_says_step_loss_rate_pace_and_time_left(undisturbed: FolderContext) -> None:
    assert re.fullmatch(
        r"step 3/8 · loss \d\.\d\d · lr 5\.0e-4 · [\d.]+ images/s · \d+:\d\d left", undisturbed.messages[-6]
    )


def test_the_artifact_loads_strictly_and_differs_from_the_initial_weights(undisturbed: FolderContext) -> None:
    path = undisturbed.store / MODEL
    trained = variants.to_published(variants.create(TINY.name, checkpoint=path))
    stored, initial = load_file(path), variants.to_published(initial_model())
    assert stored.keys() == trained.keys() == initial.keys()
    assert all((stored[name] == trained[name]).all() for name in stored)
    assert any((stored[name] != initial[name]).any() for name in stored)


def test_a_job_killed_at_step_5_and_started_again_equals_the_undisturbed_one_bit_for_bit(
    data: FolderData, undisturbed: FolderContext, tmp_path: Path
) -> None:
    spec = job_spec(data)
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    command = [sys.executable, "-m", "tests.harness.training.child", str(tmp_path / "spec.json"), str(tmp_path), "5"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    context = FolderContext(tmp_path)
    assert list(context.units()) == [f"step-{n}" for n in range(1, 6)]
    job.run(spec, context)
    assert_same_outcome(context, undisturbed)
    taken = [message.split(" ·")[0] for message in context.messages if message.startswith("step")]
    assert taken == ["step 5/8", "step 6/8", "step 7/8", "step 8/8"], "the steps since the last state are taken again"


@pytest.mark.slow
def test_a_job_killed_at_ten_random_moments_equals_the_undisturbed_one_bit_for_bit(
    data: FolderData, tmp_path: Path
) -> None:
    spec = job_spec(data, steps=40, checkpoint_every=3)
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    whole = FolderContext(tmp_path / "whole")
    job.run(spec, whole)
    command = [sys.executable, "-m", "tests.harness.training.child", str(tmp_path / "spec.json"), str(tmp_path / "cut")]
    context = FolderContext(tmp_path / "cut")
    moments = random.Random(1)
    kills = 0
    while kills < 10 and "final" not in context.units():
        child = subprocess.Popen(command)
        before = len(context.units())
        deadline = time.monotonic() + 60
        while len(context.units()) == before and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 0.5))
        child.kill()
        child.wait()
        kills += 1
    job.run(spec, context)
    assert kills > 2
    assert_same_outcome(context, whole)


def test_a_finished_job_started_again_changes_nothing_and_restores_a_lost_journal(
    data: FolderData, undisturbed: FolderContext, tmp_path: Path
) -> None:
    context = FolderContext(tmp_path)
    job.run(job_spec(data), context)
    journal = context.journal.read_bytes()
    job.run(job_spec(data), context)
    assert context.journal.read_bytes() == journal

    context.journal.unlink()  # a journal lost with its machine is written again from the state
    job.run(job_spec(data), context)
    assert_same_outcome(context, undisturbed)


def test_another_seed_gives_another_model(data: FolderData, undisturbed: FolderContext, tmp_path: Path) -> None:
    context = FolderContext(tmp_path)
    job.run(job_spec(data, steps=2).model_copy(update={"seed": 6}), context)
    assert context.records("train_loss") != undisturbed.records("train_loss")[:2]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_threads_the_process_had_before_change_nothing(
    data: FolderData, undisturbed: FolderContext, tmp_path: Path, threads: int
) -> None:
    torch.set_num_threads(threads)
    context = FolderContext(tmp_path)
    job.run(job_spec(data), context)
    assert_same_outcome(context, undisturbed)


def test_no_steps_store_the_initial_weights_and_say_untrained(data: FolderData, tmp_path: Path) -> None:
    context = FolderContext(tmp_path)
    job.run(job_spec(data, steps=0), context)
    stored = load_file(context.store / MODEL)
    initial = variants.to_published(initial_model())
    assert all((stored[name] == initial[name]).all() for name in initial)
    (converged,) = context.records("converged")
    assert (converged["value"], json.loads(converged["detail"])["reason"]) == (0, "untrained")


def test_training_starts_from_given_weights(data: FolderData, undisturbed: FolderContext, tmp_path: Path) -> None:
    start = undisturbed.store / MODEL
    context = FolderContext(tmp_path)
    spec = job_spec(data, steps=0).model_copy(update={"weights": Weights(file=str(start))})
    job.run(spec, context)
    assert (context.store / MODEL).read_bytes() == start.read_bytes()


def test_a_diverging_run_ends_as_crashed_with_step_cases_and_the_last_good_weights(
    data: FolderData, tmp_path: Path
) -> None:
    context = FolderContext(tmp_path)
    spec = job_spec(data, learning_rate=1e30, weight_decay=0, checkpoint_every=1)
    job.run(spec, context)
    assert not (context.store / MODEL).exists()
    crashed = [r for rows in context.units().values() for r in rows if r["status"] != "ok"]
    assert [r["metric"] for r in crashed] == ["train_loss", "train_steps", "converged"]
    assert {r["status"] for r in crashed} == {"crashed"}
    reason = crashed[0]["reason"]
    assert re.search(
        r"at step \d; cases of the batch: .*DBox_.*; last good state: step \d, stored as last-good", reason
    )
    variants.create(TINY.name, checkpoint=context.store / job.LAST_GOOD_FILE)

    journal = context.journal.read_bytes()
    job.run(spec, context)
    assert context.journal.read_bytes() == journal


def test_the_loss_falls_on_one_case(tmp_path: Path) -> None:
    case = image_case()
    write_case(case, tmp_path / f"{case.name}.npz")
    context = FolderContext(tmp_path / "job")
    job.run(job_spec(FolderData(path=str(tmp_path)), steps=20, learning_rate=1e-3, flips=0), context)
    losses = [r["value"] for r in context.records("train_loss")]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_a_variant_without_parameters_is_refused(data: FolderData, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="'dummy' has no parameters, so it cannot be trained"):
        job.run(job_spec(data, VariantRef(name="dummy")), FolderContext(tmp_path))


def test_a_misspelt_variant_is_refused_with_a_suggestion(data: FolderData, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="litemedsam"):
        job.run(job_spec(data, VariantRef(name="litemedsan_tiny")), FolderContext(tmp_path))


def test_data_without_ground_truth_is_refused(tmp_path: Path) -> None:
    case = replace(volume_case(), truth=None)
    folder = tmp_path / "blind"
    folder.mkdir()
    write_case(case, folder / f"{case.name}.npz")
    with pytest.raises(BenchError, match="'blind': case '3DBox_CT_0001' has no ground truth"):
        job.run(job_spec(FolderData(path=str(folder))), FolderContext(tmp_path / "job"))


def test_weights_of_another_shape_are_refused_in_one_sentence(
    data: FolderData, undisturbed: FolderContext, tmp_path: Path
) -> None:
    other = VariantRef(name=TINY.name, set={"decoder_mlp_dim": 64})
    weights = Weights(file=str(undisturbed.store / MODEL))
    with pytest.raises(BenchError, match=MODEL):
        job.run(job_spec(data, other).model_copy(update={"weights": weights}), FolderContext(tmp_path))
