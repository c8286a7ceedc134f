"""The complexity job: parameters and FLOPs of a variant, whole and per part.

One convention for every variant: fvcore on the model in eval mode, one image (batch 1), one box and one mask.  fvcore
counts one multiply-add as one FLOP, batch normalisation 2 per element and layer normalisation 5; element-wise
operators, softmax and GELU are not counted, and how often each of them occurs is recorded.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import variants
from harness.errors import BenchError
from harness.schema import PARTS, Record

if TYPE_CHECKING:
    from harness.jobs import JobContext, JobSpec

KEY = "complexity"
CONVENTION = "fvcore; 1 multiply-add = 1; eval; batch 1; one box"
_WHOLE_AND_PARTS: tuple[str | None, ...] = (None, *PARTS)


@dataclass(frozen=True)
class Count:
    """FLOPs of a model or of a part of it.

    Attributes:
        flops: multiply-adds counted.
        by_operator: the same per operator.
        uncounted: operators that were not counted, and how often each occurs.
    """

    flops: int
    by_operator: Mapping[str, int]
    uncounted: Mapping[str, int]


def run(spec: JobSpec, context: JobContext) -> None:
    """Count parameters and FLOPs; one unit of work.

    Raises:
        BenchError: the variant cannot be built.
    """
    if context.done(KEY):
        return
    context.progress(0.0, spec.variant.name)
    try:
        resolved = variants.resolve(spec.variant.name, spec.variant.set)
        if not resolved.needs_torch:
            context.append(KEY, _without_torch(resolved.params))
            return
        overrides: dict[str, Any] = dict(spec.variant.set)
        model = variants.create(spec.variant.name, seed=spec.weights.seed, **overrides)
    except variants.VariantError as error:
        raise BenchError(str(error)) from error
    context.append(KEY, [*parameter_records(model), *flop_records(model)])


def parameter_records(model: Any) -> Iterator[Record]:
    """``params`` of the whole model and of each part, trainable or not, buffers left out."""
    yield Record("params", float(_parameters(model)))
    for part in PARTS:
        yield Record("params", float(_parameters(getattr(model, part))), phase=part)


def flop_records(model: Any) -> Iterator[Record]:
    """``flops`` and ``uncounted_operators`` of the whole model and of each part; ``crashed`` if it cannot be traced."""
    try:
        counts = count_flops(model)
    except Exception as error:  # a model fvcore cannot trace still has parameters to show
        reason = f"fvcore cannot trace the model: {type(error).__name__}: {error}".splitlines()[0]
        yield from (
            Record(metric, phase=phase, status="crashed", reason=reason)
            for metric in ("flops", "uncounted_operators")
            for phase in _WHOLE_AND_PARTS
        )
        return
    for phase, count in counts.items():
        detail = json.dumps({"convention": CONVENTION, "by_operator": dict(count.by_operator)}, sort_keys=True)
        yield Record("flops", float(count.flops), phase=phase, detail=detail)
        times = sum(count.uncounted.values())
        listed = json.dumps(dict(count.uncounted), sort_keys=True)
        yield Record("uncounted_operators", float(times), phase=phase, detail=listed)


def count_flops(model: Any) -> dict[str | None, Count]:
    """Count one image and one box: ``None`` is the whole model, the others are words of ``PARTS``.

    Args:
        model: a torch variant with the parts as children.
    """
    import torch

    side = model.input_size
    image = torch.zeros(1, 3, side, side)
    box = torch.tensor([[0.25, 0.25, 0.75, 0.75]]) * side
    analysis = _fvcore().FlopCountAnalysis(_one_box(model.eval()), (image, box))
    with torch.no_grad():
        # What is not counted is recorded, and what tracing warns of (shapes fixed by the example) is meant here.
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        return {phase: _count(analysis, f"model.{phase}" if phase else "") for phase in _WHOLE_AND_PARTS}


def _fvcore() -> Any:
    """`fvcore.nn`, without the remark of torch.jit on how fvcore is written: the one place that knows of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is (deprecated|not supported)", DeprecationWarning)
        from fvcore import nn
    return nn


def _one_box(model: Any) -> Any:
    """A module that encodes an image and decodes one box, so that one trace covers the whole model."""
    from torch import nn

    class OneBox(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: Any, box: Any) -> Any:
            return self.model.decode(self.model.encode(image), box)

    return OneBox()


def _count(analysis: Any, module: str) -> Count:
    by_operator = {name: int(n) for name, n in analysis.by_operator(module).items()}  # first: this is what traces
    uncounted = {name.removeprefix("aten::"): int(n) for name, n in analysis.unsupported_ops(module).items()}
    return Count(int(analysis.total(module)), by_operator, uncounted)


def _without_torch(params: int | None) -> Iterator[Record]:
    """Records of a variant that is not a torch module."""
    why = "the variant is not a torch module, so there is no graph to count"
    if params is None:
        yield Record("params", status="unsupported", reason="the variant is not a torch module and states no count")
    else:
        yield Record("params", float(params))
    if params == 0:
        yield from (Record("params", 0.0, phase=part) for part in PARTS)
    for metric in ("flops", "uncounted_operators"):
        yield from (Record(metric, phase=phase, status="unsupported", reason=why) for phase in _WHOLE_AND_PARTS)


def _parameters(module: Any) -> int:
    return sum(int(p.numel()) for p in module.parameters())
