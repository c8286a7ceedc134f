"""Takes some steps and writes losses and weights; alone, or as one of several processes of ``torchrun``.

python -m tests.harness.training.process_child OUT.pt MODEL ['{"stage": "fields"}']
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

import variants
from harness import torchrun
from harness.recipe import Stage
from harness.training.samples import Draw, Samples
from harness.training.tasks import Segmenting
from harness.training.trainer import DivergedError, Trainer
from tests.harness.training.toys import ToyModel, toy_data

STEPS = 4


def main(out: Path, model: str, fields: str) -> None:
    stage = Stage.model_validate({"steps": STEPS, "batch": 4, "objects": 2, "threads": 1} | json.loads(fields))
    torch.set_num_threads(1)
    made = ToyModel(3, dropout=0.0) if model == "toy" else variants.create(model, seed=3)
    samples = Samples(toy_data(), Draw(made.input_size, "longest-side", 5, 0.5, stage.objects), 3)
    count = stage.batch // torchrun.count()
    first = torchrun.rank() * count
    trainer = Trainer(
        Segmenting(made, stage.loss),
        stage,
        lambda index: samples.batch(index, stage.batch, first, count),
        seed=3,
        steps=STEPS,
        accelerator="cpu",
    )
    try:
        results = [trainer.step() for _ in range(STEPS)]
    except DivergedError as error:
        Path(f"{out}.{torchrun.rank()}").write_text(" ".join(error.cases))
        return
    if torchrun.rank() == 0:
        torch.save(
            {
                "losses": [r.loss for r in results],
                "parts": results[-1].parts,
                "norms": trainer.history.norms,
            },
            out,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "{}")
