"""Dynamic int8 of linear layers in torch: the one place that knows which library does it.

The papers' scheme (Gray's Anatomy, section 2.3): `quantize_dynamic(model, {nn.Linear}, torch.qint8)`.
Weights are int8 ahead, activations get their scale at every call, sums are exact, everything between layers is fp32.
torch.ao is deprecated; where it is gone its successor torchao does the same to the same layers, with a scale for each
row of activations instead of one for all, so results differ in the last digits and the facts name the library.
"""

from __future__ import annotations

import warnings

from torch import nn

from harness.errors import UnavailableError

WARNINGS = (
    "torch.ao.quantization is deprecated",
    "must run observer before calling calculate_qparams",
    "torch.quantize_per_tensor",
    "Please use quant_min and quant_max",
    ".*TypedStorage is deprecated",
)
"""Beginnings of the messages of torch.ao about itself."""


def library() -> str:
    """``torch.ao``, or ``torchao`` where torch no longer has it.

    Raises:
        UnavailableError: neither is there.
    """
    import torch

    if hasattr(torch, "ao") and hasattr(getattr(torch.ao, "quantization", None), "quantize_dynamic"):
        return "torch.ao"
    try:
        import torchao  # noqa: F401
    except ImportError:
        raise UnavailableError("this torch has no dynamic quantisation of its own; `pip install torchao`") from None
    return "torchao"


def quantise_linear(model: nn.Module) -> nn.Module:
    """A copy of the model whose `nn.Linear` layers compute in int8; the model stays as it is.

    Raises:
        UnavailableError: no library does it.
    """
    if library() == "torch.ao":
        return _with_torch_ao(model)
    return _with_torchao(model)


def is_quantised(module: nn.Module) -> bool:
    """Whether a layer of a model that `quantise_linear` returned computes in int8."""
    if type(module).__module__.startswith("torch.ao.nn.quantized.dynamic"):
        return type(module).__name__ == "Linear"
    weight = getattr(module, "weight", None)
    return isinstance(module, nn.Linear) and type(weight).__module__.startswith("torchao.")


def _with_torch_ao(model: nn.Module) -> nn.Module:
    import torch
    from torch.ao.quantization import quantize_dynamic

    with warnings.catch_warnings():
        for message in WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        quantised: nn.Module = quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)  # type: ignore[no-untyped-call]
    return quantised


def _with_torchao(model: nn.Module) -> nn.Module:
    import copy

    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    quantised = copy.deepcopy(model)
    quantize_(quantised, Int8DynamicActivationInt8WeightConfig())  # takes nn.Linear unless told otherwise
    return quantised
