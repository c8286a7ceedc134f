"""Quantisation of exported graphs to int8, by onnxruntime.  Layers of torch models: `harness.inference.quantised`."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.deploy.export import Graph
from harness.deploy.reach import COORDINATES
from harness.deploy.samples import Sample
from harness.errors import BenchError

LAYERS = ["Conv", "MatMul"]
"""Operators that are quantised: those that hold nearly all multiply-adds."""
_LAYOUT = re.compile(r"_token_\d+$")


def simplified(source: Path, target: Path) -> None:
    """Write a graph whose layers a quantiser recognises: constants folded, `Gemm` as `MatMul` and `Add`."""
    import onnx
    import onnxruntime
    from onnxruntime.quantization.onnx_model import ONNXModel

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.intra_op_num_threads = 1
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    model = ONNXModel(onnx.load(str(target)))
    model.replace_gemm_with_matmul()
    del model.model.graph.value_info[:]  # shapes of the weights that were just transposed
    onnx.save(model.model, str(target))


def excluded(source: Path) -> list[str]:
    """Matrix products that stay in fp32: those without weights (attention), and coordinates times the frequencies of
    their encoding, since eight bits of a coordinate are whole pixels.
    """
    import onnx

    graph = onnx.load(str(source)).graph
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    return [n.name for n in products if n.input[1] not in weights or weights[n.input[1]][0] <= COORDINATES]


def quantise_dynamic(source: Path, target: Path) -> set[str]:
    """Weights to int8 ahead, activations at every call; of layers with constant weights.

    Convolutions become `ConvInteger`, which onnxruntime computes for unsigned weights without a detour.

    Returns:
        Names of the nodes of ``source`` that are computed in int8.
    """
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantise

    with _silent():
        quantise(
            str(source),
            str(target),
            op_types_to_quantize=LAYERS,
            weight_type=QuantType.QUInt8,
            nodes_to_exclude=excluded(source),
        )
    nodes = onnx.load(str(target), load_external_data=False).graph.node
    return {n.name.removesuffix("_quant") for n in nodes if n.op_type in ("ConvInteger", "MatMulInteger")}


def quantise_static(source: Path, target: Path, feeds: Sequence[Mapping[str, Any]]) -> None:
    """Weights and activations to int8, with the ranges of activations taken from ``feeds`` (MinMax), one weight scale a
    channel.

    Raises:
        BenchError: nothing to calibrate on.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType
    from onnxruntime.quantization import quantize_static as quantise

    if not feeds:
        raise BenchError("static quantisation needs calibration images and got none")

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(feeds)

        def get_next(self) -> Mapping[str, Any] | None:
            return next(self._left, None)

    with _silent():
        quantise(
            str(source),
            str(target),
            Reader(),
            op_types_to_quantize=LAYERS,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=excluded(source),
        )


def statically_quantised(plain: Path, optimised: Path) -> set[str]:
    """Names of the nodes of ``plain`` that onnxruntime really computes in int8, from the graph it has optimised.

    Raises:
        BenchError: a node cannot be found again, so the reach would be told wrongly.
    """
    import onnx

    known = {node.name for node in onnx.load(str(plain)).graph.node}
    kinds = ("QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat")
    found = [node.name for node in onnx.load(str(optimised)).graph.node if node.op_type in kinds]
    names = {_LAYOUT.sub("", name) for name in found}  # renamed when the memory layout changes
    if len(names) != len(found) or not names <= known:
        raise BenchError(f"{optimised.name}: this onnxruntime renames quantised nodes, so what int8 reached is unknown")
    return names


def calibration_feeds(graphs: Sequence[Graph], calibration: Sequence[Sample]) -> dict[str, list[dict[str, Any]]]:
    """Inputs of both graphs by role: a decoder's embeddings come from the model in fp32."""
    import torch

    encoder, decoder = graphs
    feeds: dict[str, list[dict[str, Any]]] = {graph.role: [] for graph in graphs}
    for sample in calibration:
        with torch.no_grad():
            outputs = encoder.module(torch.from_numpy(sample.image))
        given = {name: value.numpy() for name, value in zip(encoder.outputs, outputs, strict=True)}
        given |= {"boxes": sample.boxes, "points": sample.points, "scribble": sample.scribble}
        feeds[encoder.role].append({"image": sample.image})
        feeds[decoder.role].append({name: given[name] for name in decoder.inputs})
    return feeds


@contextmanager
def _silent() -> Iterator[None]:
    """Without the quantiser's advice on the root logger to simplify the graph first, which has been done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
