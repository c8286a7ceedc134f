"""Judging a model on the cases that training does not see."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from harness.training.samples import Batch
from harness.training.tasks import Move, Task, dsc


def judge(
    task: Task,
    module: nn.Module,
    batches: Iterable[Batch],
    move: Move,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> tuple[float, float | None]:
    """Mean loss and mean DSC of a task's module over batches, in evaluation mode; no DSC where there are no masks.

    Args:
        module: the task's, or one of the same structure with averaged weights; left in evaluation mode.
    """
    module.eval()
    losses, counts, scores = list[float](), list[int](), list[Tensor]()
    seen: list[Tensor] = []

    def remembering(*given: Any) -> Any:
        with autocast():
            out = module(*given)
        seen[:] = [out[0]] if isinstance(out, tuple) else []
        return out

    with torch.no_grad():
        for batch in batches:
            terms = task.terms(remembering, batch, move)
            losses.append(float(terms.total) * terms.count)
            counts.append(terms.count)
            scores += [dsc(logits, move(batch.masks)) for logits in seen]
    total = sum(counts)
    return sum(losses) / total, float(torch.cat(scores).mean()) if scores else None
