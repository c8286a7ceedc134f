"""One example call of a model, and a module that makes it, so that one trace covers the whole model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

POINTS = 4
"""Points a box, as the one variant that is given points has them (Swin-LiteMedSAM, section 2.3)."""


def example(model: Any, prompts: Sequence[str] = ("box",), batch: int = 1) -> dict[str, Any]:
    """Keyword arguments of a call: ``batch`` images, and for each of them one set of the given prompts.

    Tensors are made on torch's current default device.  What counters see depends on the shapes alone.

    Args:
        model: a torch variant.
        prompts: ``box``, ``points`` (`POINTS` of them), ``scribble``.
        batch: number of images.
    """
    import torch

    side = model.input_size
    given: dict[str, Any] = {"image": torch.zeros(batch, 3, side, side)}
    if "box" in prompts:
        given["boxes"] = (torch.tensor([[0.25, 0.25, 0.75, 0.75]]) * side).repeat(batch, 1)
    if "points" in prompts:
        given["points"] = torch.full((batch, POINTS, 2), side / 2)
    if "scribble" in prompts:
        scribble = 4 * getattr(model.prompt_encoder, "grid", side // 4)
        given["scribble"] = torch.zeros(batch, 1, scribble, scribble)
    if batch > 1:
        given["image_index"] = torch.arange(batch)
    return given


def one_call(model: Any, given: Mapping[str, Any], encoder_only: bool = False, multimask: bool = False) -> Any:
    """A module whose positional inputs are the values of ``given``: encodes, then decodes unless ``encoder_only``.

    The model is its child ``model``.
    """
    from torch import nn

    class OneCall(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.names = tuple(given)[1:]

        def forward(self, image: Any, *prompts: Any) -> Any:
            embedding = self.model.encode(image)
            if encoder_only:
                return embedding.image
            named = dict(zip(self.names, prompts, strict=True))
            return self.model.decode(embedding, named.pop("boxes", None), **named, multimask=multimask)

    return OneCall()
