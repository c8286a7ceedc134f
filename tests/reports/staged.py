"""Trainings of several stages for a made-up run: a teacher, distillation, training, fine-tuning; two seeds."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.schema import Record
from tests.reports.synthetic import SyntheticRun

HINT = "the data loader was the bottleneck (61 % of the time): raise `workers`"


@dataclass(frozen=True)
class Made:
    """One stage of a made-up training; ``planned`` steps if it is not as long as ``epochs``."""

    stage: str
    steps: int
    planned: int | None = None
    epochs: int | None = None
    high: float = 2.1
    validated: bool = False
    falling: bool = False
    converged: bool = False
    hint: str | None = None


TEACHER = Made("teacher: train", 60, 60)
DISTIL = Made("distil", 120, 120, high=0.08, validated=True, falling=True)
TRAIN = Made("train", 240, epochs=3, validated=True, falling=True, hint=HINT)
FINETUNE = Made("finetune", 60, 60, high=1.1, falling=True, converged=True)


class StagedRun(SyntheticRun):
    """The made-up run, in which ``litemedsam`` has three stages and a teacher, and ``tiny`` two seeds."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.chain("litemedsam", (DISTIL, TRAIN, FINETUNE), teacher=TEACHER)
        self.chain("tiny", (Made("distil", 80, 80, high=0.1), Made("train", 160, 160, validated=True)), teacher=TEACHER)
        self.chain("tiny", (Made("distil", 80, 80, high=0.1), Made("train", 160, 160, validated=True)), seed=1)

    def chain(
        self,
        variant: str,
        stages: tuple[Made, ...],
        seed: int = 0,
        teacher: Made | None = None,
        file: str | None = None,
    ) -> list[str]:
        """Train a row anew by stages, whose last one its jobs use; returns the digests, the teacher's first."""
        old = [j for j in self.data["jobs"] if j["kind"] == "train" and j["variant"] == variant]
        if seed == 0:
            self.data["jobs"] = [j for j in self.data["jobs"] if j not in old]
        taught = [self._stage(variant, teacher, "the teacher", seed, [], {})] if teacher else []
        made: list[str] = []
        for place, stage in enumerate(stages):
            weights = {"train_job": made[-1]} if made else {"file": file}
            needs = [*made[-1:], *(taught if place == 0 else [])]
            made.append(self._stage(variant, stage, f"{variant} {place}", seed, needs, weights))
        for job in self.data["jobs"]:
            if job["variant"] == variant and job["kind"] in ("accuracy", "runtime") and job["seed"] == seed:
                job |= {"needs": [made[-1]], "weights": {"train_job": made[-1]}}
        return [*taught, *made]

    def _stage(self, variant: str, made: Made, name: str, seed: int, needs: list[str], weights: dict[str, Any]) -> str:
        digest = sha256(json.dumps([name, made.stage, made.steps, seed]).encode()).hexdigest()
        settings = {"steps": made.planned, "epochs": made.epochs}
        job: dict[str, Any] = {
            "digest": digest,
            "kind": "train",
            "stage": made.stage,
            "variant": variant,
            "deployment": None,
        }
        job |= {"dataset": None, "sandbox": None, "seed": seed, "needs": needs, "state": "done", "reason": None}
        self.data["jobs"].append({**job, "settings": settings, "weights": weights})
        self.records[digest] = self.course(made)
        return digest

    def course(self, made: Made) -> list[Record]:
        """The records of a training."""
        records: list[Record] = []
        best: dict[str, Any] | None = None
        for step in range(1, made.steps + 1):
            loss = made.high * (0.3 + 0.7 / (1 + step / 12))
            records.append(Record("train_loss", loss * (1 + self.random.gauss(0, 0.05)), repeat=step))
            fall = 0.5 * (1 + math.cos(math.pi * step / (made.steps + 1))) if made.falling else 1.0
            records.append(Record("learning_rate", 5e-4 * fall, repeat=step))
            if made.validated and step % 20 == 0:
                masks = made.stage != "distil"
                records.append(Record("validation_loss", 1.1 * loss, repeat=step))
                records += [Record("validation_dsc", 1 - loss / 3, repeat=step)] if masks else []
                best = {"step": step, "loss": 1.1 * loss, "dsc": 1 - loss / 3 if masks else None}
        said = {"validation_best": best, "ended_early": made.stage == "finetune", "stage": made.stage}
        detail = json.dumps(said | ({"hint": made.hint} if made.hint else {}))
        end = (("train_steps", float(made.steps)), ("converged", float(made.converged)))
        return [*records, *(Record(metric, value, detail=detail) for metric, value in end)]
