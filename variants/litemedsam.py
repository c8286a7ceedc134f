"""LiteMedSAM and its family: TinyViT image encoder, SAM prompt encoder and mask decoder.

Torch-free: specifications, and the factory that builds a model from one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from variants.errors import VariantError
from variants.hyperparameters import check_one_of, check_positive, check_sam, integer, integers
from variants.registry import Hyperparameter, Registry, VariantSpec

if TYPE_CHECKING:
    from variants.sam.model import SamModel

FAMILY = "litemedsam"

LITEMEDSAM: dict[str, Hyperparameter] = {
    # SwiftMedSAM, Table 1, in its order.
    "depths": (2, 2, 6, 2),
    "decoder_depth": 2,
    "decoder_mlp_dim": 2048,
    "decoder_heads": 8,
    "iou_head_depth": 3,
    # Fixed in the published models.
    "widths": (64, 128, 160, 320),
    "encoder_heads": (4, 5, 10),
    "windows": (7, 14, 7),
    "patch_stride": 1,
    "embed_dim": 256,
    "pe_scale": 1.0,
}
"""Hyperparameters of the family.

depths: blocks of the encoder's four stages; widths: their channels; encoder_heads, windows: attention heads and window
side of stages 2 to 4 (the first stage is convolutional); patch_stride: network pixels a side of a first-stage pixel;
embed_dim: channels of the embedding and the decoder; pe_scale: frequencies of a fresh positional encoding, where lower
ones make a box easier to learn from scratch (loaded weights bring their own); the rest: see `variants.sam`.
"""

TINY: dict[str, Hyperparameter] = {
    "depths": (1, 1, 1, 1),
    "decoder_depth": 2,
    "decoder_mlp_dim": 128,
    "decoder_heads": 4,
    "iou_head_depth": 2,
    "widths": (16, 32, 48, 64),
    "encoder_heads": (2, 3, 4),
    "windows": (7, 14, 7),
    "patch_stride": 2,
    "embed_dim": 64,
    "pe_scale": 0.2,
}


def check(hyperparameters: Mapping[str, Hyperparameter]) -> None:
    """Raise `VariantError` where the hyperparameters of the family do not fit together."""
    check_positive(hyperparameters)
    widths, heads = integers(hyperparameters, "widths"), integers(hyperparameters, "encoder_heads")
    for width, head in zip(widths[1:], heads, strict=True):
        if width % head:
            raise VariantError(f"encoder_heads must divide widths from stage 2 on, but {head} does not divide {width}")
    check_sam(hyperparameters)
    check_one_of(hyperparameters, "patch_stride", (1, 2, 4))


def build(spec: VariantSpec) -> SamModel:
    """The model of a specification of this family, with freshly drawn weights."""
    from variants.encoders.tiny_vit import TinyViT
    from variants.sam import SamModel, sam_parts

    values = spec.hyperparameters
    check(values)
    encoder = TinyViT(
        depths=integers(values, "depths"),
        widths=integers(values, "widths"),
        heads=integers(values, "encoder_heads"),
        windows=integers(values, "windows"),
        patch_stride=integer(values, "patch_stride"),
        out_channels=integer(values, "embed_dim"),
        input_size=spec.input_size,
    )
    prompts, decoder = sam_parts(values, spec.input_size, encoder.grid)
    return SamModel(encoder, prompts, decoder, spec.input_size)


def register(registry: Registry) -> None:
    registry.add(
        VariantSpec(
            name="litemedsam",
            family=FAMILY,
            summary="the challenge's baseline: MedSAM distilled into TinyViT",
            source="bowang-lab/MedSAM, branch LiteMedSAM; SwiftMedSAM paper, Table 1",
            factory="variants.litemedsam:build",
            check="variants.litemedsam:check",
            params=9_791_300,
            hyperparameters=LITEMEDSAM,
        )
    )
    registry.add(
        VariantSpec(
            name="litemedsam_tiny",
            family=FAMILY,
            summary="LiteMedSAM's code with small widths, for tests and the quick start; not a model of any paper",
            source="medsam-bench",
            factory="variants.litemedsam:build",
            check="variants.litemedsam:check",
            params=308_562,
            hyperparameters=TINY,
        )
    )
