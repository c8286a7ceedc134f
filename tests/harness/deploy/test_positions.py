"""The encoding of coordinates as a model of its own, in fp32 beside a decoder in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.deploy.export import COUNTS, graphs
from harness.deploy.onnx import export_onnx
from harness.deploy.positions import cut_out
from harness.inference.openvino_session import OpenVinoSession, settings, with_positions
from tests.harness.deploy.support import SPEC, Ready, toy

POINTS = replace(SPEC, prompts=("box", "points"))


def requests(models: Iterable[Any], precision: str = "fp32") -> list[Any]:
    import openvino

    chosen = settings(precision, 1)
    return [openvino.Core().compile_model(model, "CPU", chosen).create_infer_request() for model in models]


@pytest.mark.parametrize("spec", [SPEC, POINTS])
def test_a_decoder_and_what_was_cut_out_give_together_what_the_decoder_gave(spec: Any, tmp_path: Path) -> None:
    import openvino

    decoder = graphs(toy(), spec)[1]
    export_onnx(decoder, tmp_path / "decoder.onnx")
    whole, rest = (openvino.Core().read_model(tmp_path / "decoder.onnx") for _ in range(2))
    positions = cut_out(rest)
    assert not {"Sin", "Cos"} & {op.get_type_name() for op in rest.get_ordered_ops()}
    assert {port.any_name for port in positions.inputs} == set(decoder.free)
    before, own, after = requests([whole, positions, rest])
    for count in COUNTS:
        feeds = {name: value.numpy() for name, value in decoder.batch(count).items()}
        expected = list(before.infer(feeds).values())
        found = list(after.infer(with_positions(own, feeds)).values())
        for got, value in zip(found, expected, strict=True):
            np.testing.assert_allclose(got, value, atol=1e-5)


def test_a_model_without_coordinates_is_left_as_it_is() -> None:
    import openvino
    import openvino.opset13 as ops

    image = ops.parameter([1, 4], openvino.Type.f32, name="image")
    model = openvino.Model([ops.concat([ops.sin(image), ops.exp(image)], 1)], [image])
    assert cut_out(model) is None
    assert [op.get_type_name() for op in model.get_ordered_ops()] == ["Parameter", "Sin", "Exp", "Concat", "Result"]


@pytest.mark.parametrize("compiled", [False, True])
def test_beside_bf16_coordinates_are_encoded_as_torch_encodes_them(compiled: bool, ready: Callable[..., Ready]) -> None:
    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bfloat16 instructions")
    made = ready(backend="openvino", precision="bf16", compile=compiled)
    session = made.session()
    assert isinstance(session, OpenVinoSession)
    boxes: NDArray[np.float32] = np.array([[3, 5, 20, 51], [17.5, 10, 60.25, 41]], np.float32)
    found = with_positions(session._requests["positions"], {"boxes": boxes})["positions0"]
    expected = toy().prompt_encoder._positions(_pixels(boxes)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def _pixels(boxes: NDArray[np.float32]) -> Any:
    import torch

    return torch.from_numpy(boxes).reshape(-1, 2, 2)
