"""What sessions of prepared files have in common: numpy alone, the backend comes from the subclass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import BenchError
from harness.inference.session import FloatArray
from variants.embedding import Embedding

ENCODER, DECODER = "encoder", "decoder"
PROMPTS = ("points", "scribble")


def one_by_one(run: Callable[[dict[str, FloatArray]], Sequence[FloatArray]], images: FloatArray) -> list[FloatArray]:
    """Outputs for images (B,3,S,S) of an encoder that takes one at a time."""
    single = [run({"image": images[i : i + 1]}) for i in range(len(images))]
    return list(single[0]) if len(single) == 1 else [np.concatenate(outputs) for outputs in zip(*single, strict=True)]


class PreparedSession(ABC):
    """An encoder and a decoder in files.

    Args:
        folder: where the files lie.
        description: content of ``deployment.json``: ``files``, ``input_size``, ``prompts`` and ``facts.batch``.
    """

    def __init__(self, folder: Path, description: Mapping[str, Any]) -> None:
        self._files = {role: folder / str(name) for role, name in description["files"].items()}
        self._input_size = int(description["input_size"])
        self._prompts = tuple(str(prompt) for prompt in description["prompts"])
        self._one_by_one = (description.get("facts") or {}).get("batch") == "1"
        missing = [path for path in self._files.values() if not path.is_file()]
        if missing:
            raise BenchError(f"{missing[0]}: a file of the prepared deployment is missing; prepare it again")

    @abstractmethod
    def run(self, role: str, inputs: dict[str, FloatArray]) -> list[FloatArray]:
        """Outputs of the encoder or the decoder, in the order of the graph, float32 and contiguous.

        Args:
            role: ``encoder`` or ``decoder``.
            inputs: by name, float32 and contiguous.
        """

    @property
    def input_size(self) -> int:
        """Side S of the square network input in pixels."""
        return self._input_size

    def encode(self, images: FloatArray) -> Embedding:
        """Encode float32 images (B,3,S,S) in [0,1]; one after the other where the encoder takes one at a time."""
        images = np.ascontiguousarray(images, dtype=np.float32)
        run = partial(self.run, ENCODER)
        found = one_by_one(run, images) if self._one_by_one else run({"image": images})
        return Embedding(found[0], tuple(found[1:]))

    def decode(
        self, embedding: Any, boxes: FloatArray, points: FloatArray | None = None, scribble: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Decode N prompts of the first image; see ``harness.inference.session.Session``.

        Raises:
            BenchError: other prompts than those the decoder was prepared for.
        """
        inputs = {"image_embedding": embedding.image[:1], "boxes": boxes}
        inputs |= {f"skip{i}": skip[:1] for i, skip in enumerate(embedding.skips)}
        for name, value in zip(PROMPTS, (points, scribble), strict=True):
            if (value is not None) != (name in self._prompts):
                raise BenchError(
                    f"{self._files[DECODER].name} was prepared for {' + '.join(self._prompts)}, "
                    f"but {name} {'was' if value is not None else 'was not'} given; prepare the deployment again"
                )
            if value is not None:
                inputs[name] = value
        ready = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in inputs.items()}
        logits, iou = self.run(DECODER, ready)
        return logits, iou
