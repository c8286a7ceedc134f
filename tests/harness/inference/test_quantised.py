"""The one place that knows which library quantises linear layers."""

from __future__ import annotations

import sys
import types
import warnings

import pytest
import torch
from torch import nn

from harness.errors import UnavailableError
from harness.inference import quantised


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4), nn.Conv2d(1, 1, 1)).eval()


def test_linear_layers_of_a_copy_compute_in_int8_and_no_warning_gets_out() -> None:
    plain = model()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        smaller = quantised.quantise_linear(plain)
        x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            difference = (smaller[:3](x) - plain[:3](x)).abs().max()
    assert [quantised.is_quantised(module) for module in smaller] == [True, False, True, False]
    assert not any(quantised.is_quantised(module) for module in plain.modules())
    assert 0 < difference < 0.05


def test_where_torch_no_longer_has_it_its_successor_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Int8Tensor(torch.Tensor):
        pass

    Int8Tensor.__module__ = "torchao.quantization"

    def quantize_(inside: nn.Module, config: object) -> None:
        assert config == "config"
        for module in inside.modules():
            if isinstance(module, nn.Linear):
                module.weight = nn.Parameter(module.weight.detach().as_subclass(Int8Tensor), requires_grad=False)

    successor = types.ModuleType("torchao")
    inner = types.ModuleType("torchao.quantization")
    inner.quantize_, inner.Int8DynamicActivationInt8WeightConfig = quantize_, lambda: "config"
    monkeypatch.setitem(sys.modules, "torchao", successor)
    monkeypatch.setitem(sys.modules, "torchao.quantization", inner)
    monkeypatch.delattr(torch.ao.quantization, "quantize_dynamic")
    plain = model()
    assert quantised.library() == "torchao"
    assert [quantised.is_quantised(module) for module in quantised.quantise_linear(plain)] == [True, False, True, False]
    assert not any(quantised.is_quantised(module) for module in plain.modules())


def test_without_either_library_the_pip_command_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.ao.quantization, "quantize_dynamic")
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(UnavailableError, match="pip install torchao"):
        quantised.quantise_linear(model())
