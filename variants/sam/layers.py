"""Small layers of Segment Anything (Kirillov et al. 2023, appendix A)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of (B, C, H, W), at every pixel."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        variance = centred.pow(2).mean(1, keepdim=True)
        return centred / torch.sqrt(variance + self.eps) * self.weight[:, None, None] + self.bias[:, None, None]


class Token(nn.Embedding):
    """One or more learned vectors of `dim`; they start small beside the positional encodings they are added to."""

    def __init__(self, dim: int, count: int = 1) -> None:
        super().__init__(count, dim)
        nn.init.normal_(self.weight, std=0.2)


class NeverRun(nn.Module):
    """Parameters that a published file holds and no computation reaches; counted by `SamModel.unused_parameters`."""


def of_prompts(per_image: Tensor, image_index: Tensor | None, count: int) -> Tensor:
    """(B, ...) → (N, ...): what belongs to the image of each of `count` prompts; no index: image 0 for all of them."""
    if image_index is None:
        return per_image[:1].expand(count, *per_image.shape[1:])
    return per_image.index_select(0, image_index)


class MLP(nn.Module):
    """`depth` linear layers with ReLU between them."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, depth: int) -> None:
        super().__init__()
        widths = [in_dim, *[hidden_dim] * (depth - 1), out_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)  # type: ignore[no-any-return]
