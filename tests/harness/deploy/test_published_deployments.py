"""Every published model on every backend in fp32, with the goldens' weights: the masks are torch's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import variants
from harness.deploy import onnx, openvino
from harness.deploy.export import graphs
from tests.harness.deploy.support import Exported, Ready, agreement, deploy
from tests.variants import published

TINY = [name for name in variants.names() if name.endswith("_tiny")]

FEW = ("swin_litemedsam_tiny", "rep_medsam_tiny", "efficientvit_sam_tiny")
"""What CI has time for: litemedsam_tiny is among the fast tests, and a file is checked again when it is prepared."""
ALL = [pytest.param(n, marks=[] if n in FEW else pytest.mark.full) for n in (*published.FILES, *TINY)]

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Candidate:
    """A model that was exported by the real exporter."""

    name: str
    model: Any
    exported: Exported

    @property
    def spec(self) -> variants.VariantSpec:
        return variants.spec(self.name)


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Candidate]]:
    """The model of a name and its export, made once; published names have the goldens' weights."""

    @cache
    def make(name: str) -> Candidate:
        folder = tmp_path_factory.mktemp(name)
        if name in published.FILES:
            torch.save(published.state_dict(name), folder / "weights.pth")
            model: Any = variants.load_published(name, folder / "weights.pth")
        else:
            model = variants.create(name)
        for graph in graphs(model, variants.spec(name)):
            onnx.export_onnx(graph, folder / f"{graph.role}.onnx")
        return Candidate(name, model, Exported(folder))

    yield make
    make.cache_clear()


def deployed(candidate: Candidate, folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Ready:
    """Prepare a deployment from the files that were exported once."""
    monkeypatch.setattr(onnx, "export_onnx", candidate.exported)
    monkeypatch.setattr(openvino, "export_onnx", candidate.exported)
    return deploy(candidate.model, folder, candidate.spec, **settings)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", ALL)
def test_fp32_deployments_agree_with_torch_and_were_run_at_1_3_and_17(
    name: str,
    backend: str,
    candidate: Callable[[str], Candidate],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = candidate(name)
    ready = deployed(made, tmp_path, monkeypatch, backend=backend)
    single = made.spec.input_size > 512
    assert ready.made.facts["batch"] == ("1" if single or backend == "openvino" else "any")
    assert ready.made.facts["checked"] == {"encoder": [1] if single else [1, 3, 17], "decoder": [1, 3, 17]}
    assert agreement(ready.session(), made.model, made.spec) >= 0.9999


@pytest.mark.parametrize("name", [p for p in ALL if p.values[0] in TINY])
def test_int8_deployments_of_tiny_models_run_and_say_what_they_reach(
    name: str, candidate: Callable[[str], Candidate], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = candidate(name)
    ready = deployed(made, tmp_path, monkeypatch, backend="onnxruntime", precision="int8")
    assert ready.made.facts["quantised"]["layers"] > 0
    assert agreement(ready.session(), made.model, made.spec) > 0.5
