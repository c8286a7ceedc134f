"""Swin-LiteMedSAM: Swin image encoder, skip connections into the mask decoder, points and a scribble made from the box.

Torch-free: specifications, and the factory that builds a model from one.  The rows of the paper's Table 5 are
`skips: false, prompts: box`; `prompts: box`; `prompts: box+points`; and the variant as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from variants.errors import VariantError
from variants.hyperparameters import SAM, check_one_of, check_positive, check_sam, integer, integers, plain
from variants.registry import Hyperparameter, Registry, VariantSpec

if TYPE_CHECKING:
    from variants.sam.model import SamModel

FAMILY = "swin_litemedsam"

SWIN: dict[str, Hyperparameter] = {
    # Table 5, with `prompts`.
    "skips": True,
    "unused": True,
    "depths": (2, 2, 6, 2),
    **SAM,
    # Fixed in the published model.
    "widths": (128, 160, 320, 320),
    "encoder_heads": (2, 4, 5, 10),
    "head_dim": 32,
    "window": 8,
    "patch_channels": 64,
    "patch_stride": 1,
}
"""Hyperparameters of the family.

skips: the decoder reads the outputs of the encoder's stages, else it is SAM's own; unused: with skips, carry the two
modules of the published file that no computation reaches, so that it loads strictly; depths: blocks of the four stages,
in pairs; widths: their channels; encoder_heads, head_dim, window: attention heads, channels of each, side of a window;
patch_channels, patch_stride: channels of the patch embedding and network pixels a side of one of its pixels; the rest:
see `variants.hyperparameters.SAM`.
"""

TINY: dict[str, Hyperparameter] = {
    "skips": True,
    "unused": False,
    "depths": (2, 2, 2, 2),
    "decoder_depth": 2,
    "decoder_mlp_dim": 128,
    "decoder_heads": 4,
    "iou_head_depth": 2,
    "embed_dim": 64,
    "pe_scale": 0.2,
    "widths": (16, 32, 48, 48),
    "encoder_heads": (1, 2, 3, 3),
    "head_dim": 16,
    "window": 8,
    "patch_channels": 16,
    "patch_stride": 2,
}


def check(hyperparameters: Mapping[str, Hyperparameter]) -> None:
    """Raise `VariantError` where the hyperparameters of the family do not fit together."""
    check_positive(hyperparameters)
    check_sam(hyperparameters)
    depths, window = integers(hyperparameters, "depths"), integer(hyperparameters, "window")
    if any(depth % 2 for depth in depths):
        raise VariantError(
            f"depths must be even, a block with shifted windows follows each with regular ones, not {plain(depths)}"
        )
    if window not in (2, 4, 8, 16, 32):
        raise VariantError(f"window must divide the grid of 64 into whole windows: 2, 4, 8, 16 or 32, not {window}")
    check_one_of(hyperparameters, "patch_stride", (1, 2))
    if integer(hyperparameters, "patch_channels") % 2:
        raise VariantError(f"patch_channels must be even, not {hyperparameters['patch_channels']}")


def build(spec: VariantSpec) -> SamModel:
    """The model of a specification of this family, with freshly drawn weights."""
    from variants.encoders.swin import Swin
    from variants.sam import SamModel, sam_parts
    from variants.sam.skip_decoder import skip_parts

    values = spec.hyperparameters
    check(values)
    skips = bool(values["skips"])
    encoder = Swin(
        depths=integers(values, "depths"),
        widths=integers(values, "widths"),
        heads=integers(values, "encoder_heads"),
        head_dim=integer(values, "head_dim"),
        window=integer(values, "window"),
        patch_channels=integer(values, "patch_channels"),
        patch_stride=integer(values, "patch_stride"),
        out_channels=integer(values, "embed_dim"),
        input_size=spec.input_size,
        skips=skips,
    )
    prompts, decoder = (skip_parts if skips else sam_parts)(values, spec.input_size, encoder.grid)
    return SamModel(encoder, prompts, decoder, spec.input_size)


def register(registry: Registry) -> None:
    registry.add(
        VariantSpec(
            name="swin_litemedsam",
            family=FAMILY,
            summary="Swin encoder with skip connections; points and a scribble made from the box",
            source="Swin-LiteMedSAM paper, section 2, Table 5; RuochenGao/Swin_LiteMedSAM",
            factory="variants.swin_litemedsam:build",
            check="variants.swin_litemedsam:check",
            params=36_767_846,
            hyperparameters=SWIN,
            prompts=("box", "points", "scribble"),
            prompt_rule="code",
            loop="swin",
        )
    )
    registry.add(
        VariantSpec(
            name="swin_litemedsam_tiny",
            family=FAMILY,
            summary="Swin-LiteMedSAM's code with small widths, for tests; not a model of any paper",
            source="medsam-bench",
            factory="variants.swin_litemedsam:build",
            check="variants.swin_litemedsam:check",
            params=443_304,
            hyperparameters=TINY,
            prompts=("box", "points", "scribble"),
            prompt_rule="code",
            loop="swin",
        )
    )
