"""Shared by the tests of deployments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.deploy import onnx, openvino
from harness.deploy.export import graphs
from tests.harness.deploy.support import SPEC, Exported, Ready, deploy, toy


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    """Beside other work on the machine, two threads of small operations wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The toy model as ONNX, by the real exporter, once for all tests."""
    folder = tmp_path_factory.mktemp("exported")
    for graph in graphs(toy(), SPEC):
        onnx.export_onnx(graph, folder / f"{graph.role}.onnx")
    return Exported(folder)


@pytest.fixture
def ready(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ready]:
    """Prepares deployments of the toy model from the files that were exported once."""
    monkeypatch.setattr(onnx, "export_onnx", exported)
    monkeypatch.setattr(openvino, "export_onnx", exported)

    def make(**settings: Any) -> Ready:
        return deploy(toy(), tmp_path / "prepared", **settings)

    return make
