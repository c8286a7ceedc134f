"""Swin-LiteMedSAM's mask decoder: SAM's, with the outputs of the image encoder's stages on the way back to full size.

Gao et al., "Swin-LiteMedSAM", section 2.2 and figure 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from variants.hyperparameters import check_sam, integer, integers, number
from variants.registry import Hyperparameter
from variants.sam.build import sam_transformer
from variants.sam.layers import LayerNorm2d, NeverRun, of_prompts
from variants.sam.mask_decoder import MaskDecoder
from variants.sam.prompt_encoder import PromptEncoder
from variants.sam.transformer import TwoWayTransformer

COMPONENTS = 5
QUIET = 0.1
"""What a fresh decoder hears of the encoder's stages beside its own channels: it learns as one without skip connections
does, and then to listen.  Otherwise stages that have learned nothing yet drown what the prompts say."""


class SkipMaskDecoder(MaskDecoder):
    """SAM's mask decoder with skip connections.

    Stages 2 to 4 of the encoder are fused once for each image and joined to the transformer's output on the embedding's
    grid g; stage 1 is joined on the grid 2g.

    Args:
        transformer: the two-way transformer.
        dim: channels of tokens and image embedding.
        iou_head_depth: linear layers of the head that predicts the IoU.
        grid: side g of the image embedding.
        widths: channels of the four stages.
        unused: carry `prompt1` and `prompt2`, which the published file holds and the published code never runs.
    """

    skips = 4

    def __init__(
        self,
        transformer: TwoWayTransformer,
        dim: int,
        iou_head_depth: int,
        grid: int,
        widths: Sequence[int],
        unused: bool,
    ) -> None:
        first, *deeper = widths
        # In the order of the published file.
        upscaling: dict[str, nn.Module] = {
            "neck": nn.Sequential(
                nn.Conv2d(sum(deeper), dim, 1, bias=False),
                LayerNorm2d(dim),
                nn.Conv2d(dim, dim, 3, padding=1, bias=False),
                LayerNorm2d(dim),
            ),
            "prompt1": UnusedPrompt(dim // 2, 2 * grid),
            "output_upscaling1": _join_and_double(dim, dim, dim, dim // 2),
            "output_upscaling2": _join_and_double(dim // 2, first, dim // 4, dim // 8),
            "prompt2": UnusedPrompt(dim // 8, 4 * grid),
        }
        if not unused:
            upscaling = {name: module for name, module in upscaling.items() if not isinstance(module, UnusedPrompt)}
        super().__init__(transformer, dim, iou_head_depth, upscaling)

    def _upscale(self, x: Tensor, skips: Sequence[Tensor], image_index: Tensor | None) -> Tensor:
        count = x.shape[0]
        first, *deeper = skips if image_index is not None else [skip[:1] for skip in skips]
        fused = of_prompts(self.get_submodule("neck")(torch.cat(list(deeper), dim=1)), image_index, count)
        x = self.get_submodule("output_upscaling1")(torch.cat((x, fused), dim=1))
        upscaled: Tensor = self.get_submodule("output_upscaling2")(
            torch.cat((x, of_prompts(first, image_index, count)), dim=1)
        )
        return upscaled


class UnusedPrompt(NeverRun):
    """Parameters of a learned prompt that the published code constructs and never calls.

    They start at zero: nothing reads them, and no draw is spent on them.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.prompt_param = nn.Parameter(torch.zeros(1, COMPONENTS, channels, side, side))
        self.linear_layer = nn.utils.skip_init(nn.Linear, channels, COMPONENTS)  # type: ignore[no-untyped-call]
        self.conv3x3 = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.Conv2d, channels, channels, kernel_size=3, padding=1, bias=False
        )
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> UnusedPrompt:
        # A change of memory format is refused for five axes; the first has length 1.
        super()._apply(lambda x: fn(x[0])[None] if x.ndim == 5 else fn(x), recurse)  # type: ignore[no-untyped-call]
        return self


def skip_parts(
    values: Mapping[str, Hyperparameter], input_size: int, grid: int
) -> tuple[PromptEncoder, SkipMaskDecoder]:
    """Prompt encoder and mask decoder with skip connections, with freshly drawn weights.

    Args:
        values: holds the keys of `variants.hyperparameters.SAM`, `widths` and `unused`.
        input_size: side of the network input in pixels, in which prompts are given.
        grid: side of the image embedding.

    Raises:
        VariantError: if the values do not fit together.
    """
    check_sam(values)
    dim = integer(values, "embed_dim")
    decoder = SkipMaskDecoder(
        sam_transformer(values),
        dim=dim,
        iou_head_depth=integer(values, "iou_head_depth"),
        grid=grid,
        widths=integers(values, "widths"),
        unused=bool(values["unused"]),
    )
    return PromptEncoder(dim, input_size, grid, number(values, "pe_scale")), decoder


def _join_and_double(own: int, skipped: int, hidden: int, out_channels: int) -> nn.Sequential:
    """Reduces a decoder's own channels and those joined to them, and doubles the grid."""
    join = nn.Conv2d(own + skipped, hidden, 1)
    with torch.no_grad():
        join.weight[:, own:] *= QUIET
    return nn.Sequential(
        join,
        LayerNorm2d(hidden),
        nn.GELU(),
        nn.ConvTranspose2d(hidden, out_channels, kernel_size=2, stride=2),
        nn.GELU(),
    )
