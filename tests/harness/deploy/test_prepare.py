"""What cannot be deployed says why, in a sentence, and nothing falls back to something else."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import variants
from harness.config import Deployment
from harness.deploy import Unsupported, export, prepare, torch_backend
from harness.errors import BenchError, UnavailableError
from tests.harness.deploy.support import SPEC, deploy, toy


def refuse(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Make modules look as if they were not installed."""
    original = builtins.__import__

    def importing(name: str, *rest: Any) -> Any:
        if name.split(".")[0] in modules:
            raise ImportError(name)
        return original(name, *rest)

    for name in [n for n in sys.modules if n.split(".")[0] in modules]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", importing)
    monkeypatch.setattr("harness.deploy.onnx.import_module", lambda name: importing(name))


@pytest.mark.parametrize("backend", ["torch", "onnxruntime", "openvino"])
def test_a_variant_in_numpy_has_no_graph(backend: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="variant 'dummy' computes with numpy and has no graph"):
        deploy(variants.create("dummy"), tmp_path, variants.spec("dummy"), backend=backend)


def test_a_model_without_anything_to_fold_is_not_fused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="nothing to fuse"):
        deploy(toy(), tmp_path, fuse=True)


def test_fused_weights_are_a_file_that_fits_the_fused_structure(tmp_path: Path) -> None:
    model = variants.create("rep_medsam_tiny")
    made = deploy(model, tmp_path, variants.spec("rep_medsam_tiny"), fuse=True)
    assert made.made.files == {"weights": "fused.safetensors"}
    fused = variants.fuse(variants.create("rep_medsam_tiny", seed=1), verify=False)
    variants.checkpoints.load_into(fused, tmp_path / "fused.safetensors", "rep_medsam_tiny")
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(fused.encode(image).image, model.encode(image).image, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", [{"channels_last": True}, {"precision": "bf16"}])
def test_settings_of_an_eager_session_need_no_files(settings: dict[str, Any], tmp_path: Path) -> None:
    assert deploy(toy(), tmp_path, **settings).made.files == {}
    assert list(tmp_path.iterdir()) == []


def test_torch_has_nothing_to_quantise_in_a_model_without_linear_layers(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"no nn\.Linear layer"):
        torch_backend.quantisation_facts(nn.Sequential(nn.Conv2d(3, 3, 1)), SPEC)


def test_bfloat16_without_the_instructions_is_unsupported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    class Old:
        def get_property(self, device: str, name: str) -> list[str]:
            assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
            return ["FP32", "INT8"]

    monkeypatch.setattr(openvino, "Core", Old)
    with pytest.raises(Unsupported, match="no bfloat16 instructions"):
        deploy(toy(), tmp_path, backend="openvino", precision="bf16")


def test_compiling_without_a_compiler_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nonexistent/g++")
    with pytest.raises(UnavailableError, match=r"needs a C\+\+ compiler and /nonexistent/g\+\+ is not there"):
        deploy(toy(), tmp_path, compile=True)


@pytest.mark.parametrize(
    ("missing", "settings", "command"),
    [
        ("onnxruntime", {"backend": "onnxruntime"}, "pip install onnxruntime"),
        ("openvino", {"backend": "openvino"}, r"pip install 'medsam-bench\[openvino\]'"),
        ("nncf", {"backend": "openvino", "precision": "int8"}, r"pip install 'medsam-bench\[openvino\]'"),
    ],
)
def test_a_missing_library_is_unavailable_and_the_pip_command_is_said(
    missing: str, settings: dict[str, Any], command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, missing)
    with pytest.raises(UnavailableError, match=f"{missing} is not installed; `{command}`"):
        deploy(toy(), tmp_path, **settings)


def test_a_model_that_cannot_be_traced_is_unsupported_with_the_reason(tmp_path: Path) -> None:
    class Looks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :1] if x.sum() > 0 else x

    model = toy()
    model.image_encoder = nn.Sequential(model.image_encoder, Looks())
    encoder = export.Graph(
        "encoder", model.image_encoder, {"image": torch.rand(2, 3, 64, 64)}, ("o",), "B", ("image",), ()
    )
    with pytest.raises(Unsupported, match=r"torch\.export cannot trace the encoder: "):
        export.trace(encoder)


def test_the_model_is_left_as_it_is(tmp_path: Path) -> None:
    model = toy()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    deploy(model, tmp_path, precision="int8")
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_fused_model_that_gives_something_else_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fuse(model: Any) -> Any:
        raise variants.VariantError("the fused encoder differs")

    monkeypatch.setattr(variants, "fuse", fuse, raising=False)
    with pytest.raises(BenchError, match="differs"):
        prepare(toy(), SPEC, Deployment(fuse=True), tmp_path, [], lambda _: None)
