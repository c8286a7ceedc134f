"""The image embedding that `encode` hands to `decode`; torch-free, so that variants without torch can use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Index = int | slice | Sequence[int] | Any


@dataclass(frozen=True)
class Embedding:
    """Encoded images.

    Attributes:
        image: (B, C, g, g) float32, a torch tensor or a numpy array; C = 256 and g = 64 in the published models.
        skips: further (B, ...) encoder outputs a family's decoder reads; empty where there are none.
    """

    image: Any
    skips: tuple[Any, ...] = ()

    def __len__(self) -> int:
        return int(self.image.shape[0])

    def __getitem__(self, index: Index) -> Embedding:
        """The embedding of one image (an integer; the batch axis stays, with length 1) or of several.

        Raises:
            IndexError: if an integer names no image of the batch.
        """
        if not isinstance(index, slice) and hasattr(index, "tolist"):
            index = index.tolist()  # arrays and tensors, of one number or several
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"image {index} of an embedding of {len(self)} images")
            index %= len(self)
            index = slice(index, index + 1)
        elif not isinstance(index, slice):
            index = list(index)
        return Embedding(self.image[index], tuple(skip[index] for skip in self.skips))

    @property
    def nbytes(self) -> int:
        """Size of all arrays in bytes, what a cache of embeddings has to keep."""
        return int(self.image.nbytes) + sum(int(skip.nbytes) for skip in self.skips)
