"""A file is accepted only if it does what the model does at 1, 3 and 17 images or prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.deploy import onnx
from harness.deploy.export import COUNTS, EncoderGraph, Graph, check, graphs
from harness.errors import BenchError
from tests.harness.deploy.support import SPEC, Frozen, toy


@pytest.fixture(scope="module")
def both() -> list[Graph]:
    return graphs(toy(), SPEC)


def torch_runner(graph: Graph, seen: list[int] | None = None) -> Callable[[dict[str, Any]], Sequence[Any]]:
    def run(feeds: dict[str, Any]) -> Sequence[Any]:
        if seen is not None:
            seen.append(len(feeds[graph.free[0]]))
        with torch.no_grad():
            return [output.numpy() for output in graph.module(*(torch.from_numpy(feeds[n]) for n in graph.inputs))]

    return run


def test_every_number_is_run(both: list[Graph]) -> None:
    for graph in both:
        seen: list[int] = []
        check(graph, "a file", torch_runner(graph, seen), 1e-3)
        assert tuple(seen) == COUNTS == (1, 3, 17)


@pytest.mark.parametrize("index", [0, 1], ids=["encoder", "decoder"])
def test_a_file_that_rejects_another_number_is_refused_by_name(both: list[Graph], index: int) -> None:
    graph = both[index]

    def frozen(feeds: dict[str, Any]) -> Sequence[Any]:
        if len(feeds[graph.free[0]]) == 17:
            raise RuntimeError("cannot reshape\nand a page more")
        return torch_runner(graph)(feeds)

    things = ("images", "prompts")[index]
    with pytest.raises(BenchError, match=rf"^{graph.role}\.onnx: refused, because at N = 17 {things} cannot reshape$"):
        check(graph, f"{graph.role}.onnx", frozen, 1e-3)


def test_a_file_that_always_gives_the_number_it_was_shown_is_refused(both: list[Graph]) -> None:
    encoder = both[0]

    def three(feeds: dict[str, Any]) -> Sequence[Any]:
        return [np.resize(output, (3, *output.shape[1:])) for output in torch_runner(encoder)(feeds)]

    with pytest.raises(BenchError, match=r"at N = 1 images image_embedding has shape \(3, .*\), not \(1, "):
        check(encoder, "encoder.xml", three, 1e-3)


def test_a_file_that_repeats_one_prompt_is_refused(both: list[Graph]) -> None:
    decoder = both[1]

    def repeated(feeds: dict[str, Any]) -> Sequence[Any]:
        return [np.repeat(output[:1], len(output), axis=0) for output in torch_runner(decoder)(feeds)]

    with pytest.raises(BenchError, match="at N = 3 prompts logits is off from torch by"):
        check(decoder, "decoder.onnx", repeated, 1e-3)


def test_what_is_not_finite_is_refused_whatever_the_precision(both: list[Graph]) -> None:
    encoder = both[0]
    with pytest.raises(BenchError, match="is not finite"):
        check(encoder, "encoder.onnx", lambda f: [o * np.nan for o in torch_runner(encoder)(f)], None)


def test_a_real_export_that_froze_its_batch_is_caught(tmp_path: Path) -> None:
    encoder = graphs(toy(), SPEC)[0]
    frozen = toy()
    frozen.image_encoder = Frozen(frozen.image_encoder)
    path = tmp_path / "encoder.onnx"
    onnx.export_onnx(replace(encoder, module=EncoderGraph(frozen), axis=None), path)
    shown = onnx.runner(path, 1)({name: value.numpy() for name, value in encoder.batch(2).items()})
    assert shown[0].shape == (2, 16, 16, 16)
    with pytest.raises(BenchError, match=r"encoder\.onnx: refused, because at N = 1 images "):
        check(encoder, path.name, onnx.runner(path, 1), 1e-3)
