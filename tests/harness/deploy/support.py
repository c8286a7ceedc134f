"""A promptable model that is exported in seconds, and what is needed to deploy it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.config import Deployment
from harness.deploy import Prepared, prepare
from harness.deploy.export import Graph
from harness.deploy.samples import Sample
from harness.inference import Session
from variants.registry import VariantSpec
from variants.sam import MaskDecoder, PromptEncoder, SamModel, TwoWayTransformer

SIZE = 64
SPEC = VariantSpec("toy", "toy", "two convolutions", "tests", "tests.harness.deploy.support:toy", input_size=SIZE)


class Frozen(nn.Module):
    """An encoder that takes every image for one of a batch of two: correct for the batch it was shown."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x).reshape(2, 16, 16, 16)


def toy() -> SamModel:
    """Two convolutions for an encoder, one transformer layer for a decoder, seeded."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.GELU(), nn.Conv2d(16, 16, 3, padding=1))
    transformer = TwoWayTransformer(depth=1, dim=16, heads=2, mlp_dim=32)
    model = SamModel(encoder, PromptEncoder(16, SIZE, 16, 0.2), MaskDecoder(transformer, 16, 2), SIZE)
    torch.set_rng_state(state)
    return model.eval()


def samples(spec: VariantSpec = SPEC, count: int = 4) -> list[Sample]:
    """Arbitrary images with three boxes each, and the further prompts of the variant."""
    rng, side = np.random.default_rng(1), spec.input_size
    found = []
    for _ in range(count):
        boxes = np.sort(rng.random((3, 2, 2)) * side, axis=1).reshape(3, 4)
        points = rng.random((3, 4, 2)) * side if "points" in spec.prompts else None
        scribble = rng.random((3, 1, side, side)) > 0.95 if "scribble" in spec.prompts else None
        arrays = (rng.random((1, 3, side, side)), boxes, points, scribble)
        found.append(Sample(*(a if a is None else a.astype(np.float32) for a in arrays)))
    return found


@dataclass(frozen=True)
class Ready:
    """A prepared deployment."""

    folder: Path
    made: Prepared
    spec: VariantSpec
    deployment: Deployment

    @property
    def description(self) -> dict[str, Any]:
        """What ``deployment.json`` says."""
        said = {"input_size": self.spec.input_size, "prompts": list(self.spec.prompts)}
        return said | {"files": self.made.files, "facts": self.made.facts}

    def session(self) -> Session:
        if self.deployment.backend == "onnxruntime":
            from harness.inference.ort_session import OrtSession

            return OrtSession(self.folder, self.description, self.deployment.threads)
        if self.deployment.backend == "openvino":
            from harness.inference.openvino_session import OpenVinoSession

            return OpenVinoSession(self.folder, self.description, self.deployment.threads, self.deployment.precision)
        from harness.inference.aot_session import AotSession

        return AotSession(self.folder, self.description, self.deployment.threads)


def deploy(model: Any, folder: Path, spec: VariantSpec = SPEC, **settings: Any) -> Ready:
    """Prepare a deployment on one thread."""
    deployment = Deployment(threads=1, **settings)
    folder.mkdir(parents=True, exist_ok=True)
    return Ready(folder, prepare(model, spec, deployment, folder, samples(spec), lambda _: None), spec, deployment)


def agreement(session: Session, model: Any, spec: VariantSpec = SPEC) -> float:
    """The lowest share of mask pixels on which a session and eager torch agree, over four images."""
    shares = []
    for sample in samples(spec):
        logits, iou = session.decode(session.encode(sample.image), sample.boxes, sample.points, sample.scribble)
        with torch.inference_mode():
            boxes, points, scribble = (
                None if value is None else torch.from_numpy(value)
                for value in (sample.boxes, sample.points, sample.scribble)
            )
            embedding = model.encode(torch.from_numpy(sample.image))
            expected, _ = model.decode(embedding, boxes, points=points, scribble=scribble)
        assert logits.shape == tuple(expected.shape)
        assert iou.shape == (3, 1)
        shares.append(float(((logits > 0) == (expected.numpy() > 0)).mean()))
    return min(shares)


class Exported:
    """Stands for `export_onnx`: copies files that were exported once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, graph: Graph, path: Path) -> None:
        shutil.copy(self.folder / f"{graph.role}.onnx", path)
