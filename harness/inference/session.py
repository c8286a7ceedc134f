"""Sessions: a variant made ready to run under a deployment, numpy in and numpy out."""

from __future__ import annotations

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

    def decode(self, embedding: Any, boxes: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Decode boxes (N,4) in network pixels, all of the first image.

        Returns:
            Logits float32 (N,1,256,256), a mask is where they are > 0, and the predicted IoU (N,1).
        """


def open_session(variant: VariantRef, deployment: Deployment, weights: Path | None = None, seed: int = 0) -> Session:
    """Build the variant, load its weights and set the threads.

    Args:
        variant: name and overridden hyperparameters.
        deployment: backend, precision, memory format and threads.
        weights: checkpoint; ``None`` leaves the weights as initialised with ``seed``.
        seed: of the initialisation.

    Raises:
        BenchError: unknown variant or hyperparameter, a checkpoint that does not fit, an unsupported deployment.
    """
    try:
        spec = variants.resolve(variant.name, variant.set)
        if spec.needs_torch:
            return _torch_session(variant, deployment, weights, seed)
        return NumpySession(variants.create(variant.name, weights, seed=seed, **variant.set))
    except variants.VariantError as error:
        raise BenchError(str(error)) from error


def _torch_session(variant: VariantRef, deployment: Deployment, weights: Path | None, seed: int) -> Session:
    if deployment.backend != "torch" or deployment.precision != "fp32":
        raise BenchError(f"deployment {deployment.backend}/{deployment.precision} is not supported; use torch/fp32")
    from harness.inference.torch_session import TorchSession

    model = variants.create(variant.name, weights, seed=seed, **variant.set)
    return TorchSession(model, threads=deployment.threads, channels_last=deployment.channels_last)


class NumpySession:
    """A session of a variant that computes with numpy."""

    def __init__(self, model: PromptableModel) -> None:
        self._model = model

    @property
    def input_size(self) -> int:
        return self._model.input_size

    def encode(self, images: FloatArray) -> EmbeddingLike:
        return self._model.encode(images)

    def decode(self, embedding: Any, boxes: FloatArray) -> tuple[FloatArray, FloatArray]:
        logits, iou = self._model.decode(embedding, boxes)
        return np.asarray(logits, dtype=np.float32), np.asarray(iou, dtype=np.float32)
