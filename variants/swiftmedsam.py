"""SwiftMedSAM v1 and v2: LiteMedSAM with the hyperparameters of the paper's Table 1.

No weights and no code were published; the layout is LiteMedSAM's.
"""

from __future__ import annotations

from variants.litemedsam import FAMILY, LITEMEDSAM
from variants.registry import Hyperparameter, Registry, VariantSpec

V1: dict[str, Hyperparameter] = {
    **LITEMEDSAM,
    "depths": (2, 2, 4, 2),
    "decoder_depth": 1,
    "decoder_mlp_dim": 1024,
    "decoder_heads": 8,
    "iou_head_depth": 2,
}
V2: dict[str, Hyperparameter] = {**V1, "depths": (1, 2, 2, 2), "decoder_mlp_dim": 256, "decoder_heads": 4}


def register(registry: Registry) -> None:
    for name, hyperparameters, params in (("swiftmedsam_v1", V1, 6_996_636), ("swiftmedsam_v2", V2, 5_942_388)):
        registry.add(
            VariantSpec(
                name=name,
                family=FAMILY,
                summary=f"LiteMedSAM made smaller, version {name[-1]}: fewer blocks, shallower decoder",
                source="SwiftMedSAM paper, Table 1",
                factory="variants.litemedsam:build",
                check="variants.litemedsam:check",
                params=params,
                hyperparameters=hyperparameters,
            )
        )
