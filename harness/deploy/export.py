"""A torch variant as two graphs, encoder and decoder, with free numbers of images and prompts; the check of files."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.config import Deployment
from harness.deploy import Prepared, Progress, RefusedError, Unsupported
from harness.deploy.samples import Sample
from harness.failure import first_line
from harness.inference.prepared import DECODER, ENCODER
from variants.embedding import Embedding
from variants.registry import VariantSpec

Arrays = dict[str, NDArray[np.float32]]
Runner = Callable[[Arrays], Sequence[NDArray[np.float32]]]

COUNTS = (1, 3, 17)
"""Numbers of images and of prompts at which every file is run: an exporter can freeze the number it was shown."""
LARGEST_FREE = 512
"""Input side up to which an encoder takes any number of images; 17 images of 1024 pixels would need tens of GB."""
POINTS = 4
"""Points a box gets: one a quadrant."""
TOLERANCE = {"fp32": 1e-3, "bf16": 0.5, "int8": None}
"""Largest accepted error, RMS of the difference by RMS of torch's output; of int8 only shape and finiteness are asked:
how far it is off is measured afterwards, and its graph was checked before it was quantised."""


def autocast(bf16: bool) -> AbstractContextManager[Any]:
    """bfloat16 autocast, or nothing at all: a disabled region would still be traced, twice."""
    return torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()


class EncoderGraph(nn.Module):
    """`encode` with tensors for an output: embedding, then skips; autocast and memory format as asked."""

    def __init__(self, model: Any, bf16: bool = False, channels_last: bool = False) -> None:
        super().__init__()
        self.model = model
        self.bf16, self.channels_last = bf16, channels_last

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        if self.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        with autocast(self.bf16):
            embedding = self.model.encode(image)
        return tuple(output.float().contiguous() for output in (embedding.image, *embedding.skips))


class DecoderGraph(nn.Module):
    """`decode` of prompts of one image; inputs in the order of `names`."""

    def __init__(self, model: Any, names: Sequence[str], bf16: bool = False) -> None:
        super().__init__()
        self.model = model
        self.names, self.bf16 = tuple(names), bf16

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        given = dict(zip(self.names, inputs, strict=True))
        skips = tuple(given[name] for name in self.names if name.startswith("skip"))
        with autocast(self.bf16):
            logits, iou = self.model.decode(
                Embedding(given["image_embedding"], skips),
                given["boxes"],
                points=given.get("points"),
                scribble=given.get("scribble"),
            )
        return logits.float().contiguous(), iou.float().contiguous()


@dataclass(frozen=True)
class Graph:
    """One of the two graphs, and what is needed to trace and to check it.

    Attributes:
        role: ``encoder`` or ``decoder``.
        module: takes the inputs in the order of ``inputs``.
        inputs: examples of the largest number of images or prompts.
        outputs: names.
        axis: name of the free first axis (``B`` images, ``N`` prompts), ``None`` if one image at a time.
        free: inputs that have the free axis.
        counts: numbers of images or prompts at which a file is checked.
    """

    role: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    axis: str | None
    free: tuple[str, ...]
    counts: tuple[int, ...]

    def batch(self, count: int) -> dict[str, Tensor]:
        """The example inputs of ``count`` images or prompts."""
        return {name: value[:count] if name in self.free else value for name, value in self.inputs.items()}


def graphs(model: Any, spec: VariantSpec, bf16: bool = False, channels_last: bool = False) -> list[Graph]:
    """Encoder and decoder of a model.

    Args:
        model: in evaluation mode.
        spec: says which prompts the decoder takes and how large an image is.
        bf16: compute under bfloat16 autocast.
        channels_last: the encoder computes in this memory format.
    """
    model = copy.deepcopy(model).requires_grad_(False)  # of gradients nothing is traced
    side, free = spec.input_size, spec.input_size <= LARGEST_FREE
    counts = COUNTS if free else (1,)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(counts[-1], 3, side, side, generator=generator)
    encoder = EncoderGraph(model, bf16, channels_last)
    with torch.no_grad():
        embedding, *skips = encoder(images[:1])
    prompts = _prompts(spec, generator)
    parts = {"image_embedding": embedding} | {f"skip{i}": skip for i, skip in enumerate(skips)}
    names = tuple(parts)
    decoder = DecoderGraph(model, (*parts, *prompts), bf16)
    return [
        Graph(ENCODER, encoder, {"image": images}, names, "B" if free else None, ("image",), counts),
        Graph(DECODER, decoder, parts | prompts, ("logits", "iou"), "N", tuple(prompts), COUNTS),
    ]


def _prompts(spec: VariantSpec, generator: torch.Generator) -> dict[str, Tensor]:
    """Arbitrary prompts of as many boxes as are checked at most."""
    count, side = COUNTS[-1], spec.input_size
    corners = torch.rand(count, 2, 2, generator=generator).mul(side).sort(dim=1).values
    found = {"boxes": corners.reshape(count, 4)}
    if "points" in spec.prompts:
        found["points"] = torch.rand(count, POINTS, 2, generator=generator) * side
    if "scribble" in spec.prompts:
        found["scribble"] = (torch.rand(count, 1, side, side, generator=generator) > 0.9).float()
    return found


def trace(graph: Graph) -> torch.export.ExportedProgram:
    """The graph as torch.export records it, shown two images or three prompts: with one it would take 1 for a constant.

    Raises:
        Unsupported: the model's code cannot be traced with a free number of images or prompts.
    """
    example = {name: value.clone() for name, value in graph.batch(2 if graph.role == ENCODER else 3).items()}
    free = {0: torch.export.Dim(graph.axis, min=1)} if graph.axis else None
    shapes = tuple(free if name in graph.free else None for name in example)
    wrapped = (shapes,) if graph.role == DECODER else shapes  # of a parameter `*inputs`
    try:
        with quiet():
            return torch.export.export(graph.module, tuple(example.values()), dynamic_shapes=wrapped)
    # Whatever the tracer raises about the code of a model, which may be a third party's.
    except Exception as error:
        raise Unsupported(f"torch.export cannot trace the {graph.role}: {first_line(error)}") from error


def check(graph: Graph, file: str, run: Runner, tolerance: float | None) -> None:
    """Run a prepared file at every number of images or prompts and compare it with torch.

    Args:
        graph: what it was made from.
        file: its name, for the message.
        run: takes inputs by name and gives outputs in order.
        tolerance: see `TOLERANCE`.

    Raises:
        RefusedError: the file fails at some number, or gives something else than torch.
    """
    expected = _expected(graph)
    for count in graph.counts:
        feeds = {name: value.numpy() for name, value in graph.batch(count).items()}
        try:
            found = run(feeds)
        # Whatever a backend raises: the file is not usable.
        except Exception as error:
            raise RefusedError(_refused(graph, file, count, first_line(error))) from error
        for name, got, reference in zip(graph.outputs, found, expected, strict=True):
            wrong = _difference(got, reference[:count], tolerance)
            if wrong:
                raise RefusedError(_refused(graph, file, count, f"{name} {wrong}"))


def _expected(graph: Graph) -> list[NDArray[np.float32]]:
    """Torch's outputs at the largest number; images one by one, so that 17 of them need the memory of one."""
    with torch.no_grad():
        if graph.role == DECODER:
            return [output.numpy() for output in graph.module(*graph.inputs.values())]
        single = [graph.module(image[None]) for image in graph.inputs["image"]]
    return [torch.cat(outputs).numpy() for outputs in zip(*single, strict=True)]


def _difference(got: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float | None) -> str | None:
    if got.shape != expected.shape:
        return f"has shape {got.shape}, not {expected.shape}"
    if not np.isfinite(got).all():
        return "is not finite"
    error = float(np.sqrt(np.mean(np.square(got - expected))) / (np.sqrt(np.mean(np.square(expected))) + 1e-12))
    if tolerance is not None and error > tolerance:
        return f"is off from torch by {error:.2g} of its size, more than {tolerance:g}"
    return None


def _refused(graph: Graph, file: str, count: int, what: str) -> str:
    things = "images" if graph.role == ENCODER else "prompts"
    return f"{file}: refused, because at N = {count} {things} {what}"


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of exporters and compilers about their own insides."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        yield


def folded(model: Any) -> Any:
    """A fused copy of the model, verified.

    Raises:
        Unsupported: nothing can be folded.
        RefusedError: the fused model gives something else.
    """
    from variants import VariantError, fuse

    try:
        return fuse(model)
    except VariantError as error:
        if "nothing to fuse" in str(error):
            raise Unsupported(str(error)) from error
        raise RefusedError(str(error)) from error


def decoder_folded(model: Any, deployment: Deployment) -> Any:
    """The model with its mask decoder folded, where that is asked for.

    Raises:
        Unsupported: it has no such decoder.
    """
    from variants import VariantError, fold_decoder

    if not deployment.fold_decoder:
        return model
    try:
        return fold_decoder(model)
    except VariantError as error:
        raise Unsupported(str(error)) from error


def prepare_torch_variant(
    model: Any,
    spec: VariantSpec,
    deployment: Deployment,
    folder: Path,
    calibration: Sequence[Sample],
    progress: Progress,
) -> Prepared:
    """See `harness.deploy.prepare`."""
    if deployment.fuse:
        progress("folding batch normalisation")
        model = folded(model)
    if deployment.backend == "torch":
        from harness.deploy.torch_backend import prepare_torch

        made = prepare_torch(model, spec, deployment, folder, progress)
    elif deployment.backend == "onnxruntime":
        from harness.deploy.onnx import prepare_onnxruntime

        made = prepare_onnxruntime(decoder_folded(model, deployment), spec, deployment, folder, calibration, progress)
    else:
        from harness.deploy.openvino import prepare_openvino

        made = prepare_openvino(decoder_folded(model, deployment), spec, deployment, folder, calibration, progress)
    sizes = {role: (folder / name).stat().st_size for role, name in made.files.items()}
    facts: dict[str, Any] = {"file_size": sum(sizes.values()), "file_sizes": sizes} if sizes else {}
    return Prepared(made.files, facts | made.facts)


def graph_facts(made: Sequence[Graph]) -> dict[str, Any]:
    """What is to be said of two checked graphs."""
    encoder = next(graph for graph in made if graph.role == ENCODER)
    return {
        "batch": "any" if encoder.axis else "1",
        "checked": {graph.role: list(graph.counts) for graph in made},
    }
