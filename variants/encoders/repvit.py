"""RepViT as Rep-MedSAM uses it, under the published parameter names.

Wang et al., "RepViT: Revisiting Mobile CNN From ViT Perspective" (CVPR 2024), with the changes of Rep-MedSAM: stride 1
in the stem, no reduction before the last stage, and SAM's neck.

timm's `SqueezeExcite` and `RepViTBlock` compute the same as `SqueezeExcite` and a `Block` of equal channels here, and a
test holds them to it.  They are not used because importing timm would be charged to the start of every measured
process.  What begins a stage differs: timm's `RepVitDownsample` always halves the grid.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from variants.encoders.layers import ConvBN, Neck, convolution, folded

REDUCTION = 4
"""Network pixels a side of one embedding pixel; SAM's decoder upscales by the same factor."""


class RepDepthwise(nn.Module):
    """Depthwise 3 x 3 and 1 x 1 convolutions and the identity, added and normalised (RepViT, section 3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvBN(channels, channels, 3, groups=channels)
        self.conv1 = nn.Conv2d(channels, channels, 1, groups=channels)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x) + self.conv1(x) + x)  # type: ignore[no-any-return]

    def fused(self) -> nn.Conv2d:
        """The depthwise 3 x 3 convolution that computes the same in evaluation mode; see `variants.fusion`."""
        weight, bias = folded(self.conv.c.weight, None, self.conv.bn)
        assert self.conv1.bias is not None
        # The identity is a 1 x 1 convolution of ones, and a 1 x 1 convolution is the centre of a 3 x 3 one.
        weight = weight + F.pad(self.conv1.weight.double() + 1, (1, 1, 1, 1))
        return convolution(self.conv.c, *folded(weight, bias + self.conv1.bias.double(), self.bn))


class SqueezeExcite(nn.Module):
    """Every channel is scaled by a gate that sees the mean of all channels (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # A quarter of the channels, to the nearest multiple of 8.
        hidden = max(8, (channels // 4 + 4) // 8 * 8)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu())
        return x * gate.sigmoid()


class Residual(nn.Module):
    """The input is added to the outcome."""

    def __init__(self, inner: nn.Sequential) -> None:
        super().__init__()
        self.m = inner
        last = inner[-1]
        assert isinstance(last, ConvBN)
        # A fresh block starts as the identity.
        nn.init.zeros_(last.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.m(x)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Mixes positions with a depthwise convolution, then channels with two 1 x 1 convolutions.

    With stride 2 the channels change where positions are mixed.  With stride 1 they may change where channels are
    mixed, which then has no shortcut: the last stage of Rep-MedSAM begins so.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, se: bool) -> None:
        super().__init__()
        gate = SqueezeExcite(in_channels) if se else nn.Identity()
        if stride == 2:
            depthwise = ConvBN(in_channels, in_channels, 3, 2, groups=in_channels)
            self.token_mixer = nn.Sequential(depthwise, gate, ConvBN(in_channels, out_channels))
            in_channels = out_channels
        else:
            self.token_mixer = nn.Sequential(RepDepthwise(in_channels), gate)
        mixer = nn.Sequential(ConvBN(in_channels, 2 * in_channels), nn.GELU(), ConvBN(2 * in_channels, out_channels))
        self.channel_mixer = Residual(mixer) if in_channels == out_channels else mixer

    def forward(self, x: Tensor) -> Tensor:
        return self.channel_mixer(self.token_mixer(x))  # type: ignore[no-any-return]


class RepViT(nn.Module):
    """Image encoder: (B, 3, S, S) → (B, out_channels, S / 4, S / 4).

    Args:
        depths: blocks of the stages; the first block of a stage but the first brings its channels and its grid.
        widths: channels of the stages.
        se: squeeze-and-excitation in every other block of a stage, never in the last of them.
        patch_stride: 1, 2 or 4; the grid is then halved between stages until it is S / 4.
        out_channels: channels of the embedding.
        input_size: side S in pixels, a multiple of 4.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        se: bool,
        patch_stride: int,
        out_channels: int,
        input_size: int,
    ) -> None:
        super().__init__()
        self.grid = input_size // REDUCTION
        self.features = nn.Sequential(_stem(widths[0], patch_stride))
        reduced, channels = patch_stride, widths[0]
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            if stage:
                stride = 2 if reduced < REDUCTION else 1
                reduced *= stride
                self.features.append(Block(channels, width, stride, se=False))
            channels, equal = width, depth if stage == 0 else depth - 1
            for i in range(equal):
                self.features.append(Block(width, width, 1, se=se and i % 2 == 0 and i + 1 < equal))
        self.neck = Neck(channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.neck(self.features(x))  # type: ignore[no-any-return]


def _stem(channels: int, stride: int) -> nn.Sequential:
    """Two 3 x 3 convolutions; both have stride 2 in the original RepViT."""
    first, second = {1: (1, 1), 2: (2, 1), 4: (2, 2)}[stride]
    return nn.Sequential(ConvBN(3, channels // 2, 3, first), nn.GELU(), ConvBN(channels // 2, channels, 3, second))
