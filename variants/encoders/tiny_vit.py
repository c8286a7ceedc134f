"""TinyViT as LiteMedSAM uses it, under the published parameter names.

Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers" (ECCV 2022), with the changes
of LiteMedSAM: stride 1 in the patch embedding, no reduction before the last stage, and SAM's neck.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from variants.encoders.layers import ConvBN, Neck

REDUCTION = 4
"""Network pixels a side of one embedding pixel; SAM's decoder upscales by the same factor."""


class PatchEmbed(nn.Module):
    """Two convolutions: 1 x 1 where the stride is 1, as published, 3 x 3 where it is 2, as in the original TinyViT."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        first, second = {1: (1, 1), 2: (2, 1), 4: (2, 2)}[stride]
        self.seq = nn.Sequential(
            ConvBN(3, channels // 2, 2 * first - 1, first),
            nn.GELU(),
            ConvBN(channels // 2, channels, 2 * second - 1, second),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.seq(x)  # type: ignore[no-any-return]


class MBConv(nn.Module):
    """Inverted residual block with expansion 4; the shortcut is added before the last GELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 4 * channels
        self.conv1 = ConvBN(channels, hidden)
        self.conv2 = ConvBN(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvBN(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(x + self.conv3(hidden))


class PatchMerging(nn.Module):
    """To the next stage's channels, and with stride 2 to half the grid."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvBN(in_channels, out_channels)
        self.conv2 = ConvBN(out_channels, out_channels, 3, stride, groups=out_channels)
        self.conv3 = ConvBN(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))  # type: ignore[no-any-return]


class WindowAttention(nn.Module):
    """Multi-head attention inside a window, with a learned bias for every |dy|, |dx|."""

    bias_index: Tensor

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        side = torch.arange(window)
        distance = (side[:, None] - side[None, :]).abs()
        index = distance[:, None, :, None] * window + distance[None, :, None, :]
        self.register_buffer("bias_index", index.reshape(window**2, window**2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(windows, tokens, dim) → the same shape."""
        qkv: Tensor = self.qkv(self.norm(x))
        # Published layout: for each head its query, key and value side by side.
        queries, keys, values = qkv.reshape(*x.shape[:2], self.heads, 3, -1).permute(3, 0, 2, 1, 4).unbind(0)
        # The bias table is looked up at every call: a table kept from an earlier state of the weights would be wrong.
        scores = queries * queries.shape[-1] ** -0.5 @ keys.transpose(2, 3) + self.attention_biases[:, self.bias_index]
        attended = scores.softmax(dim=-1) @ values
        return self.proj(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class BlockMLP(nn.Module):
    """Normalisation and two linear layers with GELU between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))  # type: ignore[no-any-return]


class AttentionBlock(nn.Module):
    """Window attention, a depthwise 3 x 3 convolution without shortcut, an MLP."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(dim, heads, window)
        self.mlp = BlockMLP(dim)
        self.local_conv = ConvBN(dim, dim, 3, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        grid = x.permute(0, 2, 3, 1)
        # Tokens as a flat list: a backend then takes the two permutations for what they are, two names of one layout
        # of memory, and copies nothing.  On four axes it carries the layout of convolutions into the linear layers.
        tokens = grid.flatten(1, 2)
        tokens = tokens + self._attend(tokens.reshape(grid.shape)).flatten(1, 2)
        tokens = self.local_conv(tokens.reshape(grid.shape).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(1, 2)
        refined: Tensor = tokens + self.mlp(tokens)
        return refined.reshape(grid.shape).permute(0, 3, 1, 2)

    def _attend(self, x: Tensor) -> Tensor:
        """Attention of (B, H, W, C) in windows; zero padding to whole windows takes part, as published."""
        batch, height, width, channels = x.shape
        side = self.window
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        windows = x.reshape(batch, rows, side, columns, side, channels).transpose(2, 3)
        attended: Tensor = self.attn(windows.reshape(-1, side * side, channels))
        x = attended.reshape(batch, rows, columns, side, side, channels).transpose(2, 3)
        return x.reshape(batch, rows * side, columns * side, channels)[:, :height, :width]


class Stage(nn.Module):
    """Blocks, then the reduction to the next stage if there is one."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class TinyViT(nn.Module):
    """Image encoder: (B, 3, S, S) → (B, out_channels, S / 4, S / 4).

    Args:
        depths: blocks of the four stages; the first is convolutional, the others have window attention.
        widths: channels of the four stages.
        heads: attention heads of stages 2 to 4.
        windows: window sides of stages 2 to 4.
        patch_stride: 1, 2 or 4; the grid is then halved between stages until it is S / 4.
        out_channels: channels of the embedding.
        input_size: side S in pixels, a multiple of 4.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        heads: tuple[int, ...],
        windows: tuple[int, ...],
        patch_stride: int,
        out_channels: int,
        input_size: int,
    ) -> None:
        super().__init__()
        self.grid = input_size // REDUCTION
        self.patch_embed = PatchEmbed(widths[0], patch_stride)
        self.layers = nn.ModuleList()
        reduced = patch_stride
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks: list[nn.Module] = [
                MBConv(width) if i == 0 else AttentionBlock(width, heads[i - 1], windows[i - 1]) for _ in range(depth)
            ]
            downsample = None
            if i + 1 < len(depths):
                stride = 2 if reduced < REDUCTION else 1
                reduced *= stride
                downsample = PatchMerging(width, widths[i + 1], stride)
            self.layers.append(Stage(blocks, downsample))
        self.neck = Neck(widths[-1], out_channels)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.neck(x)  # type: ignore[no-any-return]


def _initialise(module: nn.Module) -> None:
    """TinyViT's initialisation: linear layers from a narrow normal, inverted residual blocks as the identity."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, MBConv):
        nn.init.zeros_(module.conv3.bn.weight)
