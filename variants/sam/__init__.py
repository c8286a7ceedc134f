"""The parts of Segment Anything that every family shares, under the published parameter names."""

from variants.sam.build import sam_parts, sam_transformer
from variants.sam.layers import MLP, LayerNorm2d
from variants.sam.mask_decoder import MaskDecoder
from variants.sam.model import SamModel
from variants.sam.prompt_encoder import PromptEncoder
from variants.sam.transformer import TwoWayTransformer

__all__ = [
    "MLP",
    "LayerNorm2d",
    "MaskDecoder",
    "PromptEncoder",
    "SamModel",
    "TwoWayTransformer",
    "sam_parts",
    "sam_transformer",
]
