"""A session that runs prepared ONNX files with onnxruntime; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from harness.inference.prepared import DECODER, ENCODER, PreparedSession
from harness.inference.session import FloatArray


def open_graph(path: Path, threads: int, optimise: bool = False, save: Path | None = None) -> Any:
    """An inference session of one file on the CPU.

    Threads do not spin while they wait: between encoding and decoding, and while masks are resized, they would use up
    the CPU time a sandbox grants without computing anything.

    Args:
        path: the ONNX file.
        threads: of one operator; operators run one after the other.
        optimise: rewrite the graph while loading; prepared files are rewritten already.
        save: write the rewritten graph there.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors: a graph optimised for this machine is what is wanted, not worth a warning
    if save is not None:
        options.optimized_model_filepath = str(save)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class OrtSession(PreparedSession):
    """Encoder and decoder in onnxruntime.

    Args:
        folder: of the prepared deployment.
        description: content of its ``deployment.json``.
        threads: intra-op threads.
    """

    def __init__(self, folder: Path, description: Mapping[str, Any], threads: int) -> None:
        super().__init__(folder, description)
        self._graphs = {role: open_graph(self._files[role], threads) for role in (ENCODER, DECODER)}

    def run(self, role: str, inputs: dict[str, FloatArray]) -> list[FloatArray]:
        return [np.asarray(output, dtype=np.float32) for output in self._graphs[role].run(None, inputs)]
