"""Image embedding and prompt tokens to masks (Kirillov et al. 2023, section 3 and appendix A)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from variants.sam.layers import MLP, LayerNorm2d, Token
from variants.sam.transformer import TwoWayTransformer

MULTIMASKS = 3


class MaskDecoder(nn.Module):
    """Predicts one mask, or three alternatives, with their IoU.

    Args:
        transformer: the two-way transformer.
        dim: channels of tokens and image embedding.
        iou_head_depth: linear layers of the head that predicts the IoU.
    """

    def __init__(self, transformer: TwoWayTransformer, dim: int, iou_head_depth: int) -> None:
        super().__init__()
        masks = MULTIMASKS + 1
        self.transformer = transformer
        self.iou_token = Token(dim)
        self.mask_tokens = Token(dim, masks)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8, depth=3) for _ in range(masks))
        self.iou_prediction_head = MLP(dim, dim, masks, iou_head_depth)

    def forward(
        self, image: Tensor, image_pe: Tensor, tokens: Tensor, dense: Tensor, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, 1|3, 4g, 4g) and IoU (N, 1|3).

        Args:
            image: (N, C, g, g), the embedding of each prompt's image.
            image_pe: (1, C, g, g) positional encoding.
            tokens: (N, T, C) prompt tokens.
            dense: (N|1, C, g|1, g|1) dense prompt, added to the image.
            multimask: give the three alternatives instead of the single mask.
        """
        own = torch.cat((self.iou_token.weight, self.mask_tokens.weight))
        tokens = torch.cat((own.expand(len(tokens), -1, -1), tokens), dim=1)
        shape = image.shape
        tokens, flat = self.transformer(image + dense, image_pe, tokens)
        upscaled = self.output_upscaling(flat.transpose(1, 2).reshape(shape))
        weights = torch.stack([mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        logits = (weights @ upscaled.flatten(2)).reshape(*weights.shape[:2], *upscaled.shape[2:])
        iou = self.iou_prediction_head(tokens[:, 0])
        chosen = slice(1, None) if multimask else slice(0, 1)
        return logits[:, chosen], iou[:, chosen]
