"""A session that runs a torch variant eagerly on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from harness.inference.session import EmbeddingLike, FloatArray


class TorchSession:
    """Torch in inference mode: threads set explicitly, channels-last weights and inputs if asked."""

    def __init__(self, model: Any, threads: int, channels_last: bool) -> None:
        torch.set_num_threads(threads)
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._model = model.eval().to(memory_format=self._format)

    @property
    def input_size(self) -> int:
        return int(self._model.input_size)

    def encode(self, images: FloatArray) -> EmbeddingLike:
        tensor = torch.from_numpy(np.ascontiguousarray(images)).to(memory_format=self._format)
        with torch.inference_mode():
            embedding: EmbeddingLike = self._model.encode(tensor)
        return embedding

    def decode(self, embedding: Any, boxes: FloatArray) -> tuple[FloatArray, FloatArray]:
        with torch.inference_mode():
            logits, iou = self._model.decode(embedding, torch.from_numpy(np.ascontiguousarray(boxes)))
        return logits.float().numpy(), iou.float().numpy()
