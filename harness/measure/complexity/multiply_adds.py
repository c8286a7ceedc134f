"""Multiply-adds as fvcore counts them, for the whole model and for each part.

fvcore counts one multiply-add as one, batch normalisation 2 per element in eval mode and 5 in train mode, layer
normalisation 5; element-wise operators, softmax and GELU are not counted, and how often each occurs is told.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.measure.complexity.inputs import example, one_call
from harness.schema import PARTS

WHOLE_AND_PARTS: tuple[str | None, ...] = (None, *PARTS)
NORMALISATIONS = ("batch_norm", "layer_norm", "group_norm", "instance_norm")
"""What fvcore counts and torch's FlopCounterMode does not."""


@dataclass(frozen=True)
class Count:
    """Multiply-adds of a model or of a part of it.

    Attributes:
        flops: multiply-adds counted.
        by_operator: the same per operator.
        uncounted: operators that were not counted, and how often each occurs.
    """

    flops: int
    by_operator: Mapping[str, int]
    uncounted: Mapping[str, int]

    @property
    def normalisation(self) -> int:
        """The part of ``flops`` that is normalisation, where one "multiply-add" is fvcore's rule and no product."""
        return sum(self.by_operator.get(name, 0) for name in NORMALISATIONS)


def count_flops(model: Any, prompts: Sequence[str] = ("box",)) -> dict[str | None, Count]:
    """Count one image and one set of prompts, in eval mode: ``None`` is the whole model, else words of ``PARTS``.

    Args:
        model: a torch variant with the parts as children.
        prompts: ``box``, ``points``, ``scribble``.
    """
    analysis = _analysis(model.eval(), prompts, batch=1, encoder_only=False)
    return {phase: _count(analysis, f"model.{phase}" if phase else "") for phase in WHOLE_AND_PARTS}


def count_module(model: Any, module: str | None, prompts: Sequence[str], batch: int) -> int:
    """Multiply-adds of one module, ``None`` for the whole model, in the mode the model is in.

    Args:
        module: name of a submodule; where it lies in the image encoder, nothing is decoded.
        prompts: for each image.
        batch: number of images.
    """
    encoder_only = module is not None and module.partition(".")[0] == "image_encoder"
    analysis = _analysis(model, prompts, batch, encoder_only)
    return int(analysis.total(f"model.{module}" if module else ""))


def _analysis(model: Any, prompts: Sequence[str], batch: int, encoder_only: bool) -> Any:
    """fvcore's analysis of one call.

    The call is computed: fvcore reads a trace of torch.jit, which works on no tensors without values (`meta`, fake).
    """
    import torch

    given = example(model, prompts, batch)
    if encoder_only:
        given = {"image": given["image"]}
    with torch.no_grad():
        analysis = _fvcore().FlopCountAnalysis(one_call(model, given, encoder_only), tuple(given.values()))
        # What is not counted is told, and what tracing warns of (shapes fixed by the example) is meant here.
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        analysis.total()  # the trace is made here, once
    return analysis


def _fvcore() -> Any:
    """`fvcore.nn`, without the remark of torch.jit on how fvcore is written: the one place that knows of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is (deprecated|not supported)", DeprecationWarning)
        from fvcore import nn
    return nn


def _count(analysis: Any, module: str) -> Count:
    by_operator = {name: int(n) for name, n in analysis.by_operator(module).items()}
    uncounted = {name.removeprefix("aten::"): int(n) for name, n in analysis.unsupported_ops(module).items()}
    return Count(int(analysis.total(module)), by_operator, uncounted)
