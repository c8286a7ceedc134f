"""What two cores learn: every family by the `quick` recipe, judged on phantoms that no training saw.

The tiny sizes take some five minutes each, the two full ones up to 45, the beginnings of the others two each:
``pytest -m full -s tests/harness/training/test_quick.py -k "tiny"`` (or ``45``, ``begins``, ``teacher``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import nn

import variants
from harness.config import PhantomData
from harness.data import open_dataset
from harness.plan import make_plan
from harness.recipe import Stage
from harness.results import Results, read_run
from harness.run import Run
from harness.stats.paired import PairedDifference, paired_difference
from harness.store import records_key, unseal
from harness.suitefile import SUITES, read_suite, shipped_recipes
from harness.training.samples import Draw, Samples
from harness.training.tasks import Segmenting
from harness.training.trainer import Trainer
from tests.harness.test_run import Silent
from tests.harness.training.test_overfit import TINY

pytestmark = [pytest.mark.full, pytest.mark.slow]

UNSEEN = {"kind": "phantoms", "seed": 2, "per_modality": 8, "volumes": 4, "size": 256, "volume_size": 96, "slices": 10}
FULL = ("swin_litemedsam", "swiftmedsam_v1", "swiftmedsam_v2", "rep_medsam", "litemedsam", "efficientvit_sam_l0")
NOT_OF_A_BOX = (
    "prompt_encoder.point_embeddings.0.",
    "prompt_encoder.point_embeddings.1.",
    "prompt_encoder.not_a_point_embed.",
    "prompt_encoder.mask_downscaling.",
    *(f"mask_decoder.output_hypernetworks_mlps.{mask}." for mask in (1, 2, 3)),
)
"""Parameters of points, of masks as prompts, and of the three masks for ambiguous points."""


def executed(root: Path, **fields: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Records of a suite with a column ``row`` (its variant), and its run."""
    parts = [f"{SUITES}/{name}.yaml" for name in ("parts/deployments", "parts/datasets", "recipes/quick")]
    path = root / f"{fields['name']}.yaml"
    path.write_text(yaml.safe_dump({"include": parts, **fields}))
    results = Results(root / "results")
    plan = make_plan(read_suite(path, [])[0], results)
    run = Run(plan, results, ["bench", "run", path.name], [])
    assert run.execute(Silent()) == 0
    rows = []
    for job in plan.jobs:
        sealed = results.store.get(records_key(job.digest))
        assert sealed is not None
        rows += [vars(record) | {"row": job.row} for record in unseal(sealed)]
    return pd.DataFrame(rows), read_run(run.folder)


def compared(records: pd.DataFrame, base: str, other: str) -> PairedDifference:
    """DSC of two rows, case by case, objects averaged."""
    dsc = records[(records.metric == "dsc") & (records.protocol == "strict")]
    cases = dsc.groupby(["case", "row"]).value.mean().unstack("row")
    assert len(cases) == 100
    return paired_difference(cases[base], cases[other])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quick")


@pytest.mark.parametrize(("name", "minutes"), [*((name, 5) for name in TINY), ("litemedsam", 45), ("rep_medsam", 45)])
def test_quick_beats_the_ellipse_and_the_untrained_self_in_its_minutes(name: str, minutes: int, root: Path) -> None:
    records, run = executed(
        root,
        name=name,
        variants={"dummy": None, "trained": {"name": name}, "untrained": {"name": name, "recipe": "untrained"}},
        datasets={"unseen": UNSEEN},
        training={"data": "many", "recipe": "quick"},
        measure={"accuracy": {"data": ["unseen"], "deployments": ["torch-fp32"]}},
    )
    seconds = sum(j["seconds"] for j in run["jobs"] if j["kind"] == "train" and j["variant"] == "trained")
    ellipse, untrained = (compared(records, base, "trained") for base in ("dummy", "untrained"))
    print(f"{name}: {seconds:.0f} s; DSC to ellipse {ellipse}, to untrained {untrained.mean:+.3f}")  # noqa: T201
    assert seconds < minutes * 60
    for difference in (ellipse, untrained):
        assert difference.low > 0
        assert difference.p is not None
        assert difference.p < 0.05


@pytest.mark.parametrize("name", FULL)
def test_a_full_size_begins_to_learn_what_holds_for_cases_kept_out(name: str, root: Path) -> None:
    recipe: dict[str, Any] = shipped_recipes()["quick"]
    first = recipe["stages"][0] | {"steps": 180, "validation": {"share": 0.08, "every": 60}}
    records, _ = executed(
        root,
        name=f"{name}-begun",
        variants={name: None},
        recipes={"begun": recipe | {"stages": [first]}},
        training={"data": "train", "recipe": "begun"},
        measure={"complexity": None},
    )
    steps = records.sort_values("repeat")
    train = [part.mean() for part in np.array_split(steps[steps.metric == "train_loss"].value.to_numpy(), 3)]
    judged = steps[steps.metric == "validation_loss"].value.tolist()
    print(f"{name}: training {np.round(train, 3)}, validation {np.round(judged, 3)}")  # noqa: T201
    assert len(judged) == 3
    assert train == sorted(train, reverse=True)
    assert judged == sorted(judged, reverse=True)


def test_the_teacher_takes_a_step_and_gradients_reach_all_that_a_box_asks_for(tmp_path: Path) -> None:
    name = "medsam_vit_b"
    spec = variants.resolve(name, {})
    data = open_dataset(PhantomData(seed=4, per_modality=1, size=96, modalities=("US",)), tmp_path)
    batch = Samples(data, Draw(spec.input_size, spec.preprocess, 0, 0.0, 1, None, spec.prompts), 0).batch(0, 1)
    stage = Stage(steps=1, batch=1, learning_rate=1e-4, weight_decay=0)  # what has no gradient stays as it is
    torch.set_num_threads(stage.threads)
    model = variants.create(name, seed=0)
    assert isinstance(model, nn.Module)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    trainer = Trainer(Segmenting(model, stage.loss), stage, lambda _: batch, seed=0, steps=1, accelerator="cpu")
    assert np.isfinite(trainer.step().loss)
    still = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
    assert [n for n in still if not n.startswith(NOT_OF_A_BOX)] == []
