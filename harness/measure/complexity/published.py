"""A printed figure, counted again by the convention that yields it."""

from __future__ import annotations

import copy
from typing import Any

import variants
from harness.measure.complexity.inputs import example, one_call
from harness.measure.complexity.multiply_adds import count_module
from harness.measure.conventions import Figure
from harness.provenance import version

THOP = "ultralytics-thop"
THOP_RULES = ("2", "0")
"""Major and minor version with the rules of the papers' time; later ones count what no module's rule covers as well."""


class MissingCounter(Exception):  # noqa: N818 - a fact about this machine, not a mistake
    """The counter of a figure is not installed; the text says how to install it."""


def recompute(model: Any, figure: Figure) -> float:
    """The value that a figure's convention gives for a model.

    fvcore and thop compute the call, with the convention's batch.

    Args:
        model: a torch variant in eval mode; it is left as it is.

    Raises:
        MissingCounter: the convention's counter is not installed.
    """
    if figure.fused:
        model = variants.fuse(copy.deepcopy(model), verify=False)
    if figure.counter == "parameters":
        return float(sum(p.numel() for p in _module(model, figure).parameters()))
    if figure.counter == "thop":
        return _thop(model, figure)
    if figure.counter == "torch":
        return _torch(model, figure)
    if figure.mode == "train":
        model = copy.deepcopy(model).train()  # a forward in training mode moves the statistics of batch normalisation
    return float(count_module(model, figure.module, figure.prompts, figure.batch))


def _module(model: Any, figure: Figure) -> Any:
    return model.get_submodule(figure.module) if figure.module else model


def _thop(model: Any, figure: Figure) -> float:
    found = version(THOP)
    if tuple(found.split(".")[:2]) != THOP_RULES:
        what = "which is not installed" if found == "missing" else f"and {THOP} {found} counts by other rules"
        raise MissingCounter(f"the figure was counted with thop, {what}: `pip install '{THOP}==2.0.*'`")
    import thop

    given = example(model, figure.prompts, figure.batch)
    module = copy.deepcopy(_module(model, figure)) if figure.module else one_call(copy.deepcopy(model), given)
    inputs = (given["image"],) if figure.module else tuple(given.values())
    flops, params = thop.profile(module, inputs=inputs, verbose=False)
    return float(params if figure.quantity == "params" else flops)


def _torch(model: Any, figure: Figure) -> float:
    """torch's FlopCounterMode, which counts two operations per multiply-add and needs shapes alone."""
    from torch.utils.flop_counter import FlopCounterMode

    from harness.measure.complexity.execution import shapes_only

    with shapes_only(model) as shapes, FlopCounterMode(display=False) as counter:
        given = example(shapes, figure.prompts, figure.batch)
        call = one_call(shapes, given)
        call(*given.values())
    found = counter.get_flop_counts().get(f"{type(call).__name__}.model.{figure.module}", {})
    return float(sum(found.values()) if figure.module else counter.get_total_flops())
