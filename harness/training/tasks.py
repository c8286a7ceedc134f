"""What a step of a stage computes: the whole pipeline against masks, or the encoder against a teacher's embedding.

Each task has a module, whose one ``forward`` is what Fabric wraps (autocast, several processes), and says what the
loss of a batch is.  Losses are computed in float32 outside of autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.recipe import MaskLoss, Stage
from harness.training.losses import imitation_loss, objective
from harness.training.samples import Batch, View
from variants import Embedding, PromptableModel

LOGITS = (256, 256)
"""Grid of logits and of the masks that they are compared with."""

Move = Callable[[Any], Tensor]
"""Brings a numpy array to the device of the training, images in the layout asked for."""


@dataclass(frozen=True)
class Terms:
    """Loss of a batch: what is minimised (0-d, with gradient), its named parts, and how many items it is a mean of."""

    total: Tensor
    parts: dict[str, Tensor]
    count: int


class Task(Protocol):
    """What a stage learns."""

    @property
    def module(self) -> nn.Module:
        """The module that is wrapped; its parameters are what the optimiser may change."""

    @property
    def model(self) -> PromptableModel:
        """The whole model, whose weights the stage gives."""

    def terms(self, wrapped: Callable[..., Any], batch: Batch, move: Move) -> Terms:
        """The loss of a batch, by the wrapped module."""


def resized(images: Tensor, scale: float) -> Tensor:
    """Images (B,3,S,S) at a share of their side, by means over areas."""
    side = round(images.shape[-1] * scale)
    return functional.interpolate(images, (side, side), mode="area")


class Prompted(nn.Module):
    """The differentiable whole: images and N prompts → logits (N,1,256,256) and predicted IoU (N,1)."""

    def __init__(self, model: PromptableModel, scale: float = 1.0) -> None:
        super().__init__()
        self.model, self.scale = cast(nn.Module, model), scale

    def forward(
        self, images: Tensor, boxes: Tensor, which: Tensor, points: Tensor | None, scribbles: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        model = cast(PromptableModel, self.model)
        given: dict[str, Any] = {
            name: prompt for name, prompt in (("points", points), ("scribble", scribbles)) if prompt is not None
        }
        logits, iou = model.decode(self._embedding(images), boxes, image_index=which, **given)
        if self.scale != 1:
            logits = functional.interpolate(logits, LOGITS, mode="bilinear", align_corners=False)
        return cast(Tensor, logits), cast(Tensor, iou)

    def _embedding(self, images: Tensor) -> Embedding:
        model: Any = self.model
        if self.scale == 1:
            return cast(Embedding, model.encode(images))
        return cast(Embedding, model.encode_resized(resized(images, self.scale)))


class Segmenting:
    """Stages ``train`` and ``finetune``: Dice + BCE on the mask, MSE on the predicted IoU."""

    def __init__(self, model: PromptableModel, loss: MaskLoss, scale: float = 1.0) -> None:
        self.model, self.module, self._loss = model, Prompted(model, scale), loss

    def terms(self, wrapped: Callable[..., Any], batch: Batch, move: Move) -> Terms:
        extra = [None if array is None else move(array) for array in (batch.points, batch.scribbles)]
        logits, iou = wrapped(move(batch.images), move(batch.boxes), move(batch.which), *extra)
        found = objective(logits, iou, move(batch.masks), self._loss)
        return Terms(found.total, {"dice": found.dice, "bce": found.bce, "iou": found.iou}, len(batch.boxes))


class Encoding(nn.Module):
    """The image encoder alone: images (B,3,S,S) → embedding (B,C,g,g)."""

    def __init__(self, model: PromptableModel) -> None:
        super().__init__()
        self.model = cast(nn.Module, model)

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, cast(PromptableModel, self.model).encode(images).image)


class Imitating:
    """Stage ``distil``: the student's embedding of an image comes near the teacher's of the same view."""

    def __init__(
        self, model: PromptableModel, stage: Stage, targets: Callable[[list[View]], Tensor], *, consistent: bool
    ) -> None:
        self.model, self.module = model, Encoding(model)
        self._kind, self._targets, self._consistent = stage.imitation, targets, consistent

    def terms(self, wrapped: Callable[..., Any], batch: Batch, move: Move) -> Terms:
        views = [view if self._consistent else replace(view, flips=()) for view in batch.views]
        loss = imitation_loss(wrapped(move(batch.images)), self._targets(views), self._kind)
        return Terms(loss, {self._kind: loss}, len(batch.images))


def parts(batch: Batch, size: int | None) -> list[Batch]:
    """A batch in pieces of ``size`` images, each with its own prompts; whole if ``size`` is ``None``."""
    images = len(batch.images)
    if size is None or size >= images:
        return [batch]
    return [_part(batch, first, min(first + size, images)) for first in range(0, images, size)]


def _part(batch: Batch, first: int, behind: int) -> Batch:
    of = (batch.which >= first) & (batch.which < behind)

    def chosen(array: Any) -> Any:
        return None if array is None else array[of]

    return Batch(
        images=batch.images[first:behind],
        masks=batch.masks[of],
        boxes=batch.boxes[of],
        which=batch.which[of] - first,
        cases=batch.cases[first:behind],
        points=chosen(batch.points),
        scribbles=chosen(batch.scribbles),
        views=batch.views[first:behind],
    )


def dsc(logits: Tensor, truth: Tensor) -> Tensor:
    """DSC (N,) of thresholded logits (N,1,H,W) and masks of the same shape; two empty masks agree: 1."""
    found, mask = logits.flatten(1) > 0, truth.flatten(1) > 0
    both, total = (found & mask).sum(1).double(), (found.sum(1) + mask.sum(1)).double()
    return torch.where(total > 0, 2 * both / total.clamp(min=1), torch.ones_like(total))


def as_tensor(array: np.ndarray[Any, Any], device: torch.device, layout: torch.memory_format) -> Tensor:
    """A numpy array on a device; four-dimensional floats (images) in the layout."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    tensor = tensor.to(device, non_blocking=True)
    return tensor.contiguous(memory_format=layout) if tensor.ndim == 4 and tensor.shape[1] == 3 else tensor
