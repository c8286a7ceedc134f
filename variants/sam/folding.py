"""The mask decoder of Segment Anything executed with less work: the same function up to rounding.

A prompt has about seven tokens and the image 4096 positions.

*   Attention as it is written projects the whole image for every prompt; but ``(x W) k`` is ``x (W k)``, so each
    projection can be applied to the tokens instead, with less than half of the transformer's multiply-adds.
*   A transposed convolution whose stride is its size does not mix positions: in the transformer's own layout, positions
    before channels, upscaling is matrix products and a normalisation of the last axis.  Only finished logits are put
    in the order of the pixels, and only the masks that are asked for are computed.

What is counted and published is the model as written; folding is a way of executing it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from variants.errors import VariantError
from variants.sam.layers import LayerNorm2d
from variants.sam.mask_decoder import MaskDecoder
from variants.sam.transformer import Attention, TwoWayBlock, TwoWayTransformer


class TokensToImage(nn.Module):
    """Attention of tokens (queries) to the image (keys and values); computes what ``attention`` computes."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        heads, dim = attention.heads, attention.k_proj.in_features
        inner = attention.k_proj.out_features // heads
        self.q_proj, self.out_proj = attention.q_proj, attention.out_proj
        # The bias of the keys adds the same to every score of a query, which the softmax takes away again.
        self.key = nn.Parameter(attention.k_proj.weight.detach().reshape(heads, inner, dim) / math.sqrt(inner))
        self.value = nn.Parameter(attention.v_proj.weight.detach().reshape(heads, inner, dim).transpose(1, 2).clone())
        self.value_bias = nn.Parameter(attention.v_proj.bias.detach().clone())

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Tokens (N, T, dim), image (N|1, L, dim) twice → (N, T, dim)."""
        count, tokens, dim = q.shape
        heads, inner, _ = self.key.shape
        queries = self.q_proj(q).reshape(count, tokens, heads, inner).transpose(1, 2)
        scores = (queries @ self.key).reshape(count, heads * tokens, dim) @ k.transpose(1, 2)
        attended = (scores.softmax(dim=-1) @ v).reshape(count, heads, tokens, dim) @ self.value
        merged = attended.transpose(1, 2).flatten(2) + self.value_bias
        return self.out_proj(merged)  # type: ignore[no-any-return]


class ImageToTokens(nn.Module):
    """Attention of the image (queries) to tokens (keys and values); computes what ``attention`` computes."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        heads, dim = attention.heads, attention.q_proj.in_features
        inner = attention.q_proj.out_features // heads
        scale = 1 / math.sqrt(inner)
        self.k_proj, self.v_proj = attention.k_proj, attention.v_proj
        self.query = nn.Parameter(attention.q_proj.weight.detach().reshape(heads, inner, dim) * scale)
        self.query_bias = nn.Parameter(attention.q_proj.bias.detach().reshape(heads, inner, 1) * scale)
        out = attention.out_proj.weight.detach()
        self.out = nn.Parameter(out.reshape(out.shape[0], heads, inner).permute(1, 2, 0).clone())
        self.out_bias = nn.Parameter(attention.out_proj.bias.detach().clone())

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Image (N|1, L, dim), tokens (N, T, dim) twice → (N, L, dim)."""
        count, tokens, dim = k.shape
        heads, inner, _ = self.query.shape
        keys, values = (
            p(x).reshape(count, tokens, heads, inner).transpose(1, 2) for p, x in ((self.k_proj, k), (self.v_proj, v))
        )
        bias = (keys @ self.query_bias).reshape(count, 1, heads * tokens)
        scores = q @ (keys @ self.query).reshape(count, heads * tokens, dim).transpose(1, 2) + bias
        weights = scores.reshape(count, -1, heads, tokens).softmax(dim=-1).flatten(2)
        attended: Tensor = weights @ (values @ self.out).reshape(count, heads * tokens, dim) + self.out_bias
        return attended


class Doubling(nn.Module):
    """A transposed convolution of size and stride 2 as a linear layer; computes what ``convolution`` computes."""

    def __init__(self, convolution: nn.ConvTranspose2d) -> None:
        super().__init__()
        assert convolution.kernel_size == convolution.stride == (2, 2)
        assert convolution.bias is not None
        weight = convolution.weight.detach()
        self.weight = nn.Parameter(weight.permute(2, 3, 1, 0).flatten(0, 2).clone())
        self.bias = nn.Parameter(convolution.bias.detach().repeat(4))
        self.channels = weight.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, C) → (N, 4 L, channels): the four pixels of each position, row by row."""
        return nn.functional.linear(x, self.weight, self.bias).reshape(x.shape[0], -1, self.channels)


class FlatMaskDecoder(MaskDecoder):
    """SAM's mask decoder with its upscaling in the transformer's layout; made from one by ``fold_decoder``."""

    def _masks(
        self,
        flat: Tensor,
        tokens: Tensor,
        chosen: slice,
        image: Tensor,
        skips: Sequence[Tensor],
        image_index: Tensor | None,
    ) -> Tensor:
        height, width = image.shape[-2:]
        weights = self._hypernetworks(tokens, chosen)
        logits = weights @ self.get_submodule("output_upscaling")(flat).transpose(1, 2)
        # Positions are in the order row, column, then row and column within them, twice.
        blocks = logits.reshape(-1, width, 2, 2, 2, 2).permute(0, 2, 4, 1, 3, 5)
        masks: Tensor = blocks.reshape(-1, weights.shape[1], 4 * height, 4 * width)
        return masks


def flat_upscaling(upscaling: Any) -> nn.Sequential:
    """SAM's upscaling for (N, L, C) → (N, 16 L, C / 8); computes what ``upscaling`` computes on (N, C, g, g)."""
    first, norm, activation, second, last = upscaling
    assert isinstance(norm, LayerNorm2d)
    flat_norm = nn.LayerNorm(len(norm.weight), eps=norm.eps)
    with torch.no_grad():
        flat_norm.weight.copy_(norm.weight)
        flat_norm.bias.copy_(norm.bias)
    return nn.Sequential(Doubling(first), flat_norm, activation, Doubling(second), last)


def fold_decoder(model: Any) -> Any:
    """A model whose mask decoder computes with less work; the given model stays as it is.

    Attention is folded in every family; the upscaling of a decoder with skip connections stays as it is.

    Everything but the mask decoder is shared by the two: an encoder is not kept twice in a measured process.

    Raises:
        VariantError: the model has no mask decoder of Segment Anything.
    """
    transformer = getattr(getattr(model, "mask_decoder", None), "transformer", None)
    if not isinstance(transformer, TwoWayTransformer):
        raise VariantError(f"{type(model).__name__} has no attention between tokens and image to fold")
    folded = copy.copy(model)
    folded._modules = dict(model._modules)
    folded.mask_decoder = copy.deepcopy(model.mask_decoder)
    transformer = folded.mask_decoder.transformer
    for block in transformer.layers:
        assert isinstance(block, TwoWayBlock)
        block.cross_attn_token_to_image = TokensToImage(block.cross_attn_token_to_image)  # type: ignore[assignment]
        block.cross_attn_image_to_token = ImageToTokens(block.cross_attn_image_to_token)  # type: ignore[assignment]
    transformer.final_attn_token_to_image = TokensToImage(transformer.final_attn_token_to_image)
    if type(folded.mask_decoder) is MaskDecoder:
        folded.mask_decoder.output_upscaling = flat_upscaling(folded.mask_decoder.output_upscaling)
        folded.mask_decoder.__class__ = FlatMaskDecoder
    return folded
