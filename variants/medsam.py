"""MedSAM, the teacher: SAM's ViT-B image encoder at 1024 pixels, its prompt encoder and mask decoder.

Torch-free: specifications, and the factory that builds a model from one.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from variants.errors import VariantError
from variants.hyperparameters import SAM, check_one_of, check_positive, check_sam, integer, integers
from variants.registry import Hyperparameter, Registry, VariantSpec

if TYPE_CHECKING:
    from variants.sam.model import SamModel

FAMILY = "medsam"
PATCHES = (4, 8, 16, 32)

VIT_B: dict[str, Hyperparameter] = {
    "depth": 12,
    "width": 768,
    "encoder_heads": 12,
    "window": 14,
    "global_blocks": (2, 5, 8, 11),
    "patch": 16,
    **SAM,
}
"""Hyperparameters of the family.

depth, width, encoder_heads: blocks of the encoder, their channels and attention heads; window: side of the attention's
windows in tokens; global_blocks: numbers, from 0, of the blocks that attend over the whole image; patch: side of a
token in pixels; the rest: see `variants.hyperparameters.SAM`.
"""

TINY: dict[str, Hyperparameter] = {
    "depth": 3,
    "width": 24,
    "encoder_heads": 2,
    "window": 14,
    "global_blocks": (1,),
    "patch": 4,
    "decoder_depth": 2,
    "decoder_mlp_dim": 128,
    "decoder_heads": 4,
    "iou_head_depth": 2,
    "embed_dim": 64,
    "pe_scale": 0.2,
}
"""The published grid of 64 x 64 at 256 pixels, so that it can teach the students' tiny sizes."""


def check(hyperparameters: Mapping[str, Hyperparameter]) -> None:
    """Raise `VariantError` where the hyperparameters of the family do not fit together."""
    check_positive({key: value for key, value in hyperparameters.items() if key != "global_blocks"})
    check_sam(hyperparameters)
    width, heads = integer(hyperparameters, "width"), integer(hyperparameters, "encoder_heads")
    if width % heads:
        raise VariantError(f"encoder_heads must divide width, but {heads} does not divide {width}")
    depth, places = integer(hyperparameters, "depth"), integers(hyperparameters, "global_blocks")
    if any(a >= b for a, b in pairwise((-1, *places, depth))):
        raise VariantError(
            f"global_blocks must ascend from 0 to at most {depth - 1}, the last block, not {list(places)}"
        )
    check_one_of(hyperparameters, "patch", PATCHES)


def build(spec: VariantSpec) -> SamModel:
    """The model of a specification of this family, with freshly drawn weights."""
    from variants.encoders.vit import ViT
    from variants.sam import SamModel, sam_parts

    values = spec.hyperparameters
    check(values)
    encoder = ViT(
        depth=integer(values, "depth"),
        width=integer(values, "width"),
        heads=integer(values, "encoder_heads"),
        window=integer(values, "window"),
        global_blocks=integers(values, "global_blocks"),
        patch=integer(values, "patch"),
        out_channels=integer(values, "embed_dim"),
        input_size=spec.input_size,
    )
    prompts, decoder = sam_parts(values, spec.input_size, encoder.grid)
    return SamModel(encoder, prompts, decoder, spec.input_size)


def register(registry: Registry) -> None:
    registry.add(
        VariantSpec(
            name="medsam_vit_b",
            family=FAMILY,
            summary="the teacher of all students: MedSAM with SAM's ViT-B at 1024 pixels",
            source="bowang-lab/MedSAM; Ma et al., Nature Communications 2024",
            factory="variants.medsam:build",
            check="variants.medsam:check",
            input_size=1024,
            params=93_735_472,
            hyperparameters=VIT_B,
            preprocess="stretch",
        )
    )
    registry.add(
        VariantSpec(
            name="medsam_vit_tiny",
            family=FAMILY,
            summary="the teacher's code with small widths at 256 pixels, for tests; not a model of any paper",
            source="medsam-bench",
            factory="variants.medsam:build",
            check="variants.medsam:check",
            params=320_064,
            hyperparameters=TINY,
            preprocess="stretch",
        )
    )
