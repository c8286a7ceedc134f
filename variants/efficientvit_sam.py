"""EfficientViT-SAM-L0 as Gray's Anatomy uses it: EfficientViT image encoder, SAM prompt encoder and mask decoder.

Torch-free: specifications, and the factory that builds a model from one.  The paper's input is 256 x 256; with another
`input_size`, such as the 512 of EfficientViT-SAM's own weights, the embedding is 64 x 64 all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from variants.errors import VariantError
from variants.hyperparameters import SAM, check_positive, check_sam, integer, integers
from variants.registry import Hyperparameter, Registry, VariantSpec

if TYPE_CHECKING:
    from variants.sam.model import SamModel

FAMILY = "efficientvit_sam"

L0: dict[str, Hyperparameter] = {
    "widths": (32, 64, 128, 256, 512),
    "depths": (1, 1, 1, 4, 4),
    "stride_expansions": (16, 16, 16, 24),
    "expansions": (4, 4, 4, 6),
    "head_dim": 32,
    "neck_depth": 4,
    **SAM,
}
"""Hyperparameters of the family.

widths, depths: channels and residual blocks of the stem and the four stages (the first three stages are convolutional,
the last one has linear attention); stride_expansions, expansions: how much a stage's halving block and its residual
blocks widen inside; head_dim: width of an attention head; neck_depth: residual blocks of the neck; the rest: see
`variants.hyperparameters`.
"""

TINY: dict[str, Hyperparameter] = {
    "widths": (16, 24, 32, 48, 64),
    "depths": (1, 1, 1, 1, 1),
    "stride_expansions": (4, 4, 4, 4),
    "expansions": (2, 2, 2, 2),
    "head_dim": 16,
    "neck_depth": 1,
    "decoder_depth": 2,
    "decoder_mlp_dim": 128,
    "decoder_heads": 4,
    "iou_head_depth": 2,
    "embed_dim": 64,
    "pe_scale": 0.2,
}


def check(hyperparameters: Mapping[str, Hyperparameter]) -> None:
    """Raise `VariantError` where the hyperparameters of the family do not fit together."""
    check_positive(hyperparameters)
    check_sam(hyperparameters)
    last, head_dim = integers(hyperparameters, "widths")[-1], integer(hyperparameters, "head_dim")
    if last % head_dim:
        raise VariantError(f"head_dim must divide the last of widths, but {head_dim} does not divide {last}")


def build(spec: VariantSpec) -> SamModel:
    """The model of a specification of this family, with freshly drawn weights.

    Raises:
        VariantError: if the hyperparameters do not fit together, or the input size is no multiple of 32.
    """
    from variants.encoders.efficientvit import REDUCTION, Backbone, EfficientViT
    from variants.sam import SamModel
    from variants.sam.build import sam_parts

    values = spec.hyperparameters
    check(values)
    if spec.input_size < REDUCTION or spec.input_size % REDUCTION:
        raise VariantError(
            f"variant {spec.name!r}: input_size must be a multiple of {REDUCTION}, not {spec.input_size}"
        )
    widths = integers(values, "widths")
    backbone = Backbone(
        widths=widths,
        depths=integers(values, "depths"),
        stride_expansions=integers(values, "stride_expansions"),
        expansions=integers(values, "expansions"),
        head_dim=integer(values, "head_dim"),
    )
    encoder = EfficientViT(
        backbone, widths[-3:], integer(values, "neck_depth"), integer(values, "embed_dim"), spec.input_size
    )
    prompts, decoder = sam_parts(values, spec.input_size, encoder.grid)
    return SamModel(encoder, prompts, decoder, spec.input_size)


def register(registry: Registry) -> None:
    registry.add(
        VariantSpec(
            name="efficientvit_sam_l0",
            family=FAMILY,
            summary="Gray's Anatomy: EfficientViT-SAM-L0 on three channels made from a grey image",
            source="Gray's Anatomy paper, section 2; Ninebell/GraysAnatomySAM with mit-han-lab/efficientvit",
            factory="variants.efficientvit_sam:build",
            check="variants.efficientvit_sam:check",
            params=34_792_784,
            hyperparameters=L0,
            preprocess="gray-code",
            loop="gray",
        )
    )
    registry.add(
        VariantSpec(
            name="efficientvit_sam_tiny",
            family=FAMILY,
            summary="EfficientViT-SAM's code with small widths, for tests and quick trials; not a model of any paper",
            source="medsam-bench",
            factory="variants.efficientvit_sam:build",
            check="variants.efficientvit_sam:check",
            params=375_736,
            hyperparameters=TINY,
            preprocess="gray-code",
            loop="gray",
        )
    )
