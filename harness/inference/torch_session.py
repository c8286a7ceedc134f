"""A session that runs a torch variant eagerly on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from harness.inference.session import EmbeddingLike, FloatArray


class TorchSession:
    """Torch in inference mode.

    Args:
        model: the variant with its weights.
        threads: intra-op threads.
        channels_last: memory format of weights and images.
        precision: ``fp32``; ``bf16``: autocast around encoding and decoding; ``int8``: linear layers quantised here.
    """

    def __init__(self, model: Any, threads: int, channels_last: bool, precision: str = "fp32") -> None:
        torch.set_num_threads(threads)
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._bf16 = precision == "bf16"
        model = model.eval().to(memory_format=self._format)
        if precision == "int8":
            from harness.inference.quantised import quantise_linear

            model = quantise_linear(model)
        self._model = model

    @property
    def input_size(self) -> int:
        return int(self._model.input_size)

    def encode(self, images: FloatArray) -> EmbeddingLike:
        tensor = _tensor(images).to(memory_format=self._format)
        with torch.inference_mode(), self._autocast():
            embedding: EmbeddingLike = self._model.encode(tensor)
        return embedding

    def decode(
        self,
        embedding: Any,
        boxes: FloatArray,
        points: FloatArray | None = None,
        scribble: FloatArray | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        with torch.inference_mode(), self._autocast():
            logits, iou = self._model.decode(
                embedding, _tensor(boxes), points=_optional(points), scribble=_optional(scribble)
            )
        return logits.float().numpy(), iou.float().numpy()

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self._bf16)


def _tensor(array: FloatArray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _optional(array: FloatArray | None) -> torch.Tensor | None:
    return None if array is None else _tensor(array)
