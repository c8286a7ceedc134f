"""Fusing: what is separate only for training becomes one convolution, and the outcome is checked.

Batch normalisations are folded into the convolutions before them, and branches into one convolution (RepVGG, Ding et
al., CVPR 2021; RepViT, section 3.2).  Any module with a method `fused` takes part.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from variants.errors import VariantError

Model = TypeVar("Model")

TOLERANCE = 1e-6
"""Largest difference of an encoder output in float64, in standard deviations of that output.

Between what rounding gives, 1e-12, and what the smallest mistake gives: one forgotten shift of Rep-MedSAM's tiny size
with random weights, 2.6e-2.  In float32 no limit could tell them apart: there Rep-MedSAM with random weights, whose
inner values grow to 1e6, differs from its own float64 outcome by up to 1.3e-3.
"""


@runtime_checkable
class Fusible(Protocol):
    """A module that has a simpler equal in evaluation mode."""

    def fused(self) -> nn.Module:
        """A new module, of the same number type, that computes the same as this one in evaluation mode.

        Its weights are computed in float64 and rounded once.
        """
        ...


def fuse(model: Model, verify: bool = True) -> Model:
    """A copy of `model` in which every fusible module of the image encoder is replaced by its simpler equal.

    Args:
        model: in evaluation mode, with its final weights; left as it is.
        verify: compare the encodings of a seeded random image by both, in float64; `False` where only the structure
            matters, because fused weights are loaded next.

    Raises:
        VariantError: if there is nothing to fuse, the model is in training mode, or the encodings differ.
    """
    encoder = getattr(model, "image_encoder", None)
    if not isinstance(encoder, nn.Module) or not any(_fusible(encoder)):
        raise VariantError("the image encoder has nothing to fuse: no normalisation behind a convolution, no branches")
    assert isinstance(model, nn.Module)
    if any(module.training for module in model.modules()):
        raise VariantError("a model in training mode cannot be fused: its statistics still change; call eval() first")
    with torch.no_grad():
        fused = _replaced(model, encoder)
        if verify:
            size = model.input_size
            assert isinstance(size, int)
            _verify(encoder, fused.get_submodule("image_encoder"), size)
    return fused


def _replaced(module: Model, encoder: nn.Module) -> Model:
    """A copy of `module` with the fusible parts of its `encoder` replaced."""
    # What the memo holds is taken as the copy of the object that has this id.
    return copy.deepcopy(module, {id(part): part.fused() for part in _fusible(encoder)})


def _fusible(module: nn.Module) -> Iterator[Fusible]:
    """The outermost fusible modules, in the order of the model."""
    if isinstance(module, Fusible):
        yield module
    else:
        for child in module.children():
            yield from _fusible(child)


def _verify(encoder: nn.Module, fused: nn.Module, size: int) -> None:
    """Raise `VariantError` unless fusing in float64 changes nothing and `fused` has the weights of that, rounded."""
    exact = copy.deepcopy(encoder).double()
    exact_fused = _replaced(exact, exact)
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).double()
    image = image.to(next(encoder.parameters()).device)
    pairs = zip(_outputs(exact(image)), _outputs(exact_fused(image)), strict=True)
    change = max(
        (float((after - before).abs().max() / before.std()) for before, after in pairs),
        key=lambda value: (math.isnan(value), value),
    )
    # Not `change > TOLERANCE`: that is false for NaN.
    if not change <= TOLERANCE:
        raise VariantError(
            f"fusing changes the image encoder's outcome by {change:.2g} of its standard deviation, more than the "
            f"{TOLERANCE:g} that rounding explains: do not fuse this model"
        )
    wanted = exact_fused.state_dict()
    for key, got in fused.state_dict().items():
        if not torch.equal(got, wanted[key].to(got.dtype)):
            raise VariantError(f"fusing loses digits in {key} of the image encoder: compute it in float64, round once")


def _outputs(encoded: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The embedding, and what else the encoder hands to the decoder."""
    return encoded if isinstance(encoded, tuple) else (encoded,)
