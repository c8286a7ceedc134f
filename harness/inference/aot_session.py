"""A session that runs models compiled ahead by torch (AOTInductor): shared libraries, no compiler, no model code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch._C._aoti import AOTIModelContainerRunnerCpu

from harness.inference.prepared import DECODER, ENCODER, PreparedSession
from harness.inference.session import FloatArray


class AotSession(PreparedSession):
    """Encoder and decoder as shared libraries with their weights inside, opened where they lie.

    A package (``.pt2``) would first be unpacked into the temporary folder, from which a sandbox lets nothing be
    executed.  The number of threads was fixed when the libraries were compiled and is set again for what they call.

    Args:
        folder: of the prepared deployment.
        description: content of its ``deployment.json``.
        threads: intra-op threads.
    """

    def __init__(self, folder: Path, description: Mapping[str, Any], threads: int) -> None:
        super().__init__(folder, description)
        torch.set_num_threads(threads)
        self._order: dict[str, list[str]] = description["facts"]["inputs"]
        self._models = {
            role: AOTIModelContainerRunnerCpu(str(self._files[role].resolve()), 1) for role in (ENCODER, DECODER)
        }

    def run(self, role: str, inputs: dict[str, FloatArray]) -> list[FloatArray]:
        with torch.inference_mode():
            found = self._models[role].run([torch.from_numpy(inputs[name]) for name in self._order[role]])
        return [output.numpy() for output in found]
