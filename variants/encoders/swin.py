"""Swin-LiteMedSAM's image encoder, under the published parameter names.

Liu et al., "Swin Transformer" (ICCV 2021), as changed by Gao et al., "Swin-LiteMedSAM" (section 2.2, figure 2):
TinyViT's patch embedding, grids and depths, a depthwise convolution between attention and MLP, SAM's neck.

timm's `SwinTransformerBlock` does not compute the same and cannot carry the published weights: it has no convolution
between attention and MLP; its `qkv` has a bias and its inner width is the block's; it has a table of relative positions
for each head, indexed by query minus key, where here one table serves all heads of a block, indexed by key minus query;
and its shift mask is a buffer of 0 and -100, where here two parameters of 0 and -inf are added to the last row and the
last column of windows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from variants.encoders.layers import ConvBN, Neck
from variants.encoders.tiny_vit import REDUCTION, PatchEmbed

STAGES = 4
FIRST_REDUCTION = 2
"""Network pixels a side of one pixel of the first stage; from the second stage on it is `REDUCTION`."""


class PatchMerging(nn.Module):
    """One linear layer on `factor` x `factor` neighbouring pixels: (B, C, H, W) → (B, H / factor, W / factor, D)."""

    def __init__(self, in_channels: int, out_channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.linear = nn.Linear(in_channels * factor**2, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        channels, height, width = x.shape[1:]
        side = self.factor
        split = x.reshape(-1, channels, height // side, side, width // side, side)
        # Published order of the inputs: channel, then row, then column inside the patch.
        return self.linear(split.permute(0, 2, 4, 1, 3, 5).flatten(3))  # type: ignore[no-any-return]


class WindowAttention(nn.Module):
    """Multi-head attention inside windows of (B, H, W, C), which may be shifted by half a window.

    All heads share the table of relative positions.  The masks of a shifted block keep apart what the cyclic shift has
    brought into one window from opposite edges; the published files hold them as parameters, which are never trained.
    """

    pair_index: Tensor

    def __init__(self, dim: int, heads: int, head_dim: int, window: int, shifted: bool) -> None:
        super().__init__()
        self.heads = heads
        self.head_dim = head_dim
        self.scale: float = head_dim**-0.5
        self.window = window
        self.shift = window // 2 if shifted else 0
        if shifted:
            self.upper_lower_mask, self.left_right_mask = _shift_masks(window)
        span = 2 * window - 1
        self.pos_embedding = nn.Parameter(torch.zeros(span, span))
        self.to_qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.to_out = nn.Linear(heads * head_dim, dim)
        side = torch.arange(window)
        offset = side[None, :] - side[:, None] + window - 1  # key minus query
        index = offset[:, None, :, None] * span + offset[None, :, None, :]
        self.register_buffer("pair_index", index.reshape(window**2, window**2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape; H and W are multiples of the window."""
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        side = self.window
        rows, columns = x.shape[1] // side, x.shape[2] // side
        qkv = self.to_qkv(x).reshape(-1, rows, side, columns, side, 3, self.heads, self.head_dim)
        # (query, key, value), then image, window, head, pixel, channel.
        queries, keys, values = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6).flatten(2, 3).unbind(0)
        # einsum as published: fvcore counts it to four digits, and the published figures carry that rounding.
        scores = torch.einsum("bwhqc,bwhkc->bwhqk", queries * self.scale, keys) + self._bias(rows, columns)
        attended = torch.einsum("bwhqk,bwhkc->bwhqc", scores.softmax(dim=-1), values)
        attended = attended.reshape(-1, rows, columns, self.heads, side, side, self.head_dim)
        merged = attended.permute(0, 1, 4, 2, 5, 3, 6).reshape(*x.shape[:3], self.heads * self.head_dim)
        out: Tensor = self.to_out(merged)
        return out.roll((self.shift, self.shift), (1, 2)) if self.shift else out

    def _bias(self, rows: int, columns: int) -> Tensor:
        """What is added to the scores: (w², w²), or (windows, 1, w², w²) with the shift masks in it."""
        bias = self.pos_embedding.flatten()[self.pair_index]
        if not self.shift:
            return bias
        below = torch.cat((bias.expand(rows - 1, -1, -1), (bias + self.upper_lower_mask)[None]))[:, None]
        right = torch.cat((below.expand(-1, columns - 1, -1, -1), below + self.left_right_mask), dim=1)
        return right.flatten(0, 1)[:, None]


def _shift_masks(window: int) -> tuple[nn.Parameter, nn.Parameter]:
    """0 and -inf (w², w²): -inf between upper and lower part of a window, and between its left and its right part."""
    far = torch.arange(window) >= window - window // 2
    apart = torch.zeros(window, window).masked_fill(far[:, None] != far[None, :], float("-inf"))
    upper_lower = apart.repeat_interleave(window, 0).repeat_interleave(window, 1)
    left_right = apart.repeat(window, window)
    return nn.Parameter(upper_lower, requires_grad=False), nn.Parameter(left_right, requires_grad=False)


class FeedForward(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


class PreNorm(nn.Module):
    """A module behind a layer normalisation."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(self.norm(x))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """A module beside a shortcut."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fn(x)  # type: ignore[no-any-return]


class SwinBlock(nn.Module):
    """Window attention, a depthwise 3 x 3 convolution without shortcut, an MLP (Gao et al., figure 2)."""

    def __init__(self, dim: int, heads: int, head_dim: int, window: int, shifted: bool) -> None:
        super().__init__()
        self.attention_block = Residual(PreNorm(dim, WindowAttention(dim, heads, head_dim, window, shifted)))
        self.local_conv = ConvBN(dim, dim, 3, groups=dim)
        self.mlp_block = Residual(PreNorm(dim, FeedForward(dim)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape."""
        x = self.attention_block(x)
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.mlp_block(x)  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Patch merging, then pairs of blocks: one with regular and one with shifted windows."""

    def __init__(self, downsample: PatchMerging, pairs: list[tuple[SwinBlock, SwinBlock]]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(nn.ModuleList(pair) for pair in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, D, H / factor, W / factor)."""
        x = self.downsample(x)
        for pair in self.blocks:
            assert isinstance(pair, nn.ModuleList)
            for block in pair:
                x = block(x)
        return x.permute(0, 3, 1, 2)


class Swin(nn.Module):
    """Image encoder: (B, 3, S, S) → (B, out_channels, S / 4, S / 4).

    Args:
        depths: blocks of the four stages, even numbers.
        widths: channels of the four stages; the first has the grid S / 2, the others S / 4.
        heads: attention heads of the four stages.
        head_dim: channels of a head, whatever the stage's width.
        window: side of the attention windows.
        patch_channels: channels of the patch embedding.
        patch_stride: 1 or 2.
        out_channels: channels of the embedding.
        input_size: side S in pixels.
        skips: return the outputs of the four stages as well: (embedding, stage 1, …, stage 4).
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        heads: tuple[int, ...],
        head_dim: int,
        window: int,
        patch_channels: int,
        patch_stride: int,
        out_channels: int,
        input_size: int,
        skips: bool,
    ) -> None:
        super().__init__()
        self.grid = input_size // REDUCTION
        self.skips = skips
        self.patch_embed = PatchEmbed(patch_channels, patch_stride)
        factors = (FIRST_REDUCTION // patch_stride, REDUCTION // FIRST_REDUCTION, 1, 1)
        before = patch_channels
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            pairs = [
                (
                    SwinBlock(width, heads[i], head_dim, window, shifted=False),
                    SwinBlock(width, heads[i], head_dim, window, shifted=True),
                )
                for _ in range(depth // 2)
            ]
            self.add_module(f"stage{i + 1}", Stage(PatchMerging(before, width, factors[i]), pairs))
            before = width
        self.neck = Neck(widths[-1], out_channels)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        x = self.patch_embed(x)
        outputs = []
        for i in range(STAGES):
            x = self.get_submodule(f"stage{i + 1}")(x)
            outputs.append(x)
        embedding: Tensor = self.neck(x)
        return (embedding, *outputs) if self.skips else embedding


def _initialise(module: nn.Module) -> None:
    """Swin's initialisation: linear layers from a narrow normal, no preference among positions.

    Patch merging keeps torch's own: nothing normalises behind it, and a narrow one would shrink the image each time.
    """
    if isinstance(module, WindowAttention | FeedForward):
        for linear in module.modules():
            if isinstance(linear, nn.Linear):
                nn.init.trunc_normal_(linear.weight, std=0.02)
                if linear.bias is not None:
                    nn.init.zeros_(linear.bias)
