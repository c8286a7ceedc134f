"""Rep-MedSAM: RepViT image encoder, SAM prompt encoder and mask decoder.

Torch-free: specifications, and the factory that builds a model from one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from variants.errors import VariantError
from variants.hyperparameters import SAM, check_one_of, check_positive, check_sam, integer, integers
from variants.registry import Hyperparameter, Registry, VariantSpec

if TYPE_CHECKING:
    from variants.sam.model import SamModel

FAMILY = "rep_medsam"

REP_MEDSAM: dict[str, Hyperparameter] = {
    "depths": (3, 4, 16, 3),
    "widths": (56, 112, 224, 448),
    "se": True,
    "patch_stride": 1,
    **SAM,
}
"""Hyperparameters of the family.

depths: blocks of the encoder's four stages, those that begin one among them; widths: their channels; se: squeeze-and-
excitation in every other block; patch_stride: network pixels a side of a first-stage pixel (4 in the original RepViT);
the rest: see `variants.hyperparameters.SAM`.
"""

TINY: dict[str, Hyperparameter] = {
    "depths": (2, 3, 4, 3),
    "widths": (16, 32, 48, 64),
    "se": True,
    "patch_stride": 2,
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
    widths = integers(hyperparameters, "widths")
    if widths[0] < 2:
        raise VariantError(f"widths must begin with at least 2, of which the stem has half, not {widths[0]}")
    check_one_of(hyperparameters, "patch_stride", (1, 2, 4))


def build(spec: VariantSpec) -> SamModel:
    """The model of a specification of this family, with freshly drawn weights."""
    from variants.encoders.repvit import RepViT
    from variants.sam import SamModel, sam_parts

    values = spec.hyperparameters
    check(values)
    encoder = RepViT(
        depths=integers(values, "depths"),
        widths=integers(values, "widths"),
        se=bool(values["se"]),
        patch_stride=integer(values, "patch_stride"),
        out_channels=integer(values, "embed_dim"),
        input_size=spec.input_size,
    )
    prompts, decoder = sam_parts(values, spec.input_size, encoder.grid)
    return SamModel(encoder, prompts, decoder, spec.input_size)


def register(registry: Registry) -> None:
    registry.add(
        VariantSpec(
            name="rep_medsam",
            family=FAMILY,
            summary="MedSAM distilled into RepViT-M1.0, whose branches fuse into plain convolutions",
            source="mxWe1/CVPR24-Challenge; Rep-MedSAM paper, section 2.2",
            factory="variants.rep_medsam:build",
            check="variants.rep_medsam:check",
            params=10_570_092,
            hyperparameters=REP_MEDSAM,
            loop="rep-2024-06-19",
        )
    )
    registry.add(
        VariantSpec(
            name="rep_medsam_tiny",
            family=FAMILY,
            summary="Rep-MedSAM's code with small widths, for tests and the quick start; not a model of any paper",
            source="medsam-bench",
            factory="variants.rep_medsam:build",
            check="variants.rep_medsam:check",
            params=304_144,
            hyperparameters=TINY,
            loop="rep-2024-06-19",
        )
    )
