"""The one training loop, on Lightning Fabric: takes a step at a time and can stop and go on between any two.

A step is a function of the state before it and its number: samples come from (seed, step), and the generator behind
dropout is seeded with (seed, step).  On a CPU with a fixed number of threads the whole run is therefore bit for bit
the same however often it was interrupted; on a GPU it is the same up to the order of its sums.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # only the exception: nothing is unpickled here
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from harness.recipe import Stage
from harness.files import replacing
from harness.training.losses import objective
from harness.training.samples import Batch
from variants import PromptableModel

STATE_FORMAT = 1
Accelerator = Literal["auto", "cpu", "cuda"]


class DivergedError(Exception):
    """Loss or gradient stopped being finite; the weights of the step before are still in the last saved state."""

    def __init__(self, step: int, cases: tuple[str, ...], what: str) -> None:
        super().__init__(f"{what} at step {step}; cases of the batch: {', '.join(dict.fromkeys(cases))}")
        self.step, self.cases, self.what = step, cases, what


@dataclass(frozen=True)
class StepResult:
    """One finished step (1-based): total loss and its terms, the cases of the batch, wall seconds."""

    step: int
    loss: float
    dice: float
    bce: float
    iou: float
    cases: tuple[str, ...]
    seconds: float


class Prompted(nn.Module):
    """The differentiable whole: images and N boxes → logits (N,1,256,256) and predicted IoU (N,1).

    One ``forward`` is what Fabric wraps (autocast now, several processes later).
    """

    def __init__(self, model: PromptableModel) -> None:
        super().__init__()
        self.model = cast(nn.Module, model)

    def forward(self, images: Tensor, boxes: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        model = cast(PromptableModel, self.model)
        logits, iou = model.decode(model.encode(images), boxes, image_index=which)
        return cast(Tensor, logits), cast(Tensor, iou)


def learning_rate(recipe: Stage, index: int) -> float:
    """Learning rate of the step with 0-based ``index``: warm-up, times the recipe's schedule."""
    warm = min(1.0, (index + 1) / recipe.warmup) if recipe.warmup else 1.0
    falling = 1 - index / (recipe.steps or 1) if recipe.schedule == "linear" else 1.0
    return recipe.learning_rate * warm * falling


class Trainer:
    """Trains a model in place.

    Args:
        model: a torch variant; left in train mode.
        recipe: steps, batch, learning rate and how to execute.
        batches: 0-based step → batch.
        seed: of everything random inside a step.
        accelerator: ``auto`` takes the GPU if there is one.
    """

    def __init__(
        self,
        model: PromptableModel,
        recipe: Stage,
        batches: Callable[[int], Batch],
        *,
        seed: int,
        accelerator: Accelerator = "auto",
    ) -> None:
        torch.set_num_threads(recipe.threads)
        self.recipe = recipe
        self.losses: list[float] = []
        self._batches = batches
        self._seed = seed
        chosen = accelerator if accelerator != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
        with _quiet_fabric():
            self._fabric = Fabric(accelerator=chosen, devices=1, precision="bf16-mixed" if recipe.bf16 else "32-true")
        self._layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self._module = Prompted(model).train()
        self._module.to(memory_format=self._layout)  # type: ignore[call-overload]  # missing from torch's stubs
        self._optimiser = torch.optim.AdamW(
            [p for p in self._module.parameters() if p.requires_grad],
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        with _quiet_fabric():
            self._wrapped, self._wrapped_optimiser = self._fabric.setup(self._module, self._optimiser)

    @property
    def steps_taken(self) -> int:
        """Steps behind this state; the next step has this number as its 0-based index."""
        return len(self.losses)

    @property
    def model(self) -> PromptableModel:
        """The model being trained."""
        return cast(PromptableModel, self._module.model)

    def step(self) -> StepResult:
        """Take one optimiser step.

        Raises:
            DivergedError: loss or gradient is not finite; nothing was learned from the batch.
        """
        started = time.perf_counter()
        index = self.steps_taken
        batch = self._batches(index)
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(self.recipe, index)
        torch.manual_seed(_mix(self._seed, index))
        given = (batch.images, batch.boxes, batch.which, batch.masks)
        images, boxes, which, masks = (self._to_device(array) for array in given)
        with _reproducible(on=self._fabric.device.type == "cpu"):
            logits, iou = self._wrapped(images.contiguous(memory_format=self._layout), boxes, which)
            terms = objective(logits, iou, masks)
            loss = float(terms.total.detach())
            if not math.isfinite(loss):
                raise DivergedError(index + 1, batch.cases, f"the loss is {loss}")
            self._wrapped_optimiser.zero_grad(set_to_none=True)
            self._fabric.backward(terms.total)
            if not self._clipped():
                raise DivergedError(index + 1, batch.cases, "the gradient is not finite")
            self._wrapped_optimiser.step()
        self.losses.append(loss)
        dice, bce, iou = (float(t.detach()) for t in (terms.dice, terms.bce, terms.iou))
        return StepResult(index + 1, loss, dice, bce, iou, batch.cases, time.perf_counter() - started)

    def save(self, path: Path) -> None:
        """Write the resumable state (weights and running statistics, optimiser, losses so far) in one step: a reader
        finds the old state or the new one, whole."""
        with replacing(path) as stream:
            torch.save(self._state(), stream)

    def resume(self, path: Path) -> bool:
        """Continue from a saved state; says whether there was one.

        A damaged file counts as none: training starts again and reaches the same weights.
        """
        if not zipfile.is_zipfile(path):
            return False
        try:
            state = torch.load(path, map_location=self._fabric.device, weights_only=True)
        except (RuntimeError, OSError, UnpicklingError):
            return False
        if state.get("format") != STATE_FORMAT:
            return False
        self._module.model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.losses = list(state["losses"])
        return True

    def _state(self) -> dict[str, Any]:
        return {
            "format": STATE_FORMAT,
            "model": self._module.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "losses": self.losses,
        }

    def _to_device(self, array: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(array).to(self._fabric.device, non_blocking=True)

    def _clipped(self) -> bool:
        """Shorten the gradient to the recipe's largest norm; whether it is finite."""
        trained = [p for p in self._module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
        if not norm.isfinite():
            return False
        if self.recipe.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(trained, self.recipe.clip, norm)
        return True


def _mix(seed: int, step: int) -> int:
    """One 63-bit seed of two numbers."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def _reproducible(*, on: bool) -> Iterator[None]:
    """Deterministic kernels on the CPU: the gradient of a table lookup (relative position biases) otherwise adds up
    in whatever order the threads come."""
    if not on:
        yield
        return
    options: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), options.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    options.fill_uninitialized_memory = False  # a debugging aid that costs a pass over memory
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        options.fill_uninitialized_memory = before[1]


@contextmanager
def _quiet_fabric() -> Iterator[None]:
    """The one place where advice of Fabric that does not apply here, and its notes on what was asked for, end."""
    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The `srun` command is available")
            yield
    finally:
        logger.setLevel(level)
