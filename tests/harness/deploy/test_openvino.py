"""Deployments on OpenVINO: its own files, with the precision that was asked for and no other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from harness.inference.openvino_session import settings
from tests.harness.deploy.support import Ready, agreement, toy


def test_f32_agrees_with_torch(ready: Callable[..., Ready]) -> None:
    made = ready(backend="openvino")
    assert made.made.files["encoder"] == "encoder.xml"
    assert sorted(path.name for path in made.folder.iterdir()) == sorted(made.made.files.values())
    assert agreement(made.session(), toy()) >= 0.9999


def test_a_model_compiled_ahead_is_one_file_a_part_and_gives_the_same(ready: Callable[..., Ready]) -> None:
    made = ready(backend="openvino", compile=True, fold_decoder=True)
    assert made.made.files == {"encoder": "encoder.blob", "decoder": "decoder.blob"}
    assert agreement(made.session(), toy()) >= 0.9999


def test_a_session_imports_the_library_without_its_model_converter() -> None:
    code = (
        "import sys\n"
        "from harness.inference import lean\n"
        "print(lean.openvino().__version__, 'openvino.tools.ovc' in sys.modules, 'openvino_telemetry' in sys.modules)\n"
        "import openvino.tools.ovc\n"  # it can still be had
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1:] == ["False", "False"]


def test_the_weights_are_stored_in_full(ready: Callable[..., Ready]) -> None:
    """The library would compress them to 16 bits if it were not told otherwise."""
    made = ready(backend="openvino")
    count = sum(parameter.numel() for parameter in toy().image_encoder.parameters())
    assert (made.folder / "encoder.bin").stat().st_size >= 4 * count


def test_precision_and_threads_are_always_said() -> None:
    assert settings("fp32", 3)["INFERENCE_PRECISION_HINT"] == "f32"
    assert settings("int8", 3)["INFERENCE_PRECISION_HINT"] == "f32"
    assert settings("bf16", 3)["INFERENCE_PRECISION_HINT"] == "bf16"
    assert settings("fp32", 3)["INFERENCE_NUM_THREADS"] == 3


def test_bf16_runs_from_the_same_files_where_the_cpu_has_it(ready: Callable[..., Ready]) -> None:
    import openvino

    from harness.deploy import Unsupported

    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert agreement(ready(backend="openvino", precision="bf16").session(), toy()) > 0.9
    else:
        with pytest.raises(Unsupported, match="bfloat16"):
            ready(backend="openvino", precision="bf16")


@pytest.mark.slow
def test_int8_reaches_what_the_compiled_model_computes_in_int8(ready: Callable[..., Ready]) -> None:
    made = ready(backend="openvino", precision="int8")
    reached = made.made.facts["quantised"]
    assert reached["layers_by_part"]["image_encoder"]["quantised"] >= 1
    assert reached["layers_by_part"]["mask_decoder"]["quantised"] >= 10
    assert 0.3 < reached["share"] <= 1
    assert made.made.facts["file_size_fp32"] > 0
    assert agreement(made.session(), toy()) > 0.8
