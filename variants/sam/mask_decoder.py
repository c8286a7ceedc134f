"""Image embedding and prompt tokens to masks (Kirillov et al. 2023, section 3 and appendix A)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
        upscaling: modules between the transformer and the masks, by name, for a subclass with its own `_upscale`;
            `None`: SAM's.
    """

    skips = 0
    """How many further encoder outputs the decoder reads."""

    def __init__(
        self,
        transformer: TwoWayTransformer,
        dim: int,
        iou_head_depth: int,
        upscaling: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        masks = MULTIMASKS + 1
        self.transformer = transformer
        self.iou_token = Token(dim)
        self.mask_tokens = Token(dim, masks)
        for name, module in (_upscaling(dim) if upscaling is None else upscaling).items():
            self.add_module(name, module)
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8, depth=3) for _ in range(masks))
        self.iou_prediction_head = MLP(dim, dim, masks, iou_head_depth)

    def forward(
        self,
        image: Tensor,
        image_pe: Tensor,
        tokens: Tensor,
        dense: Tensor,
        multimask: bool,
        skips: Sequence[Tensor] = (),
        image_index: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, 1|3, 4g, 4g) and IoU (N, 1|3).

        Args:
            image: (N, C, g, g), the embedding of each prompt's image, or (1, C, g, g) of the one image of all prompts.
            image_pe: (1, C, g, g) positional encoding.
            tokens: (N, T, C) prompt tokens.
            dense: (N|1, C, g|1, g|1) dense prompt, added to the image.
            multimask: give the three alternatives instead of the single mask.
            skips: further encoder outputs (B, ...), one for each image, not for each prompt.
            image_index: (N,) the image of each prompt, for `skips`; `None`: all belong to image 0.
        """
        own = torch.cat((self.iou_token.weight, self.mask_tokens.weight))
        tokens = torch.cat((own.expand(tokens.shape[0], -1, -1), tokens), dim=1)
        tokens, flat = self.transformer(image + dense, image_pe, tokens)
        chosen = slice(1, None) if multimask else slice(0, 1)
        iou = self.iou_prediction_head(tokens[:, 0])
        return self._masks(flat, tokens, chosen, image, skips, image_index), iou[:, chosen]

    def _masks(
        self,
        flat: Tensor,
        tokens: Tensor,
        chosen: slice,
        image: Tensor,
        skips: Sequence[Tensor],
        image_index: Tensor | None,
    ) -> Tensor:
        """Logits of the chosen masks (N, M, 4g, 4g); the published models compute all four and leave some out.

        Args:
            flat: (N, g·g, C), the transformer's image.
            tokens: (N, T, C), the transformer's tokens.
            chosen: which of the four masks.
            image: its last three axes are (C, g, g).
            skips: as `forward` has them.
            image_index: as `forward` has it.
        """
        upscaled = self._upscale(flat.transpose(1, 2).reshape(-1, *image.shape[1:]), skips, image_index)
        weights = self._hypernetworks(tokens, slice(None))
        logits = (weights @ upscaled.flatten(2)).reshape(*weights.shape[:2], *upscaled.shape[2:])
        return logits[:, chosen]

    def _hypernetworks(self, tokens: Tensor, chosen: slice) -> Tensor:
        """(N, M, C / 8): what each chosen mask multiplies the upscaled image with."""
        mlps = list(enumerate(self.output_hypernetworks_mlps, start=1))[chosen]
        return torch.stack([mlp(tokens[:, i]) for i, mlp in mlps], dim=1)

    def _upscale(self, x: Tensor, skips: Sequence[Tensor], image_index: Tensor | None) -> Tensor:
        """(N, C, g, g) → (N, C / 8, 4g, 4g)."""
        upscaled: Tensor = self.get_submodule("output_upscaling")(x)
        return upscaled


def _upscaling(dim: int) -> dict[str, nn.Module]:
    return {
        "output_upscaling": nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
    }
