"""Deployments on onnxruntime: exported, optionally quantised, optimised ahead for this machine, checked."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from harness.config import Deployment
from harness.deploy import Prepared, Progress
from harness.deploy.export import TOLERANCE, Arrays, Graph, Runner, check, graph_facts, graphs, quiet, trace
from harness.deploy.samples import Sample
from harness.errors import UnavailableError
from variants.registry import VariantSpec

SCHEMES = {
    "dynamic": "onnxruntime quantize_dynamic: one scale a tensor, activations at run time",
    "static": "onnxruntime quantize_static: QDQ, one scale a channel of weights, activations MinMax",
}


def need(*modules: str, install: str) -> None:
    """Raise `UnavailableError` with the pip command if one of the modules is not installed."""
    for name in modules:
        try:
            import_module(name)
        except ImportError:
            raise UnavailableError(f"{name} is not installed; `pip install {install}`") from None


def export_onnx(graph: Graph, path: Path) -> None:
    """Write one graph as ONNX, as it was traced but for onnxscript's simplifications.

    Raises:
        Unsupported: torch.export cannot trace the model.
        UnavailableError: onnx or onnxscript is not installed.
    """
    import torch

    need("onnx", "onnxscript", install="onnx onnxscript")
    program = trace(graph)
    with quiet():
        exported = torch.onnx.export(
            program,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamo=True,
            optimize=True,
            verbose=False,
        )
        assert exported is not None
        if graph.axis:
            first: Any = next(value for value in exported.model.graph.inputs if value.name in graph.free)
            exported.rename_axes({first.shape[0]: graph.axis})
        exported.save(path, external_data=False)


def optimise(source: Path, target: Path, threads: int) -> None:
    """Rewrite a graph for this machine and save it, so that no cold start pays for it.

    Fusions, folded constants and the memory layout of convolutions: the file is for processors like this one.
    """
    from harness.inference.ort_session import open_graph

    open_graph(source, threads, optimise=True, save=target)


def runner(path: Path, threads: int) -> Runner:
    """Runs a file as a session would."""
    from harness.inference.ort_session import open_graph

    session = open_graph(path, threads)

    def run(feeds: Arrays) -> Sequence[Any]:
        return [np.asarray(output) for output in session.run(None, feeds)]

    return run


def prepare_onnxruntime(
    model: Any,
    spec: VariantSpec,
    deployment: Deployment,
    folder: Path,
    calibration: Sequence[Sample],
    progress: Progress,
) -> Prepared:
    """Files of an `OrtSession`; see `harness.deploy.prepare`."""
    need("onnxruntime", install="onnxruntime")
    from harness.deploy.quantise import calibration_feeds, statically_quantised
    from harness.deploy.reach import of_onnx

    made, threads = graphs(model, spec), deployment.threads
    files, facts = {}, graph_facts(made)
    work = Path(tempfile.mkdtemp(prefix=".onnx-", dir=folder))
    try:
        sources, plain, reached = dict[str, Path](), dict[str, Path](), dict[str, set[str]]()
        for graph in made:
            progress(f"exporting the {graph.role}")
            sources[graph.role] = plain[graph.role] = work / f"{graph.role}.onnx"
            export_onnx(graph, plain[graph.role])
        if deployment.precision == "int8":
            feeds = calibration_feeds(made, calibration) if deployment.quantisation == "static" else None
            for graph in made:
                progress(f"quantising the {graph.role}, {deployment.quantisation}")
                plain[graph.role] = work / f"{graph.role}-plain.onnx"
                sources[graph.role], reached[graph.role] = _quantised(graph, sources[graph.role], work, feeds, threads)
        for graph in made:
            name = files[graph.role] = f"{graph.role}.onnx"
            progress(f"optimising and checking {name}")
            optimise(sources[graph.role], folder / name, threads)
            check(graph, name, runner(folder / name, threads), TOLERANCE[deployment.precision])
            if deployment.quantisation == "static":
                reached[graph.role] = statically_quantised(plain[graph.role], folder / name)
        if deployment.precision == "int8":
            facts["quantised"] = of_onnx(made, plain, reached) | {"scheme": SCHEMES[deployment.quantisation]}
            facts["file_size_fp32"] = sum(path.stat().st_size for path in plain.values())
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Prepared(files, facts)


def _quantised(
    graph: Graph, source: Path, work: Path, feeds: Mapping[str, list[dict[str, Any]]] | None, threads: int
) -> tuple[Path, set[str]]:
    """The quantised file and the nodes it computes in int8 (dynamic scheme); its fp32 graph is checked first."""
    from harness.deploy import quantise

    plain, target = work / f"{graph.role}-plain.onnx", work / f"{graph.role}-int8.onnx"
    quantise.simplified(source, plain)
    check(graph, f"{graph.role}.onnx before quantisation", runner(plain, threads), TOLERANCE["fp32"])
    if feeds is None:
        return target, quantise.quantise_dynamic(plain, target)
    quantise.quantise_static(plain, target, feeds[graph.role])
    return target, set()
