"""The targets of distillation: a teacher's embeddings of a batch, computed in every step or read from a store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.training.embeddings import EmbeddingStore
from variants import PromptableModel

Images = Callable[[list[int]], NDArray[np.float32]]


class Teaching:
    """A frozen teacher, and what it said before.

    Images are encoded one at a time, so a target depends neither on the rest of its batch nor on whether it comes from
    the store.  On a CPU the bits also depend on what ``execution`` says, which therefore belongs to the store's name.

    Args:
        teacher: a torch variant; moved to the device, frozen and set to eval mode.
        device: where it runs and where targets are given.
        store: of the shape of its embeddings; none: the teacher runs in every step.

    Attributes:
        encoded: images that the teacher has encoded.
    """

    def __init__(self, teacher: PromptableModel, device: torch.device, store: EmbeddingStore | None = None) -> None:
        self._teacher = teacher
        self._device = device
        self._store = store
        self.encoded = 0
        cast(nn.Module, teacher).to(device).eval().requires_grad_(requires_grad=False)

    def targets(self, keys: Sequence[str], images: Images) -> Tensor:
        """The teacher's embeddings of a batch: float32 (B,C,g,g) on the device; (B,256,64,64) in the published size.

        Args:
            keys: of the B views; a key stands for one image.
            images: places in ``keys`` → the teacher's prepared input, float32 (n,3,S,S) in [0,1]; asked only for what
                the teacher has to encode.
        """
        if self._store is not None:
            found = self._store.get(keys, lambda places: self._encode(images(places)).cpu().numpy())
            return torch.from_numpy(found).to(self._device)
        first: dict[str, int] = {}
        for place, key in enumerate(keys):
            first.setdefault(key, place)
        encoded = self._encode(images(list(first.values())))
        row = {key: number for number, key in enumerate(first)}
        return encoded[[row[key] for key in keys]]

    def _encode(self, images: NDArray[np.float32]) -> Tensor:
        # Put together outside inference mode, it is an ordinary tensor, which autograd accepts.
        return torch.cat([self._embedding(torch.from_numpy(image[None])) for image in images])

    def _embedding(self, image: Tensor) -> Tensor:
        with torch.inference_mode(), _single_precision(self._device):
            embedding: Tensor = self._teacher.encode(image.to(self._device)).image.float()
        self.encoded += 1
        return embedding


def embedding_shape(teacher: PromptableModel, device: torch.device) -> tuple[int, ...]:
    """Shape (C,g,g) of the teacher's embedding of one image, from a black one."""
    side = teacher.input_size
    black = np.zeros((1, 3, side, side), np.float32)
    return tuple(Teaching(teacher, device).targets([""], lambda _: black).shape[1:])


def store_name(weights: str, data: str, rule: str, size: int, *further: str) -> str:
    """Name of the folder for a teacher's embeddings of a data set; any other argument gives another name.

    Args:
        weights: digest of the teacher's weights (``weights_digest``).
        data: digest of the data set.
        rule: preprocessing of the teacher's input.
        size: side of the teacher's input, pixels.
        further: whatever else decides about the embeddings: variant and hyperparameters, ``execution``.
    """
    text = json.dumps([weights, data, rule, size, *further])
    return f"embeddings-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def weights_digest(model: PromptableModel) -> str:
    """SHA-256 of a torch variant's parameters and buffers, their names, types and shapes."""
    digest = hashlib.sha256()
    for name, value in sorted(cast(nn.Module, model).state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def execution(device: torch.device) -> str:
    """What decides about the last bits of an embedding, apart from teacher and image."""
    if device.type == "cpu":
        where = f"{torch.backends.cpu.get_cpu_capability()} with {torch.get_num_threads()} threads"
    else:
        where = torch.cuda.get_device_name(device)
    return f"torch {torch.__version__} on {where}"


@contextmanager
def _single_precision(device: torch.device) -> Iterator[None]:
    """No autocast; on a GPU also no TF32 in convolutions, and no search for the fastest of several algorithms."""
    with torch.autocast(device.type, enabled=False):
        if device.type == "cpu":
            yield
            return
        with torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False):
            yield
