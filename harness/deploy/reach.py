"""What a quantisation reached: layers, and the share of the multiply-adds that is computed in int8.

Multiply-adds are those of convolutions and matrix products, one image and one prompt; the products of attention have no
weights, so they are no layers, but they count in the whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.inference.prepared import DECODER, ENCODER

COORDINATES = 2
"""A product of this inner length is the encoding of coordinates, not a layer, and never quantised."""

if TYPE_CHECKING:
    from harness.deploy.export import Graph

PARTS = {ENCODER: "image_encoder", DECODER: "mask_decoder"}
"""The decoder's graph holds the prompt encoder as well; without a scribble that has no layers."""


@dataclass(frozen=True)
class Product:
    """One convolution or matrix product.

    Attributes:
        part: ``image_encoder`` or ``mask_decoder``.
        macs: multiply-adds.
        layer: whether it has weights.
        quantised: whether it is computed in int8.
    """

    part: str
    macs: int
    layer: bool
    quantised: bool


def summary(products: Iterable[Product]) -> dict[str, Any]:
    """The facts, as JSON data: ``layers`` quantised, ``layers_of``, ``layers_by_part``, ``share``, ``share_by_part``.

    ``share_by_part`` are shares of a part's own multiply-adds, which ``macs_by_part`` holds.
    """
    every = list(products)
    parts = {part: [p for p in every if p.part == part] for part in PARTS.values()}
    return {
        "layers": sum(p.quantised and p.layer for p in every),
        "layers_of": sum(p.layer for p in every),
        "layers_by_part": {
            part: {"quantised": sum(p.quantised and p.layer for p in own), "of": sum(p.layer for p in own)}
            for part, own in parts.items()
        },
        "share": _share(every),
        "share_by_part": {part: _share(own) for part, own in parts.items()},
        "macs_by_part": {part: sum(p.macs for p in own) for part, own in parts.items()},
    }


def _share(products: Sequence[Product]) -> float:
    whole = sum(p.macs for p in products)
    return sum(p.macs for p in products if p.quantised) / whole if whole else 0.0


def of_torch(graphs: Sequence[Graph], quantised: Collection[str]) -> dict[str, Any]:
    """Reach of a quantisation of torch layers.

    Args:
        graphs: of the model before quantisation.
        quantised: names of the modules (in the model) that compute in int8.
    """
    return summary(product for graph in graphs for product in _torch_products(graph, quantised))


def _torch_products(graph: Graph, quantised: Collection[str]) -> Iterable[Product]:
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    counted: dict[str, int] = {}

    def count(name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            weight = module.weight
            size = inputs[0].numel() if isinstance(module, nn.ConvTranspose2d) else output.numel()
            counted[name] = counted.get(name, 0) + size * weight[0].numel()

        return hook

    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    named = {name: m for name, m in graph.module.get_submodule("model").named_modules() if isinstance(m, kinds)}
    hooks = [module.register_forward_hook(count(name)) for name, module in named.items()]
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            graph.module(*graph.batch(1).values())
    finally:
        for hook in hooks:
            hook.remove()
    part = PARTS[graph.role]
    yield from (Product(part, macs, True, name in quantised) for name, macs in counted.items())
    yield Product(part, counter.get_total_flops() // 2 - sum(counted.values()), False, False)


def of_onnx(
    graphs: Sequence[Graph], plain: Mapping[str, Path], quantised: Mapping[str, Collection[str]]
) -> dict[str, Any]:
    """Reach of a quantisation of ONNX graphs.

    Args:
        graphs: what the files were made from.
        plain: role → file before quantisation.
        quantised: role → names of the nodes of that file that are computed in int8.
    """
    return summary(p for graph in graphs for p in _onnx_products(graph, plain[graph.role], quantised[graph.role]))


def _onnx_products(graph: Graph, path: Path, quantised: Collection[str]) -> Iterable[Product]:
    import onnx

    model = onnx.load(str(path))
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm")]
    shapes = weights | _shapes(model, {name for node in nodes for name in (*node.input, *node.output)}, graph)
    for node in nodes:
        first, second, out = (shapes[name] for name in (*node.input[:2], node.output[0]))
        if node.op_type == "Conv":
            macs = prod(out) * prod(second[1:])
        elif node.op_type == "ConvTranspose":
            macs = prod(first) * prod(second[1:])
        else:
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            macs = prod(out) * first[0 if transposed else -1]
        layer = node.input[1] in weights and (node.op_type.startswith("Conv") or second[0] > COORDINATES)
        yield Product(PARTS[graph.role], macs, layer, node.name in quantised)


def _shapes(model: Any, wanted: Collection[str], graph: Graph) -> dict[str, tuple[int, ...]]:
    """Shapes of tensors, by running the graph with one image or prompt."""
    import onnx
    import onnxruntime

    made = {name for node in model.graph.node for name in node.output}
    names = sorted(made & set(wanted))
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {name: value.numpy() for name, value in graph.batch(1).items()}
    shapes = {name: tuple(np.shape(value)) for name, value in zip(names, session.run(names, feeds), strict=True)}
    return shapes | {name: tuple(value.shape) for name, value in feeds.items()}
