"""The promptable model in torch: image encoder, prompt encoder, mask decoder."""

from __future__ import annotations

from torch import Tensor, nn

from variants.embedding import Embedding
from variants.errors import VariantError
from variants.sam.mask_decoder import MaskDecoder
from variants.sam.prompt_encoder import PromptEncoder


class SamModel(nn.Module):
    """A promptable model with the published parameter names; see `variants.model.PromptableModel`.

    Args:
        image_encoder: (B, 3, S, S) → (B, C, g, g).
        prompt_encoder: for the same C and g.
        mask_decoder: for the same C and g.
        input_size: side S of the network input in pixels.
    """

    def __init__(
        self, image_encoder: nn.Module, prompt_encoder: PromptEncoder, mask_decoder: MaskDecoder, input_size: int
    ) -> None:
        super().__init__()
        self.input_size = input_size
        # In the order of the published files.
        self.image_encoder = image_encoder
        self.mask_decoder = mask_decoder
        self.prompt_encoder = prompt_encoder

    def forward(self, image: Tensor, boxes: Tensor, image_index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`encode` and `decode` in one call."""
        return self.decode(self.encode(image), boxes, image_index)

    def encode(self, image: Tensor) -> Embedding:
        """Encode float32 images (B, 3, S, S) in [0, 1].

        Raises:
            VariantError: if the shape is another.
        """
        side = self.input_size
        if image.ndim != 4 or tuple(image.shape[1:]) != (3, side, side):
            raise VariantError(f"images must be (B, 3, {side}, {side}), not {tuple(image.shape)}")
        return Embedding(self.image_encoder(image))

    def decode(
        self,
        emb: Embedding,
        boxes: Tensor | None,
        image_index: Tensor | None = None,
        points: Tensor | None = None,
        scribble: Tensor | None = None,
        multimask: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, 1|3, 4g, 4g) and IoU (N, 1|3) of N prompts; arguments as in `PromptableModel.decode`.

        All N are decoded at once, about 30 MB a prompt in the published sizes: a caller with hundreds splits them.

        Raises:
            VariantError: if the prompts have other shapes than documented, or neither boxes nor points are given.
        """
        count = self._count(boxes, points, scribble, image_index)
        tokens, dense = self.prompt_encoder(boxes, points, scribble)
        if image_index is None:
            image = emb.image[:1].expand(count, -1, -1, -1)
        else:
            image = emb.image.index_select(0, image_index)
        logits, iou = self.mask_decoder(image, self.prompt_encoder.dense_positions(), tokens, dense, multimask)
        return logits, iou

    def _count(
        self, boxes: Tensor | None, points: Tensor | None, scribble: Tensor | None, image_index: Tensor | None
    ) -> int:
        """The number of prompts N, after checking that all of them agree on it."""
        if boxes is not None:
            count = len(boxes)
        elif points is not None:
            count = len(points)
        else:
            raise VariantError("decode needs boxes or points")
        side = self.prompt_encoder.grid * 4
        wanted = {
            "boxes": "(N, 4)",
            "points": "(N, P, 2)",
            "scribble": f"(N, 1, {side}, {side})",
            "image_index": "(N,)",
        }
        fits = {
            "boxes": boxes is None or tuple(boxes.shape) == (count, 4),
            "points": points is None or (points.ndim == 3 and points.shape[0] == count and points.shape[2] == 2),
            "scribble": scribble is None or tuple(scribble.shape) == (count, 1, side, side),
            "image_index": image_index is None or tuple(image_index.shape) == (count,),
        }
        given = {"boxes": boxes, "points": points, "scribble": scribble, "image_index": image_index}
        for name, good in fits.items():
            if not good:
                got = tuple(given[name].shape)  # type: ignore[union-attr]
                raise VariantError(f"{name} must be {wanted[name]} with N = {count}, not {got}")
        return count
