"""Blocks that several image encoders share, and the folding of batch normalisation into a convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from variants.sam.layers import LayerNorm2d


def folded(weight: Tensor, bias: Tensor | None, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias, in float64, of the convolution that computes what convolution and `bn` compute in evaluation.

    Args:
        weight: of the convolution, (out, in / groups, k, k).
        bias: of the convolution, (out,), or none.
        bn: the batch normalisation behind it.
    """
    assert bn.running_mean is not None
    assert bn.running_var is not None
    scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
    start = -bn.running_mean.double() if bias is None else bias.double() - bn.running_mean.double()
    return weight.double() * scale[:, None, None, None], start * scale + bn.bias.double()


def convolution(like: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution of the geometry, type, device and mode of `like`, with this weight and bias."""
    # Without initialisation: it would draw weights that are overwritten, and so move the global random state.
    made: nn.Conv2d = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Conv2d,
        like.in_channels,
        like.out_channels,
        like.kernel_size,
        like.stride,
        like.padding,
        like.dilation,
        like.groups,
        device=like.weight.device,
        dtype=like.weight.dtype,
    )
    assert made.bias is not None
    with torch.no_grad():
        made.weight.copy_(weight)
        made.bias.copy_(bias)
    made.train(like.training)
    return made


def fold(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution with bias that computes `bn(conv(x))` of evaluation mode."""
    return convolution(conv, *folded(conv.weight, conv.bias, bn))


class ConvBN(nn.Module):
    """Convolution without bias and batch normalisation, under the names that TinyViT and RepViT publish."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.c(x))  # type: ignore[no-any-return]

    def fused(self) -> nn.Conv2d:
        """The convolution that computes the same in evaluation mode; see `variants.fusion`."""
        return fold(self.c, self.bn)


class Neck(nn.Sequential):
    """SAM's neck, from an encoder's channels to those of the embedding (Kirillov et al. 2023, appendix A)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            LayerNorm2d(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            LayerNorm2d(out_channels),
        )
