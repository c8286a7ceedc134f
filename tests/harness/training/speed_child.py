"""Seconds of training steps of LiteMedSAM on phantoms, and the losses: a line of JSON.

python -m tests.harness.training.speed_child CACHE STEPS '{"stage": "fields"}'
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

import variants
from harness.config import PhantomData
from harness.data import open_dataset
from harness.recipe import Stage
from harness.training.loader import Loader
from harness.training.samples import Draw, Samples
from harness.training.tasks import Segmenting
from harness.training.trainer import Trainer

DATA = PhantomData(seed=6, per_modality=1, size=256)


def main(cache: Path, steps: int, fields: str) -> None:
    stage = Stage.model_validate({"steps": steps, "batch": 4, "learning_rate": 1e-4} | json.loads(fields))
    samples = Samples(open_dataset(DATA, cache), Draw(256, "longest-side", 5, 0.5), 0)
    torch.set_num_threads(stage.threads)
    task = Segmenting(variants.create("litemedsam", seed=0), stage.loss)
    trainer = Trainer(task, stage, Loader(samples, stage.batch), seed=0, steps=steps, accelerator="cpu")
    results = [trainer.step() for _ in range(steps)]
    print(json.dumps({"seconds": [r.seconds for r in results], "losses": [r.loss for r in results]}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
