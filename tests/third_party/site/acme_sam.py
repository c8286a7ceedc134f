"""A variant of somebody else: a plain convolutional encoder before SAM's prompt encoder and mask decoder."""

from variants.registry import VariantSpec

SAM = {"decoder_depth": 1, "decoder_mlp_dim": 64, "decoder_heads": 4, "iou_head_depth": 2}


def build(spec):
    from torch import nn

    from variants.sam import SamModel, sam_parts

    encoder = nn.Sequential(nn.Conv2d(3, 64, 7, 4, 3), nn.GELU(), nn.Conv2d(64, 64, 3, 1, 1))
    return SamModel(encoder, *sam_parts(spec.hyperparameters, spec.input_size, 64), spec.input_size)


def register(registry):
    values = SAM | {"embed_dim": 64, "pe_scale": 0.2}
    text = {"family": "acme", "summary": "convolutions before SAM's decoder", "source": "Acme"}
    registry.add(VariantSpec(name="acme_sam", factory="acme_sam:build", hyperparameters=values, **text))
