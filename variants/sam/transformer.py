"""The two-way transformer of the mask decoder (Kirillov et al. 2023, appendix A, figure 14)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention whose inner width is `dim / downsample`.

    Queries and keys start with the same projection: a fresh decoder then attends to what is alike, which for positions
    means near.  With independent projections training from scratch stays on a plateau for hundreds of steps.
    """

    def __init__(self, dim: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        inner = dim // downsample
        self.heads = heads
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)
        nn.init.orthogonal_(self.q_proj.weight, gain=2.0)
        with torch.no_grad():
            self.k_proj.weight.copy_(self.q_proj.weight)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (N|1, Q, dim), keys and values (N|1, K, dim) → (N, Q, dim)."""
        queries, keys, values = (self._split(p(x)) for p, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v)))
        # Matrix products, not the fused operator: FLOP counters see them.
        scores = queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[-1])
        attended = scores.softmax(dim=-1) @ values
        return self.out_proj(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        """(N, L, inner) → (N, heads, L, inner / heads)."""
        return x.reshape(*x.shape[:2], self.heads, x.shape[2] // self.heads).transpose(1, 2)


class TransformerMLP(nn.Module):
    """Two linear layers with ReLU between them."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden_dim)
        self.lin2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.lin1(x).relu())  # type: ignore[no-any-return]


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves, tokens to the image, an MLP on the tokens, then the image to the tokens."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, first: bool) -> None:
        super().__init__()
        self.self_attn = Attention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, heads, downsample=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = TransformerMLP(dim, mlp_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, heads, downsample=2)
        self.first = first

    def forward(self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        if self.first:
            # Here the tokens are their own positional encoding, and the published models have no residual.
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            placed = tokens + token_pe
            tokens = tokens + self.self_attn(placed, placed, tokens)
        tokens = self.norm1(tokens)
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, image + image_pe, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(image + image_pe, tokens + token_pe, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """`depth` two-way blocks and a last attention of the tokens to the image.

    Args:
        depth: number of blocks.
        dim: channels of tokens and image embedding.
        heads: attention heads.
        mlp_dim: hidden width of the blocks' MLP.
    """

    def __init__(self, depth: int, dim: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(dim, heads, mlp_dim, first=i == 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(dim, heads, downsample=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, image: Tensor, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and image after the last block.

        Args:
            image: (N, C, g, g), or (1, C, g, g) for all prompts.
            image_pe: (1, C, g, g), its positional encoding.
            tokens: (N, T, C).

        Returns:
            Tokens (N, T, C) and image (N, g * g, C).
        """
        flat, flat_pe = (x.flatten(2).transpose(1, 2) for x in (image, image_pe))
        token_pe = tokens
        for layer in self.layers:
            tokens, flat = layer(tokens, flat, token_pe, flat_pe)
        tokens = tokens + self.final_attn_token_to_image(tokens + token_pe, flat + flat_pe, flat)
        return self.norm_final_attn(tokens), flat
