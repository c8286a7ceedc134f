"""Deployments on torch: settings of an eager session, fused weights, or libraries compiled ahead (AOTInductor)."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.config import Deployment
from harness.deploy import Prepared, Progress, Unsupported
from harness.deploy.export import (
    TOLERANCE,
    Arrays,
    Graph,
    Runner,
    check,
    decoder_folded,
    graph_facts,
    graphs,
    quiet,
    trace,
)
from harness.deploy.reach import of_torch
from harness.errors import BenchError, UnavailableError
from variants.registry import VariantSpec

WEIGHTS = "weights"
FUSED = "fused.safetensors"
SCHEMES = {
    "torch.ao": "torch.ao quantize_dynamic of nn.Linear, qint8: one scale a tensor, activations at run time",
    "torchao": "torchao Int8DynamicActivationInt8WeightConfig of nn.Linear: one scale a row, activations at run time",
}


def prepare_torch(model: Any, spec: VariantSpec, deployment: Deployment, folder: Path, progress: Progress) -> Prepared:
    """What a `TorchSession` or an `AotSession` needs; see `harness.deploy.prepare`.

    The model is the fused one if that is asked for: its weights are then a file (role ``weights``), fused names.
    """
    if deployment.compile:
        return _compiled(decoder_folded(model, deployment), spec, deployment, folder, progress)
    files, facts = dict[str, str](), dict[str, Any]()
    if deployment.fuse:
        from safetensors.torch import save_file

        state = {name: value.detach().contiguous().clone() for name, value in model.state_dict().items()}
        save_file(state, folder / FUSED)
        files[WEIGHTS] = FUSED
    model = decoder_folded(model, deployment)  # the file keeps the names; a session folds what it has loaded
    if deployment.precision == "int8":
        progress("quantising")
        facts = quantisation_facts(model, spec)
    return Prepared(files, facts)


def quantisation_facts(model: Any, spec: VariantSpec) -> dict[str, Any]:
    """What dynamic int8 of linear layers does to a model: reach, and bytes of the saved weights before and after.

    Raises:
        Unsupported: the model has no linear layer.
        UnavailableError: no library quantises it.
    """
    from harness.inference.quantised import is_quantised, library, quantise_linear

    if not any(isinstance(module, nn.Linear) for module in model.modules()):
        raise Unsupported("the model has no nn.Linear layer, and nothing else is quantised by torch")
    smaller = quantise_linear(model)
    reached = {name for name, module in smaller.named_modules() if is_quantised(module)}
    return {
        "quantised": of_torch(graphs(model, spec), reached) | {"scheme": SCHEMES[library()]},
        "file_size": _saved_size(smaller),
        "file_size_fp32": _saved_size(model),
    }


def _saved_size(model: nn.Module) -> int:
    stream = BytesIO()
    with quiet():
        torch.save(model.state_dict(), stream)
    return stream.getbuffer().nbytes


def _compiled(model: Any, spec: VariantSpec, deployment: Deployment, folder: Path, progress: Progress) -> Prepared:
    """Encoder and decoder as shared libraries for this processor and this number of threads, weights inside."""
    need_compiler()
    made = graphs(model, spec, deployment.precision == "bf16", deployment.channels_last)
    files = {}
    for graph in made:
        name = files[graph.role] = f"{graph.role}.so"
        progress(f"compiling the {graph.role}")
        compile_library(graph, folder / name, deployment.threads)
        progress(f"checking {name}")
        check(graph, name, runner(graph, folder / name), TOLERANCE[deployment.precision])
    return Prepared(files, graph_facts(made) | {"inputs": {graph.role: list(graph.inputs) for graph in made}})


def need_compiler() -> None:
    """See that the compiler torch would call is there.

    Raises:
        UnavailableError: it is not.
    """
    name = os.environ.get("CXX", "g++")
    if shutil.which(name) is None:
        raise UnavailableError(
            f"compiling ahead of time needs a C++ compiler and {name} is not there; "
            "`apt-get install g++`, or name one in CXX"
        )


def compile_library(graph: Graph, path: Path, threads: int) -> None:
    """Compile one graph into a shared library that holds its weights and needs torch, but neither model nor compiler.

    Raises:
        Unsupported: torch.export cannot trace the model.
        BenchError: the package that torch made holds something else than one library.
    """
    from torch._inductor import aoti_compile_and_package

    program = trace(graph)
    with tempfile.TemporaryDirectory(prefix=".aot-", dir=path.parent) as work, _cache_in(work), quiet():
        package = aoti_compile_and_package(
            program, package_path=str(Path(work) / "model.pt2"), inductor_configs={"cpp.threads": threads}
        )
        with zipfile.ZipFile(package) as archive:
            libraries = [name for name in archive.namelist() if name.endswith(".so")]
            if len(libraries) != 1:
                raise BenchError(f"{path.name}: torch's package holds {len(libraries)} libraries, not one")
            path.write_bytes(archive.read(libraries[0]))


def runner(graph: Graph, path: Path) -> Runner:
    """Runs a library as a session would."""
    from torch._C._aoti import AOTIModelContainerRunnerCpu

    loaded = AOTIModelContainerRunnerCpu(str(path.resolve()), 1)

    def run(feeds: Arrays) -> list[Any]:
        with torch.inference_mode():
            return [output.numpy() for output in loaded.run([torch.from_numpy(feeds[name]) for name in graph.inputs])]

    return run


@contextmanager
def _cache_in(folder: str) -> Iterator[None]:
    """Inductor's cache in a folder that goes away: nothing of an earlier compilation is taken."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    os.environ[name] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
