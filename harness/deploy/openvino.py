"""Deployments on OpenVINO: read from ONNX, optionally quantised by nncf, written as its own files, checked."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from harness.config import Deployment
from harness.deploy import Prepared, Progress, Unsupported
from harness.deploy.export import TOLERANCE, Arrays, Graph, Runner, check, graph_facts, graphs, quiet
from harness.deploy.onnx import export_onnx, need
from harness.deploy.quantise import calibration_feeds
from harness.deploy.reach import COORDINATES, PARTS, Product, summary
from harness.deploy.samples import Sample
from harness.errors import BenchError
from harness.inference.openvino_session import COMPILED, for_one_image, opened, settings
from harness.inference.prepared import ENCODER, one_by_one
from variants.registry import VariantSpec

EXTRA = "'medsam-bench[openvino]'"
SCHEME = "nncf quantize, model type transformer: activations and weights calibrated ahead"
MOVES = (
    *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Split", "VariadicSplit", "Slice", "StridedSlice"),
    *("Convert", "Multiply", "Subtract"),  # of weights: from int8 to their scale
)
COMPUTING = ("Convolution", "FullyConnected", "MatMul", "Deconvolution", "Subgraph")
PRODUCTS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")


def prepare_openvino(
    model: Any,
    spec: VariantSpec,
    deployment: Deployment,
    folder: Path,
    calibration: Sequence[Sample],
    progress: Progress,
) -> Prepared:
    """Files of an `OpenVinoSession`; see `harness.deploy.prepare`."""
    need("openvino", install=EXTRA)
    import openvino

    if deployment.precision == "bf16" and "BF16" not in openvino.Core().get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    ):
        raise Unsupported("this CPU has no bfloat16 instructions, and without them OpenVINO computes in f32")
    made = graphs(model, spec)
    files, products, plain_size = dict[str, str](), list[Product](), 0
    facts, tolerance = graph_facts(made) | {"batch": "1"}, TOLERANCE[deployment.precision]
    feeds = {}
    if deployment.precision == "int8":
        os.environ.setdefault("NNCF_CI", "1")  # else it reports its use over the network
        with quiet():
            need("nncf", install=EXTRA)
        feeds = calibration_feeds(made, calibration)
    work = Path(tempfile.mkdtemp(prefix=".openvino-", dir=folder))
    try:
        for graph in made:
            progress(f"exporting the {graph.role}")
            source = work / f"{graph.role}.onnx"
            export_onnx(graph, source)
            read = openvino.Core().read_model(source)
            if "scribble" in graph.inputs:
                image_for_every_scribble(read)
            if feeds:
                unquantised = runner(read, "fp32", deployment)
                check(graph, f"{graph.role}.xml before quantisation", unquantised, TOLERANCE["fp32"])
                plain_size += source.stat().st_size
                progress(f"quantising the {graph.role}")
                read = quantised(read, feeds[graph.role])
                products += reached(graph, read, deployment)
            name = f"{graph.role}{COMPILED}" if deployment.compile else f"{graph.role}.xml"
            if deployment.compile:
                progress(f"checking the {graph.role} before it is compiled")
                check(graph, graph.role, runner(read, deployment.precision, deployment), tolerance)
            progress(f"writing {name}")
            files |= written(read, graph.role, folder / name, deployment)
            progress(f"checking {name}")
            check(graph, name, in_turn(graph, runner(folder / name, deployment.precision, deployment), name), tolerance)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if feeds:
        facts |= {"quantised": summary(products) | {"scheme": SCHEME}, "file_size_fp32": plain_size}
    return Prepared(files, facts)


def written(model: Any, role: str, path: Path, deployment: Deployment) -> dict[str, str]:
    """Write a model, compiled for this CPU if that is asked for; role → file name."""
    import openvino

    if not deployment.compile:
        openvino.save_model(model, path, compress_to_fp16=False)
        return {role: path.name, f"{role}_weights": path.with_suffix(".bin").name}
    chosen = settings(deployment.precision, deployment.threads)
    if role == ENCODER:
        for_one_image(model)
    path.write_bytes(openvino.Core().compile_model(model, "CPU", chosen).export_model().getvalue())
    return {role: path.name}


def image_for_every_scribble(model: Any) -> None:
    """Repeat the image embedding for every prompt before scribbles are added to it.

    The exporter leaves that to the broadcasting of the addition.  OpenVINO (2026.4) then merges the addition into the
    convolution of the scribbles and gives one mask, or fails, where there are several prompts.
    """
    import openvino.opset13 as ops

    boxes, whole = model.input("boxes").get_node(), ops.constant(np.ones(3, dtype=np.int64))
    first, axis = ops.constant(np.zeros(1, dtype=np.int64)), ops.constant(np.int64(0))
    image = model.input("image_embedding").get_node().get_friendly_name()
    for op in model.get_ordered_ops():
        if op.get_type_name() == "Broadcast" and op.input_value(0).get_node().get_friendly_name() == image:
            count = ops.gather(ops.shape_of(boxes), first, axis)
            op.output(0).replace(ops.tile(op.input_value(0), ops.concat([count, whole], 0)).output(0))
    model.validate_nodes_and_infer_types()


def runner(model: Any, precision: str, deployment: Deployment) -> Runner:
    """Runs a model, in memory or in a file, with the free number of images or prompts that the file has."""
    import openvino

    core, chosen = openvino.Core(), settings(precision, deployment.threads)
    compiled = opened(core, model, chosen) if isinstance(model, Path) else core.compile_model(model, "CPU", chosen)
    request = compiled.create_infer_request()

    def run(feeds: Arrays) -> Sequence[Any]:
        found = request.infer(feeds)
        return [np.array(found[output]) for output in compiled.outputs]

    return run


def in_turn(graph: Graph, run: Runner, name: str) -> Runner:
    """``run``, with images one after the other where the file is an encoder that was compiled for one."""
    compiled_for_one = graph.role == ENCODER and name.endswith(COMPILED)
    return (lambda feeds: one_by_one(run, feeds["image"])) if compiled_for_one else run


def quantised(model: Any, feeds: Sequence[Mapping[str, Any]]) -> Any:
    """The model with its layers in int8, calibrated on all of ``feeds``.

    The transformer scheme keeps normalisations and softmax as they are; the encoding of coordinates stays in fp32,
    since eight bits of a coordinate are whole pixels.

    Raises:
        BenchError: nothing to calibrate on.
    """
    import logging

    import nncf

    if not feeds:
        raise BenchError("static quantisation needs calibration images and got none")
    nncf.set_log_level(logging.ERROR)
    kept = [op.get_friendly_name() for op in _products(model) if _coordinates(op)]
    with redirect_stdout(StringIO()), quiet():  # progress bars
        return nncf.quantize(
            model,
            nncf.Dataset(list(feeds)),
            subset_size=len(feeds),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=kept) if kept else None,
        )


def reached(graph: Graph, model: Any, deployment: Deployment) -> list[Product]:
    """Convolutions and matrix products of a quantised model, and which of them the CPU computes in int8.

    The compiled model is asked: it tells the precision of its operators and most of the names they had.  A product
    whose name it lost is taken for int8 if both operands are quantised.
    """
    import openvino

    single = model.clone()
    single.reshape({name: list(value.shape) for name, value in graph.batch(1).items()})
    compiled = openvino.Core().compile_model(single, "CPU", settings("int8", deployment.threads))
    precisions = _precisions(compiled)
    found = []
    for op in _products(single):
        told = precisions.get(op.get_friendly_name())
        both = all(_quantised_value(op.input_value(i)) for i in (0, 1))
        int8 = both if told is None else bool(told & {"u8", "i8"})
        found.append(Product(PARTS[graph.role], _macs(op), _is_layer(op), int8))
    return found


def _precisions(compiled: Any) -> dict[str, set[str]]:
    """Precisions by the name of the operator in the model, of those operators of the plug-in that compute products."""
    precisions: dict[str, set[str]] = {}
    for op in compiled.get_runtime_model().get_ordered_ops():
        told = {key: str(getattr(value, "value", value)) for key, value in op.get_rt_info().items()}
        if told.get("layerType") in COMPUTING:
            for name in told.get("originalLayersNames", "").split(","):
                own = name.partition("/Dequantization")[0]
                precisions.setdefault(own, set()).add(told.get("runtimePrecision", "").lower())
    return precisions


def _quantised_value(value: Any) -> bool:
    """Whether an operand leaves a quantiser, possibly through operators that only move values, or is stored in int8."""
    node = value.get_node()
    while node.get_type_name() in MOVES:
        node = node.input_value(0).get_node()
    if node.get_type_name() == "Constant":
        return node.get_element_type().get_type_name() in ("i8", "u8")
    return bool(node.get_type_name() == "FakeQuantize")


def _products(model: Any) -> Iterable[Any]:
    return [op for op in model.get_ordered_ops() if op.get_type_name() in PRODUCTS]


def _inner(op: Any) -> int:
    """Inner length of a matrix product."""
    shape = op.input(0).get_partial_shape()
    return int(shape[-2 if op.get_attributes().get("transpose_a") else -1].get_length())


def _coordinates(op: Any) -> bool:
    return op.get_type_name() == "MatMul" and _inner(op) <= COORDINATES


def _is_layer(op: Any) -> bool:
    """Whether the second operand is made of constants: weights, possibly through the steps of their quantisation."""
    if _coordinates(op):
        return False
    pending = [op.input_value(1).get_node()]
    while pending:
        node = pending.pop()
        if node.get_type_name() == "Parameter":
            return False
        pending += [value.get_node() for value in node.input_values()]
    return True


def _macs(op: Any) -> int:
    out = [int(side) for side in op.output(0).get_shape()]
    if op.get_type_name() == "MatMul":
        return prod(out) * _inner(op)
    weight = [int(side) for side in op.input(1).get_shape()]
    if op.get_type_name() == "Convolution":  # (out, in, h, w)
        return prod(out) * prod(weight[1:])
    if op.get_type_name() == "GroupConvolution":  # (groups, out, in, h, w)
        return prod(out) * prod(weight[2:])
    return prod(int(side) for side in op.input(0).get_shape()) * prod(weight[1:])  # (in, out, h, w)
