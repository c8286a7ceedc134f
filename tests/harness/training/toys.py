"""A model of a few hundred parameters, a data set in memory and a job context in a folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.config import FolderData
from harness.data import write_case
from harness.data.case import Case
from harness.recipe import Stage
from harness.schema import Record
from harness.training.samples import Draw, Samples
from harness.training.tasks import Segmenting
from harness.training.trainer import Trainer
from variants import Embedding

SIZE = 64


class ToyModel(nn.Module):
    """Box and image stacked as channels; has running statistics and dropout, the two things a resume can lose."""

    input_size = SIZE

    def __init__(self, seed: int = 0, dropout: float = 0.1) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.image_encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(dropout)
        )
        self.prompt_encoder = nn.Conv2d(1, 8, 3, padding=1)
        self.mask_decoder = nn.Conv2d(8, 1, 3, padding=1)
        self.iou_head = nn.Linear(8, 1)

    def encode(self, image: Tensor) -> Embedding:
        return Embedding(self.image_encoder(image))

    def encode_resized(self, image: Tensor) -> Embedding:
        return Embedding(functional.interpolate(self.encode(image).image, (SIZE, SIZE)))

    def decode(self, emb: Embedding, boxes: Tensor, image_index: Any = None, **_: Any) -> tuple[Tensor, Tensor]:
        grid = torch.arange(SIZE, device=boxes.device)
        inside = [(grid >= boxes[:, i, None]) & (grid <= boxes[:, i + 2, None]) for i in (0, 1)]
        prompt = (inside[1][:, :, None] & inside[0][:, None, :]).float()[:, None] - 0.5
        mixed = emb.image[image_index] + self.prompt_encoder(prompt)
        logits = functional.interpolate(self.mask_decoder(mixed), scale_factor=256 // SIZE, mode="bilinear")
        return logits, self.iou_head(mixed.mean((2, 3)))


@dataclass
class ToyData:
    """Cases in memory; counts how often each is decoded."""

    held: dict[str, Case]
    name: str = "toys"

    def __post_init__(self) -> None:
        self.loads: list[str] = []
        self.cases = [SimpleNamespace(name=name, modality=case.modality) for name, case in self.held.items()]

    def load(self, name: str) -> Case:
        self.loads.append(name)
        return self.held[name]


def disc(height: int, width: int, centre: tuple[int, int], radius: int) -> np.ndarray:
    rows, columns = np.ogrid[:height, :width]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2


def image_case(name: str = "2DBox_US_0001", height: int = 60, width: int = 90) -> Case:
    """Two bright discs on noise."""
    truth = np.zeros((height, width), np.uint16)
    truth[disc(height, width, (20, 25), 12)] = 1
    truth[disc(height, width, (38, 65), 15)] = 2
    noise = np.random.default_rng(len(name)).integers(0, 60, (height, width, 3))
    image = (noise + 60 * truth[..., None]).astype(np.uint8)
    boxes = np.array([_box(truth == label) for label in (1, 2)], np.int64)
    return Case(name, "US", image, boxes, truth=truth)


def volume_case(name: str = "3DBox_CT_0001") -> Case:
    """One object in slices 2..4 of 7, one row taller in every slice."""
    truth = np.zeros((7, 48, 48), np.uint16)
    for plane in (2, 3, 4):
        truth[plane, 10 : 10 + plane, 12:40] = 1
    boxes = np.array([[12, 10, 2, 39, 13, 4]], np.int64)
    return Case(name, "CT", (truth * 100).astype(np.uint8), boxes, (1.0, 1.0, 2.0), truth)


def toy_data() -> ToyData:
    cases = [image_case("2DBox_US_0001"), image_case("2DBox_US_00002", 80, 70), volume_case()]
    return ToyData({case.name: case for case in cases})


def write_toys(folder: Path) -> FolderData:
    """The toy data as a folder of npz files."""
    for case in toy_data().held.values():
        write_case(case, folder / f"{case.name}.npz")
    return FolderData(path=str(folder))


def toy_trainer(
    recipe: Stage, data: ToyData | None = None, seed: int = 3, dropout: float = 0.1, **kwargs: Any
) -> Trainer:
    samples = Samples(
        data or toy_data(), Draw(SIZE, "longest-side", recipe.box_jitter, recipe.flips, recipe.objects), seed
    )
    return Trainer(
        Segmenting(ToyModel(seed, dropout), recipe.loss, recipe.scale),
        recipe,
        lambda step: samples.batch(step, recipe.batch),
        seed=seed,
        steps=recipe.steps or 0,
        accelerator="cpu",
        **kwargs,
    )


class FolderContext:
    """A job context whose journal, work and artifacts lie in a folder and so outlive the process."""

    def __init__(self, root: Path) -> None:
        self.work, self.cache, self.store = root / "work", root / "cache", root / "store"
        self.journal = root / "journal.jsonl"
        self.messages: list[str] = []
        for folder in (self.work, self.cache, self.store):
            folder.mkdir(parents=True, exist_ok=True)

    def done(self, key: str) -> bool:
        return key in self.units()

    def append(self, key: str, records: Iterable[Record]) -> None:
        assert not self.done(key), f"{key} was written twice"
        with self.journal.open("a") as file:
            file.write(json.dumps([key, [asdict(r) for r in records]]) + "\n")

    def progress(self, fraction: float, message: str) -> None:
        self.messages.append(message)

    def artifact(self, name: str) -> Path | None:
        path = self.store / name
        return path if path.exists() else None

    def put_artifact(self, name: str, path: Path) -> None:
        (self.store / name).write_bytes(path.read_bytes())

    def units(self) -> dict[str, list[dict[str, Any]]]:
        if not self.journal.exists():
            return {}
        lines = self.journal.read_text().split("\n")[:-1]  # a torn last line is not a unit
        return dict(json.loads(line) for line in lines)

    def records(self, metric: str = "") -> list[dict[str, Any]]:
        return [r for rows in self.units().values() for r in rows if r["metric"] == metric]


def _box(mask: np.ndarray) -> list[int]:
    rows, columns = np.nonzero(mask)
    return [int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())]
