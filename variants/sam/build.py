"""Prompt encoder and mask decoder from the hyperparameters that all families share.

The rules for these hyperparameters, `check_sam`, and their published values, `SAM`, are in `variants.hyperparameters`,
which needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping

from variants.hyperparameters import check_sam, integer, number
from variants.registry import Hyperparameter
from variants.sam.mask_decoder import MaskDecoder
from variants.sam.prompt_encoder import PromptEncoder
from variants.sam.transformer import TwoWayTransformer


def sam_transformer(values: Mapping[str, Hyperparameter]) -> TwoWayTransformer:
    """The two-way transformer of `decoder_depth`, `embed_dim`, `decoder_heads` and `decoder_mlp_dim`."""
    return TwoWayTransformer(
        depth=integer(values, "decoder_depth"),
        dim=integer(values, "embed_dim"),
        heads=integer(values, "decoder_heads"),
        mlp_dim=integer(values, "decoder_mlp_dim"),
    )


def sam_parts(values: Mapping[str, Hyperparameter], input_size: int, grid: int) -> tuple[PromptEncoder, MaskDecoder]:
    """Prompt encoder and mask decoder with freshly drawn weights.

    Args:
        values: holds the keys of `variants.hyperparameters.SAM`.
        input_size: side of the network input in pixels, in which prompts are given.
        grid: side of the image embedding.

    Raises:
        VariantError: if the values do not fit together.
    """
    check_sam(values)
    dim = integer(values, "embed_dim")
    # The decoder first: with a seed, a family draws the weights in the order it always did.
    decoder = MaskDecoder(sam_transformer(values), dim=dim, iou_head_depth=integer(values, "iou_head_depth"))
    return PromptEncoder(dim, input_size, grid, number(values, "pe_scale")), decoder
