"""The promptable model in torch: image encoder, prompt encoder, mask decoder."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from variants.embedding import Embedding
from variants.errors import VariantError
from variants.sam.layers import NeverRun, of_prompts
from variants.sam.mask_decoder import MaskDecoder
from variants.sam.prompt_encoder import PromptEncoder


class SamModel(nn.Module):
    """A promptable model with the published parameter names; see `variants.model.PromptableModel`.

    Args:
        image_encoder: (B, 3, S, S) → (B, C, g, g), or a tuple of that and the further outputs the mask decoder reads.
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
        return self._embedding(image)

    def encode_resized(self, image: Tensor) -> Embedding:
        """Encode float32 images (B, 3, s, s) in [0, 1] of another side s: an embedding with the grid g · s / S.

        For training on smaller images (progressive resizing, Howard 2018).  `decode` takes such an embedding and gives
        logits of 4 times its grid; prompts stay in network pixels of the side S.

        Raises:
            VariantError: if the shape is another, or g · s / S is not whole.
        """
        side = image.shape[-1]
        if image.ndim != 4 or tuple(image.shape[1:]) != (3, side, side):
            raise VariantError(f"images must be square, (B, 3, s, s), not {tuple(image.shape)}")
        if side * self.prompt_encoder.grid % self.input_size:
            raise VariantError(
                f"images of side {side} have no whole grid where {self.input_size} has {self.prompt_encoder.grid}"
            )
        return self._embedding(image)

    def _embedding(self, image: Tensor) -> Embedding:
        encoded = self.image_encoder(image)
        return Embedding(encoded[0], tuple(encoded[1:])) if isinstance(encoded, tuple) else Embedding(encoded)

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

        All N are decoded at once, in the published sizes about 30 MB a prompt, 60 MB with skip connections: a caller
        with hundreds splits them.

        Raises:
            VariantError: if the prompts have other shapes than documented, neither boxes nor points are given, or the
                embedding is another model's.
        """
        count = self._count(boxes, points, scribble, image_index)
        boxes, points, scribble = (self._as_float(prompt) for prompt in (boxes, points, scribble))
        grid = emb.image.shape[-1]
        if scribble is not None and scribble.shape[-1] != 4 * grid:
            scribble = F.adaptive_max_pool2d(scribble, 4 * grid)  # keeps thin strokes
        tokens, dense = self.prompt_encoder(boxes, points, scribble)
        if len(emb.skips) != self.mask_decoder.skips:
            raise VariantError(
                f"the embedding has {len(emb.skips)} further outputs and this decoder reads {self.mask_decoder.skips}: "
                "it comes from another model"
            )
        # Boxes of one image share what is computed from the image alone; a scribble changes the image for each prompt.
        shared = image_index is None and scribble is None
        image = emb.image[:1] if shared else of_prompts(emb.image, image_index, count)
        positions = self.prompt_encoder.dense_positions(grid)
        logits, iou = self.mask_decoder(image, positions, tokens, dense, multimask, emb.skips, image_index)
        return logits, iou

    def _as_float(self, prompt: Tensor | None) -> Tensor | None:
        """A prompt in the type that positions are computed in; whole numbers and float64 are welcome."""
        dtype = self.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.dtype
        return prompt if prompt is None or prompt.dtype == dtype else prompt.to(dtype)

    def unused_modules(self) -> dict[str, int]:
        """Modules that only the published file needs and no computation reaches: name and number of parameters."""
        unused = {name: module for name, module in self.named_modules() if isinstance(module, NeverRun)}
        return {name: sum(parameter.numel() for parameter in module.parameters()) for name, module in unused.items()}

    def unused_parameters(self) -> int:
        """How many of the model's parameters no computation reaches; 0 in most models."""
        return sum(self.unused_modules().values())

    def _count(
        self, boxes: Tensor | None, points: Tensor | None, scribble: Tensor | None, image_index: Tensor | None
    ) -> int:
        """The number of prompts N, after checking that all of them agree on it."""
        if boxes is not None:
            count = boxes.shape[0]
        elif points is not None:
            count = points.shape[0]
        else:
            raise VariantError("decode needs boxes or points")
        side = self.input_size
        sides = (side, 4 * self.prompt_encoder.grid)
        wanted = {
            "boxes": "(N, 4)",
            "points": "(N, P, 2)",
            "scribble": f"(N, 1, {side}, {side})",
            "image_index": "(N,)",
        }
        fits = {
            "boxes": boxes is None or tuple(boxes.shape) == (count, 4),
            "points": points is None or (points.ndim == 3 and points.shape[0] == count and points.shape[2] == 2),
            "scribble": scribble is None or any(tuple(scribble.shape) == (count, 1, s, s) for s in sides),
            "image_index": image_index is None or tuple(image_index.shape) == (count,),
        }
        given = {"boxes": boxes, "points": points, "scribble": scribble, "image_index": image_index}
        for name, good in fits.items():
            if not good:
                got = tuple(given[name].shape)  # type: ignore[union-attr]
                raise VariantError(f"{name} must be {wanted[name]} with N = {count}, not {got}")
        return count
