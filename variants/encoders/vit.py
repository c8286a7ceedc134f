"""The vision transformer of Segment Anything, under the published parameter names.

Kirillov et al. 2023, appendix A: ViT (Dosovitskiy et al., ICLR 2021) with attention in windows, global in a few blocks,
and relative positions decomposed into rows and columns (Li et al., "Exploring Plain Vision Transformer Backbones for
Object Detection", ECCV 2022; Li et al., "MViTv2", CVPR 2022).

timm's `vision_transformer_sam.Block` computes the same as `Block` here, under other names, and a test holds them to it.
It is not used because importing timm would be charged to the start of every measured process, and because it holds the
scores of all heads at once: several tensors of 0.8 GB in a global block of the published size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from variants.encoders.layers import Neck

EPS = 1e-6


class PatchEmbed(nn.Module):
    """One linear projection a patch: (B, 3, S, S) → (B, S / patch, S / patch, dim)."""

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).permute(0, 2, 3, 1)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Multi-head attention over a square, with scores that depend on the row and the column distance.

    Args:
        dim: channels.
        heads: attention heads.
        side: of the square, in tokens.
        heads_at_once: heads whose scores, side ** 4 values each, are in memory together.
    """

    offset: Tensor

    def __init__(self, dim: int, heads: int, side: int, heads_at_once: int) -> None:
        super().__init__()
        self.heads = heads
        self.side = side
        self.heads_at_once = heads_at_once
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, dim // heads))
        steps = torch.arange(side)
        self.register_buffer("offset", steps[:, None] - steps[None, :] + side - 1, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, side, side, dim) → the same shape; a smaller square takes the distances that it has."""
        qkv: Tensor = self.qkv(x.flatten(1, 2))
        # (B, tokens, 3, heads, dim / heads) → three of (B, heads, tokens, dim / heads).
        parts = qkv.reshape(*qkv.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        offset = self.offset if x.shape[1] == self.side else self.offset[: x.shape[1], : x.shape[1]]
        rows, columns = self.rel_pos_h[offset], self.rel_pos_w[offset]
        some = range(0, self.heads, self.heads_at_once)
        groups = ([part[:, first : first + self.heads_at_once] for part in parts] for first in some)
        attended = torch.cat([self._attend(q, k, v, rows, columns) for q, k, v in groups], dim=1)
        return self.proj(attended.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Some heads (B, h, tokens, d) → the same shape; rows and columns: (side, side, d), query by key."""
        square = (rows.shape[0], rows.shape[0])
        placed = queries.reshape(*queries.shape[:2], *square, -1)
        by_row = torch.einsum("bnhwd,hkd->bnhwk", placed, rows)
        by_column = torch.einsum("bnhwd,wkd->bnhwk", placed, columns)
        # Matrix products, not the fused operator: FLOP counters see them.
        scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(2, 3)
        # In place: over 4096 tokens every further tensor of scores is 67 MB a head.
        scores.view(*scores.shape[:2], *square, *square).add_(by_row[..., None]).add_(by_column[..., None, :])
        attended: Tensor = scores.softmax(dim=-1) @ values
        return attended


class BlockMLP(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, 4 * dim)
        self.lin2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(F.gelu(self.lin1(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and MLP, each behind a normalisation and beside a shortcut.

    Args:
        dim: channels.
        heads: attention heads.
        grid: side of the image in tokens.
        window: side of the attention's windows; 0: one attention over the image.
    """

    def __init__(self, dim: int, heads: int, grid: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        # Windows are few tokens each; over the whole image one head's scores are large enough to keep cores busy.
        self.attn = Attention(dim, heads, window or grid, heads_at_once=heads if window else 1)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = BlockMLP(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) → the same shape."""
        normed = self.norm1(x)
        x = x + (self._in_windows(normed) if self.window else self.attn(normed))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]

    def _in_windows(self, x: Tensor) -> Tensor:
        """Attention in windows; zero padding to whole windows takes part, as published."""
        batch, height, width, channels = x.shape
        side = self.window
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        windows = x.reshape(batch, rows, side, columns, side, channels).transpose(2, 3)
        attended: Tensor = self.attn(windows.reshape(-1, side, side, channels))
        x = attended.reshape(batch, rows, columns, side, side, channels).transpose(2, 3)
        return x.reshape(batch, rows * side, columns * side, channels)[:, :height, :width]


class ViT(nn.Module):
    """Image encoder: (B, 3, S, S) → (B, out_channels, S / patch, S / patch).

    Args:
        depth: number of blocks.
        width: their channels.
        heads: attention heads.
        window: side of the attention's windows in tokens.
        global_blocks: numbers, from 0, of the blocks whose attention is over the whole image.
        patch: side of a token in pixels.
        out_channels: channels of the embedding.
        input_size: side S in pixels, a multiple of `patch`.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        heads: int,
        window: int,
        global_blocks: tuple[int, ...],
        patch: int,
        out_channels: int,
        input_size: int,
    ) -> None:
        super().__init__()
        self.grid = input_size // patch
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid, self.grid, width))
        self.patch_embed = PatchEmbed(width, patch)
        self.blocks = nn.ModuleList(
            Block(width, heads, self.grid, window=0 if i in global_blocks else window) for i in range(depth)
        )
        self.neck = Neck(width, out_channels)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        x = x + (self.pos_embed if x.shape[1] == self.grid else _resampled(self.pos_embed, x.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))  # type: ignore[no-any-return]


def _resampled(positions: Tensor, side: int) -> Tensor:
    """Position embeddings (1, g, g, C) on a grid of another side, bicubic (Dosovitskiy et al. 2021, section 3.2)."""
    smaller = F.interpolate(positions.permute(0, 3, 1, 2), (side, side), mode="bicubic", align_corners=False)
    return smaller.permute(0, 2, 3, 1)


def _initialise(module: nn.Module) -> None:
    """ViT's initialisation: linear layers from a narrow normal, no bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
