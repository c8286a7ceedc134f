"""Batch normalisation over the batch of all processes, on CPUs too: torch's own SyncBatchNorm needs GPUs.

Without it two processes would normalise by the statistics of half a batch each, and would not train as one does.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn import functional as differentiable


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` whose mean and variance are those of the batches of all processes together."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N,C,H,W); every process must call it at the same time in training."""
        if not self.training or self.running_mean is None or self.running_var is None:
            return super().forward(input)
        values = input.float()
        count = torch.tensor(float(values.numel() // values.shape[1]), device=values.device)
        dist.all_reduce(count)
        mean = _summed(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = _summed(centred.square().sum((0, 2, 3))) / count
        self._remember(mean.detach(), variance.detach() * (count / (count - 1)))
        normal = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.affine:
            normal = normal * self.weight[:, None, None] + self.bias[:, None, None]
        return normal.to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Running statistics as torch keeps them: the variance unbiased."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def _summed(values: Tensor) -> Tensor:
    """Sum over the processes, through which gradients flow back."""
    return cast(Tensor, differentiable.all_reduce(values))  # type: ignore[no-untyped-call]


def synchronised(module: nn.Module) -> None:
    """Make every batch normalisation of a module one over all processes, in place; names and weights stay."""
    for part in module.modules():
        if type(part) is nn.BatchNorm2d:
            part.__class__ = SynchronisedBatchNorm2d
