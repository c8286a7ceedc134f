"""Time spent per phase inside a pipeline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from harness.schema import PHASES

PIPELINE_PHASES = ("preprocess", "encode", "decode", "postprocess")
assert set(PIPELINE_PHASES) <= set(PHASES)


class Clock:
    """Sums wall time (``time.perf_counter``) per phase; phases do not nest."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(PIPELINE_PHASES, 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start
