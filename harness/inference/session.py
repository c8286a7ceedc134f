"""Sessions: a variant made ready to run under a deployment, numpy in and numpy out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

import variants
from harness.errors import BenchError

if TYPE_CHECKING:
    from harness.config import Deployment, VariantRef
    from variants.model import PromptableModel

FloatArray = NDArray[np.float32]


class EmbeddingLike(Protocol):
    """What ``encode`` returns: opaque but for its size."""

    @property
    def nbytes(self) -> int:
        """Bytes a cache has to keep."""


class Session(Protocol):
    """A promptable model behind arrays: what pipelines use, whatever the backend."""

    @property
    def input_size(self) -> int:
        """Side S of the square network input in pixels."""

    def encode(self, images: FloatArray) -> EmbeddingLike:
        """Encode float32 images (B,3,S,S) in [0,1]."""

    def decode(
        self,
        embedding: Any,
        boxes: FloatArray,
        points: FloatArray | None = None,
        scribble: FloatArray | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        """Decode boxes (N,4) in network pixels, all of the first image.

        Args:
            embedding: what ``encode`` returned.
            boxes: float32 (N,4).
            points: float32 (N,P,2) x,y, all in the foreground.
            scribble: float32 (N,1,S,S), 1 on the stroke.

        Returns:
            Logits float32 (N,1,256,256), a mask is where they are > 0, and the predicted IoU (N,1).
        """


def open_session(
    variant: VariantRef,
    deployment: Deployment,
    weights: Path | None = None,
    seed: int = 0,
    *,
    prepared: Path | None = None,
) -> Session:
    """Build the variant, load its weights and set the threads.

    Args:
        variant: name and overridden hyperparameters.
        deployment: backend, precision, memory format and threads.
        weights: checkpoint; ``None`` leaves the weights as initialised with ``seed``.
        seed: of the initialisation.
        prepared: folder of the prepared deployment, where it is not the eager model.

    Raises:
        BenchError: unknown variant or hyperparameter, a checkpoint that does not fit, an unsupported deployment.
    """
    try:
        if not variants.resolve(variant.name, variant.set).needs_torch:
            return NumpySession(variants.create(variant.name, weights, seed=seed, **variant.set))
        if deployment.backend == "torch" and not deployment.compile:
            return _eager_session(variant, deployment, weights, seed, prepared)
        return _prepared_session(deployment, prepared)
    except variants.VariantError as error:
        raise BenchError(str(error)) from error


def _eager_session(
    variant: VariantRef, deployment: Deployment, weights: Path | None, seed: int, prepared: Path | None
) -> Session:
    """Torch as the model is written, or with its convolutions fused, its precision lowered, its memory laid out."""
    from harness.inference.torch_session import TorchSession

    model: Any
    if deployment.fuse:
        folder, description = _description(prepared)
        structure = variants.create(variant.name, None, seed=seed, **variant.set)
        model = variants.fuse(structure, verify=False)
        variants.checkpoints.load_into(model, folder / description["files"]["weights"], variant.name)
    else:
        model = variants.create(variant.name, weights, seed=seed, **variant.set)
    if deployment.fold_decoder:
        model = variants.fold_decoder(model)
    return TorchSession(model, deployment.threads, deployment.channels_last, deployment.precision)


def _prepared_session(deployment: Deployment, prepared: Path | None) -> Session:
    """Files that were prepared ahead; the backend is imported here and torch only where it is the backend."""
    folder, description = _description(prepared)
    if deployment.backend == "onnxruntime":
        from harness.inference.ort_session import OrtSession

        return OrtSession(folder, description, deployment.threads)
    if deployment.backend == "openvino":
        from harness.inference.openvino_session import OpenVinoSession

        return OpenVinoSession(folder, description, deployment.threads, deployment.precision)
    from harness.inference.aot_session import AotSession

    return AotSession(folder, description, deployment.threads)


def _description(prepared: Path | None) -> tuple[Path, dict[str, Any]]:
    """The folder of a prepared deployment and what it says.

    Raises:
        BenchError: it is not there, or says that the deployment does not apply to the variant.
    """
    if prepared is None:
        raise BenchError("this deployment runs prepared files, but none are given; `bench run` prepares them")
    description: dict[str, Any] = json.loads((prepared / "deployment.json").read_text(encoding="utf-8"))
    if description["unsupported"]:
        raise BenchError(f"the deployment is not supported: {description['unsupported']}")
    return prepared, description


class NumpySession:
    """A session of a variant that computes with numpy."""

    def __init__(self, model: PromptableModel) -> None:
        self._model = model

    @property
    def input_size(self) -> int:
        return self._model.input_size

    def encode(self, images: FloatArray) -> EmbeddingLike:
        return self._model.encode(images)

    def decode(
        self,
        embedding: Any,
        boxes: FloatArray,
        points: FloatArray | None = None,
        scribble: FloatArray | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        logits, iou = self._model.decode(embedding, boxes, points=points, scribble=scribble)
        return np.asarray(logits, dtype=np.float32), np.asarray(iou, dtype=np.float32)
