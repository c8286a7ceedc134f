"""EfficientViT-SAM-L0's image encoder, under the published parameter names.

Cai et al., "EfficientViT: Multi-Scale Linear Attention for High-Resolution Dense Prediction" (ICCV 2023): blocks and
large backbones; Zhang et al., "EfficientViT-SAM" (CVPR 2024 workshops): the neck that joins three stages.  The GELU is
the tanh approximation everywhere, and every normalisation, batch normalisation included, has eps 1e-6, as published.

timm's `efficientvit_mit` computes the same backbone: with equal weights `EfficientVitLarge` of these widths and depths
gives these stages, as a test asserts; its own epsilons, 1e-5 and 1e-7, are too near to matter.  It is not used here: it
has no neck, other names and fixed expansions, and a measured process imports no timm.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from variants.encoders.layers import fold
from variants.sam.layers import LayerNorm2d

GRID = 64
"""Side of the embedding, whatever the input's size: the neck resizes to it."""
REDUCTION = 32
"""Network pixels a side of one pixel of the last stage."""
EPS = 1e-6
ATTENTION_EPS = 1e-15


class ConvLayer(nn.Module):
    """A convolution, then GELU if `act`."""

    def __init__(self, convolution: nn.Conv2d, act: bool = False) -> None:
        super().__init__()
        self.conv = convolution
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self._activate(self.conv(x))

    def _activate(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh") if self.act else x


class ConvNormLayer(ConvLayer):
    """A convolution, batch normalisation, then GELU if `act`."""

    def __init__(self, convolution: nn.Conv2d, act: bool = False) -> None:
        super().__init__(convolution, act)
        self.norm = nn.BatchNorm2d(convolution.out_channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self._activate(self.norm(self.conv(x)))

    def fused(self) -> ConvLayer:
        """The layer without normalisation that computes the same in evaluation mode; see `variants.fusion`."""
        return ConvLayer(fold(self.conv, self.norm), self.act).train(self.training)


def conv(
    in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """A convolution that keeps the grid, or divides its side by the stride."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=bias)


class Residual(nn.Module):
    """`main`, with its input added if `shortcut`."""

    def __init__(self, main: nn.Module, shortcut: bool = True) -> None:
        super().__init__()
        self.main = main
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.main(x)
        return x + out if self.shortcut else out


class ResBlock(nn.Module):
    """Two 3 x 3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNormLayer(conv(channels, channels, 3), act=True)
        self.conv2 = ConvNormLayer(conv(channels, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))  # type: ignore[no-any-return]


class FusedMBConv(nn.Module):
    """A 3 x 3 convolution that widens, a 1 x 1 convolution that narrows."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.spatial_conv = ConvNormLayer(conv(in_channels, hidden, 3, stride), act=True)
        self.point_conv = ConvNormLayer(conv(hidden, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.point_conv(self.spatial_conv(x))  # type: ignore[no-any-return]


class MBConv(nn.Module):
    """1 x 1 convolution that widens, depthwise 3 x 3, 1 x 1 that narrows; only the last one is normalised."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.inverted_conv = ConvLayer(conv(in_channels, hidden, bias=True), act=True)
        self.depth_conv = ConvLayer(conv(hidden, hidden, 3, stride, groups=hidden, bias=True), act=True)
        self.point_conv = ConvNormLayer(conv(hidden, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.point_conv(self.depth_conv(self.inverted_conv(x)))  # type: ignore[no-any-return]


class LinearAttention(nn.Module):
    """Multi-scale ReLU linear attention (Cai et al., section 3.1): linear in the number of pixels.

    Queries, keys and values of every pixel, and a second set aggregated over 5 x 5 pixels, go through
    relu(Q) (relu(K)ᵀ V) / (relu(Q) Σ relu(K)), head by head.

    Args:
        channels: a multiple of `head_dim`.
        head_dim: width of one head.
        window: side of the aggregation.
    """

    def __init__(self, channels: int, head_dim: int, window: int = 5) -> None:
        super().__init__()
        self.head_dim = head_dim
        triple = 3 * channels
        self.qkv = ConvLayer(conv(channels, triple))
        depthwise = conv(triple, triple, window, groups=triple)
        per_head = conv(triple, triple, groups=triple // head_dim)
        self.aggreg = nn.ModuleList([nn.Sequential(depthwise, per_head)])
        self.proj = ConvNormLayer(conv(2 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        batch, _, height, width = x.shape
        scales = [self.qkv(x)]
        scales += [aggregate(scales[0]) for aggregate in self.aggreg]
        # Published layout: for each head its query, key and value side by side, first of one scale, then of the other.
        heads = torch.cat(scales, dim=1).reshape(batch, -1, 3 * self.head_dim, height * width)
        if torch.is_autocast_enabled(x.device.type):
            # Sums over all pixels, and a quotient of two of them: half precision would not do.
            with torch.autocast(x.device.type, enabled=False):
                attended = self._attend(heads.float()).to(heads.dtype)
        else:
            attended = self._attend(heads.float()).to(heads.dtype)
        return self.proj(attended.reshape(batch, -1, height, width))  # type: ignore[no-any-return]

    def _attend(self, heads: Tensor) -> Tensor:
        """(B, heads, 3 head_dim, pixels) → (B, heads, head_dim, pixels)."""
        queries, keys, values = heads.chunk(3, dim=2)
        # A further value of 1 makes the denominator in the same products.
        values = F.pad(values, (0, 0, 0, 1), value=1.0)
        summed: Tensor = values @ keys.relu().transpose(2, 3) @ queries.relu()
        return summed[:, :, :-1] / (summed[:, :, -1:] + ATTENTION_EPS)


class EfficientViTBlock(nn.Module):
    """Linear attention over the whole image, then an MBConv for what is near; each with a shortcut."""

    def __init__(self, channels: int, head_dim: int, expansion: int) -> None:
        super().__init__()
        self.context_module = Residual(LinearAttention(channels, head_dim))
        self.local_module = Residual(MBConv(channels, channels, 1, expansion))

    def forward(self, x: Tensor) -> Tensor:
        return self.local_module(self.context_module(x))  # type: ignore[no-any-return]


class Operations(nn.Module):
    """One module after another."""

    def __init__(self, *operations: nn.Module) -> None:
        super().__init__()
        self.op_list = nn.ModuleList(operations)

    def forward(self, x: Tensor) -> Tensor:
        for operation in self.op_list:
            x = operation(x)
        return x


class Backbone(nn.Module):
    """Stages of side S/2, S/4, S/8, S/16 and S/32; gives the outputs of the last three.

    Args:
        widths: channels of the stem and of the four stages.
        depths: residual blocks of the stem, and of the stages behind the block that halves the grid.
        stride_expansions: of the four stages' halving blocks.
        expansions: of the four stages' residual blocks.
        head_dim: width of the last stage's attention heads.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        stride_expansions: tuple[int, ...],
        expansions: tuple[int, ...],
        head_dim: int,
    ) -> None:
        super().__init__()
        stem = ConvNormLayer(conv(3, widths[0], 3, 2), act=True)
        self.stages = nn.ModuleList([Operations(stem, *(Residual(ResBlock(widths[0])) for _ in range(depths[0])))])
        for i in range(1, len(widths)):
            block: type[FusedMBConv | MBConv] = FusedMBConv if i < 3 else MBConv
            width, expansion = widths[i], expansions[i - 1]
            halving = Residual(block(widths[i - 1], width, 2, stride_expansions[i - 1]), shortcut=False)
            blocks = [
                Residual(block(width, width, 1, expansion)) if i < 4 else EfficientViTBlock(width, head_dim, expansion)
                for _ in range(depths[i])
            ]
            self.stages.append(Operations(halving, *blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs[-3:]


class Neck(nn.Module):
    """Three stages to one grid, summed, then residual blocks and a last convolution.

    Args:
        widths: channels of the stages, the last stage first.
        channels: of the result.
        depth: number of residual blocks.
    """

    def __init__(self, widths: tuple[int, ...], channels: int, depth: int) -> None:
        super().__init__()
        self.input_ops = nn.ModuleList(Operations(ConvNormLayer(conv(width, channels))) for width in widths)
        self.middle = Operations(*(Residual(FusedMBConv(channels, channels, 1, 1)) for _ in range(depth)))
        self.output_ops = nn.ModuleList([Operations(ConvLayer(conv(channels, channels, bias=True)))])

    def forward(self, stages: list[Tensor], grid: int) -> Tensor:
        """Stages, the last one first → (B, channels, grid, grid)."""
        inputs = []
        for stage, operation in zip(stages, self.input_ops, strict=True):
            x = operation(stage)
            same = x.shape[-1] == grid
            inputs.append(x if same else F.interpolate(x, (grid, grid), mode="bicubic", align_corners=False))
        x = self.middle(inputs[0] + inputs[1] + inputs[2])
        return self.output_ops[0](x)  # type: ignore[no-any-return]


class EfficientViT(nn.Module):
    """Image encoder: (B, 3, S, S) → (B, out_channels, 64, 64).

    Args:
        backbone: the stages.
        widths: channels of the backbone's last three stages, in their order.
        neck_depth: residual blocks of the neck.
        out_channels: channels of the embedding.
        input_size: side S in pixels, a multiple of 32.
    """

    def __init__(
        self, backbone: Backbone, widths: tuple[int, ...], neck_depth: int, out_channels: int, input_size: int
    ) -> None:
        super().__init__()
        self.grid = GRID
        self.input_size = input_size
        self.backbone = backbone
        self.neck = Neck(widths[::-1], out_channels, neck_depth)
        self.norm = LayerNorm2d(out_channels, EPS)

    def forward(self, x: Tensor) -> Tensor:
        stages = self.backbone(x)
        return self.norm(self.neck(stages[::-1], self.grid * x.shape[-1] // self.input_size))  # type: ignore[no-any-return]
