"""LiteMedSAM and its family: TinyViT image encoder, SAM prompt encoder and mask decoder.

Torch-free: specifications, and the factory that builds a model from one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from variants.errors import VariantError
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
    values = dict(hyperparameters)
    for key, value in values.items():
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(number, int) and number < 1 for number in numbers):
            raise VariantError(f"{key} must be at least 1 everywhere, not {_plain(value)}")
    widths, heads = values["widths"], values["encoder_heads"]
    assert isinstance(widths, tuple)
    assert isinstance(heads, tuple)
    for width, head in zip(widths[1:], heads, strict=True):
        if width % head:
            raise VariantError(f"encoder_heads must divide widths from stage 2 on, but {head} does not divide {width}")
    embed_dim, decoder_heads = values["embed_dim"], values["decoder_heads"]
    assert isinstance(embed_dim, int)
    assert isinstance(decoder_heads, int)
    if embed_dim % 8:
        raise VariantError(f"embed_dim must be a multiple of 8, not {embed_dim}")
    if (embed_dim // 2) % decoder_heads:
        raise VariantError(
            f"decoder_heads must divide half of embed_dim, the width of cross-attention: {decoder_heads} does not "
            f"divide {embed_dim // 2}"
        )
    pe_scale = values["pe_scale"]
    assert isinstance(pe_scale, float)
    if not 0 < pe_scale < math.inf:
        raise VariantError(f"pe_scale must be greater than 0, not {pe_scale}")
    if values["patch_stride"] not in (1, 2, 4):
        raise VariantError(f"patch_stride must be 1, 2 or 4, not {values['patch_stride']}")


def build(spec: VariantSpec) -> SamModel:
    """The model of a specification of this family, with freshly drawn weights."""
    from variants.encoders.tiny_vit import TinyViT
    from variants.sam import MaskDecoder, PromptEncoder, SamModel, TwoWayTransformer

    values: dict[str, Hyperparameter] = dict(spec.hyperparameters)
    check(values)

    def number(key: str) -> int:
        value = values[key]
        assert isinstance(value, int)
        return value

    def numbers(key: str) -> tuple[int, ...]:
        value = values[key]
        assert isinstance(value, tuple)
        return value

    dim = number("embed_dim")
    encoder = TinyViT(
        depths=numbers("depths"),
        widths=numbers("widths"),
        heads=numbers("encoder_heads"),
        windows=numbers("windows"),
        patch_stride=number("patch_stride"),
        out_channels=dim,
        input_size=spec.input_size,
    )
    transformer = TwoWayTransformer(
        depth=number("decoder_depth"), dim=dim, heads=number("decoder_heads"), mlp_dim=number("decoder_mlp_dim")
    )
    decoder = MaskDecoder(transformer, dim=dim, iou_head_depth=number("iou_head_depth"))
    pe_scale = values["pe_scale"]
    assert isinstance(pe_scale, float)
    prompts = PromptEncoder(dim, spec.input_size, encoder.grid, pe_scale)
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


def _plain(value: Hyperparameter) -> object:
    return list(value) if isinstance(value, tuple) else value
