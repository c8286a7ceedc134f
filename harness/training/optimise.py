"""Learning rate, length of the gradient, average of the weights: what decides a step besides its loss.

Everything here is a function of what the saved state holds (losses, norms, averaged weights), so that a resumed run
takes the steps of the undisturbed one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from harness.recipe import Plateau, Stage


def learning_rate(stage: Stage, index: int, steps: int, falls: float = 1.0) -> float:
    """Learning rate of the step with 0-based ``index`` of ``steps``: warm-up, times the schedule.

    Args:
        falls: factor that a plateau schedule has come to, see ``plateau_factor``.
    """
    warm = min(1.0, (index + 1) / stage.warmup) if stage.warmup else 1.0
    if stage.schedule == "linear":
        falls = 1 - index / steps
    return stage.learning_rate * warm * falls


def plateau_factor(watched: Sequence[float], rule: Plateau) -> float:
    """What ReduceLROnPlateau (torch's, mode min) multiplies a learning rate by after these mean losses of epochs."""
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = ReduceLROnPlateau(optimiser, mode="min", factor=rule.factor, patience=rule.patience)
    for loss in watched:
        scheduler.step(loss)
    return float(optimiser.param_groups[0]["lr"])


def epoch_means(losses: Sequence[float], epoch_steps: int) -> list[float]:
    """Mean loss of every finished epoch."""
    whole = len(losses) // epoch_steps * epoch_steps
    return [float(np.mean(losses[first : first + epoch_steps])) for first in range(0, whole, epoch_steps)]


def clipped(parameters: Sequence[nn.Parameter], stage: Stage, norms: list[float]) -> bool:
    """Shorten the gradient as the stage says and add its norm to ``norms``; whether it is finite.

    The largest norm is ``clip``, or the ``clip_percentile`` of all norms so far, this one included (AutoClip,
    Seetharaman et al. 2020, as Rep-MedSAM's training does).
    """
    trained = [p for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
    if not norm.isfinite():
        return False
    norms.append(float(norm))
    largest = stage.clip
    if stage.clip_percentile is not None:
        largest = float(np.percentile(norms, stage.clip_percentile))
    if largest is not None:
        torch.nn.utils.clip_grads_with_norm_(trained, largest, norm)
    return True


Tensors = tuple[Tensor, ...] | list[Tensor]


def averaged(module: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a module's weights and running statistics; starts at its first update."""
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    def update(kept: Tensors, new: Tensors, count: Tensor | int) -> None:
        if kept[0].is_floating_point():
            average(kept, new, count)
        else:  # tables of indices and counters have no average
            for mine, theirs in zip(kept, new, strict=True):
                mine.copy_(theirs)

    return AveragedModel(module, multi_avg_fn=update, use_buffers=True)


def freeze(module: nn.Module, names: Sequence[str]) -> None:
    """Hold parts of a model: no gradients, and no new running statistics."""
    for name in names:
        part = module.get_submodule(name)
        part.requires_grad_(False)
        part.eval()


def normalise(module: nn.Module, statistics: Literal["trained", "batch", "running"]) -> None:
    """Set what the batch normalisations of a module in train mode use, see the recipe's ``batch_norm``.

    A batch of few images tells a model more about each of them than running statistics will at inference; a last stage
    by running ones lets the weights adapt (Wu & Johnson 2021, Rethinking "Batch" in BatchNorm, section 3).
    """
    if statistics == "trained":
        return
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.train(statistics == "batch")


def weighted(loss: Tensor, count: int, total: float, processes: int) -> Tensor:
    """A part's mean loss, weighted so that gradients averaged over processes and summed over parts are those of the
    mean over all ``total`` items."""
    return loss * (count / total * processes)
