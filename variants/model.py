"""The one interface that training, pipelines and measurements use."""

from __future__ import annotations

from typing import Any, Protocol

from variants.embedding import Embedding


class PromptableModel(Protocol):
    """A promptable segmentation model.  Torch variants take and return tensors, the others numpy arrays.

    Torch variants are also `torch.nn.Module`s with the children `image_encoder`, `prompt_encoder` and `mask_decoder`.
    They may have a method `encode_resized` that encodes images of another side; a training stage with `scale` needs it,
    see `variants.sam.model.SamModel`.
    """

    @property
    def input_size(self) -> int:
        """Side S of the square network input in pixels."""

    def encode(self, image: Any) -> Embedding:
        """Encode float32 images (B, 3, S, S) in [0, 1]."""

    def decode(
        self,
        emb: Embedding,
        boxes: Any,
        image_index: Any = None,
        points: Any = None,
        scribble: Any = None,
        multimask: bool = False,
    ) -> tuple[Any, Any]:
        """Decode N prompts, which may belong to different images.

        Args:
            emb: what `encode` returned.
            boxes: (N, 4) x0, y0, x1, y1 in network pixels.
            image_index: (N,) integers, the image of each prompt; `None`: all belong to image 0.
            points: (N, P, 2) foreground points x, y in network pixels, or `None`.
            scribble: (N, 1, S, S) float, 1 on the scribble, or `None`.
            multimask: give the three alternative masks instead of the single one.

        Returns:
            Logits (N, 1 or 3, 256, 256), a mask is where they are > 0, and the predicted IoU (N, 1 or 3).
        """
