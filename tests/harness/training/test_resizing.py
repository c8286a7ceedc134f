"""A stage may show images at a share of the network's side: progressive resizing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import variants
from harness.config import VariantRef
from harness.errors import BenchError
from harness.recipe import Recipe, Stage
from harness.training import job
from harness.training.tasks import Prompted
from tests.harness.training.test_job import job_spec
from tests.harness.training.test_trainer import assert_same, run
from tests.harness.training.toys import FolderContext, toy_trainer, write_toys

HALF = Stage(steps=6, batch=2, learning_rate=1e-2, threads=1, scale=0.5)


def test_the_model_sees_means_of_pixels_and_logits_cover_the_grid_of_the_masks() -> None:
    model = variants.create("litemedsam_tiny", seed=0).eval()
    seen = []
    model.image_encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    images = torch.rand(1, 3, 256, 256)
    with torch.inference_mode():
        logits, _ = Prompted(model, 0.5)(images, torch.tensor([[9.0, 9, 99, 99]]), torch.tensor([0]), None, None)
    assert torch.allclose(seen[0][0, :, 0, 0], images[0, :, :2, :2].mean((1, 2)))
    assert logits.shape == (1, 1, 256, 256)


def test_a_resumed_run_on_smaller_images_equals_the_undisturbed_one(tmp_path: Path) -> None:
    whole = run(toy_trainer(HALF), 6)
    assert whole.losses != run(toy_trainer(HALF.model_copy(update={"scale": 1.0})), 6).losses
    run(toy_trainer(HALF), 3).save(tmp_path / "state.pt")
    resumed = toy_trainer(HALF)
    assert resumed.resume(tmp_path / "state.pt")
    assert_same(run(resumed, 6), whole)
    assert np.isfinite(whole.losses).all()


def test_a_distillation_has_the_teachers_grid() -> None:
    stage = {"stage": "distil", "steps": 1, "scale": 0.5, "teacher": {"name": "medsam_vit_tiny"}}
    with pytest.raises(ValidationError, match=r"stage 1: `scale` is not for `distil`"):
        Recipe.model_validate({"stages": [stage]})


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        pytest.param("litemedsam_tiny", 0.3, id="no whole grid"),
        pytest.param("swin_litemedsam_tiny", 0.3125, id="no whole windows"),
    ],
)
def test_a_share_that_the_model_cannot_show_is_refused_before_the_first_step(
    name: str, scale: float, tmp_path: Path
) -> None:
    spec = job_spec(write_toys(tmp_path / "data"), VariantRef(name=name), scale=scale)
    context = FolderContext(tmp_path / "job")
    with pytest.raises(BenchError, match=rf"`scale` {scale} does not suit '{name}'"):
        job.run(spec, context)
    assert not context.journal.exists()


def test_a_variant_that_knows_one_side_only_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("variants.sam.model.SamModel.encode_resized")
    spec = job_spec(write_toys(tmp_path / "data"), scale=0.5)
    with pytest.raises(BenchError, match=r"'litemedsam_tiny' has no `encode_resized`.*leave out `scale`"):
        job.run(spec, FolderContext(tmp_path / "job"))
