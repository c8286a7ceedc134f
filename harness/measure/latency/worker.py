"""The process in which a variant is timed warm: opened once, then one encoding and one decoding whenever asked.

``python -m harness.measure.latency.worker``, a line of JSON in, a line out (`harness.measure.latency.pipe`).  It
imports what the worker of a cold run imports: numpy, OpenCV and the backend of its bundle.  Threads and allocator are
those of its environment, which C libraries read when a process starts: another number of threads is another process.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.measure.latency.pipe import serve

if TYPE_CHECKING:
    from harness.inference import InputRules, Session

WARM_UP = 3
"""Encodings and decodings before the first that is timed."""
HEAVY = ("torch", "pandas", "matplotlib", "pydantic", "onnxruntime", "openvino")
"""Libraries of which the process tells whether it imported them."""


class Worker:
    """Answers ``open`` (with the folder of a bundle) and ``round``."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._image: Any = None
        self._prompts: tuple[Any, ...] = ()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """``open`` gives versions and ``imported``, ``round`` seconds of one encoding and of one decoding."""
        if request["do"] == "open":
            return self.open(Path(request["bundle"]))
        return self.round()

    def open(self, bundle: Path) -> dict[str, Any]:
        """Load the model of a bundle and warm it up."""
        import json

        from harness.inference import InputRules
        from harness.measure.runtime.worker import load_libraries, load_model

        description = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
        versions = load_libraries(description)
        self._session = load_model(bundle, description)
        self._image, self._prompts = sample(self._session.input_size, InputRules.from_json(description["rules"]))
        for _ in range(WARM_UP):
            self.round()
        return {"versions": versions, "imported": [name for name in HEAVY if name in sys.modules]}

    def round(self) -> dict[str, float]:
        """Seconds of encoding the image and of decoding one box of it."""
        assert self._session is not None
        begun = time.perf_counter()
        embedding = self._session.encode(self._image)
        encoded = time.perf_counter()
        self._session.decode(embedding, *self._prompts)
        return {"encode": encoded - begun, "decode": time.perf_counter() - encoded}


def sample(side: int, rules: InputRules) -> tuple[Any, tuple[Any, ...]]:
    """A prepared image (1,3,S,S) of noise, and the prompts of one box in its middle: boxes, points, scribble.

    What a network computes does not depend on what it sees, so nor does its time.
    """
    import numpy as np

    from variants import preprocess, prompts

    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    prepared = preprocess.prepare(image, side, rules.preprocess)
    box = np.array([[side // 4, side // 4, 3 * side // 4, 3 * side // 4]], dtype=np.int64)
    boxes = preprocess.boxes_to_network(box, prepared.original_hw, side, rules.preprocess)
    made = prompts.make(boxes, prepared.network, rules.prompts, rules.prompt_rule, ["latency/0/1"])
    return prepared.network[None], (made.boxes, made.points, made.scribble)


if __name__ == "__main__":
    serve(Worker().answer)
