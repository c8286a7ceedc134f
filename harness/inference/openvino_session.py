"""A session that runs prepared OpenVINO files; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.inference import lean
from harness.inference.prepared import DECODER, ENCODER, PreparedSession
from harness.inference.session import FloatArray

HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""Precision of what is not quantised.  Always said: left to itself the library takes bf16 where the CPU has it."""


def settings(precision: str, threads: int) -> dict[str, Any]:
    """Settings of the CPU plug-in: one stream, explicit threads and precision, nothing cached."""
    return {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }


COMPILED = ".blob"
"""Ending of a model that was compiled ahead, for one kind of CPU and one version of the library."""


def for_one_image(model: Any) -> None:
    """Fix an encoder at one image; a session gives it several one after the other, as all pipelines do anyway.

    Only with all shapes known does the plug-in see where a layout of memory need not change: of TinyViT's encodings
    this is a fifth.  The files themselves take any number.
    """
    model.reshape({port: [1, *port.get_partial_shape()[1:]] for port in model.inputs})


def opened(core: Any, path: Path, chosen: Mapping[str, Any], *, one_image: bool = False) -> Any:
    """A compiled model from its file: compiled ahead, or now, for ``one_image`` at a time if that is asked for."""
    if path.suffix != COMPILED:
        model = core.read_model(str(path))
        if one_image:
            for_one_image(model)
        return core.compile_model(model, "CPU", dict(chosen))
    with path.open("rb") as stream:
        return core.import_model(stream.read(), "CPU", dict(chosen))


class OpenVinoSession(PreparedSession):
    """Encoder and decoder in OpenVINO on the CPU.

    Args:
        folder: of the prepared deployment.
        description: content of its ``deployment.json``.
        threads: of an inference.
        precision: ``fp32``, ``bf16`` or ``int8``.
    """

    def __init__(self, folder: Path, description: Mapping[str, Any], threads: int, precision: str) -> None:
        super().__init__(folder, description)
        core = lean.openvino().Core()
        chosen = settings(precision, threads)
        self._requests = {
            role: opened(core, self._files[role], chosen, one_image=role == ENCODER).create_infer_request()
            for role in (ENCODER, DECODER)
        }

    def run(self, role: str, inputs: dict[str, FloatArray]) -> list[FloatArray]:
        request = self._requests[role]
        found = request.infer(inputs, share_inputs=True)
        return [np.array(found[output], dtype=np.float32) for output in request.model_outputs]
