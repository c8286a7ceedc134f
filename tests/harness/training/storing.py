"""Stores embeddings in a process of its own, which may kill itself in the middle of a write.

python -m tests.harness.training.storing FOLDER FIRST LAST [WRITE BYTES]

Stores the keys FIRST..LAST-1, two at a time.  With WRITE and BYTES: of the WRITEth write (1-based; entries and lines
alike) that many bytes reach the file, and SIGKILL follows.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.training.embeddings import EmbeddingStore

SHAPE = (2, 3)
SHARD = 3


def entry(number: int) -> np.ndarray:
    return np.arange(6, dtype=np.float32).reshape(SHAPE) + 10 * number


def entries(numbers: Sequence[int]) -> np.ndarray:
    return np.stack([entry(number) for number in numbers])


def dying(write: int, size: int) -> None:
    real, calls = os.pwrite, iter(range(1, 1000))

    def pwrite(descriptor: int, data: memoryview, offset: int) -> int:
        if next(calls) < write:
            return real(descriptor, data, offset)
        real(descriptor, data[:size], offset)
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    os.pwrite = pwrite  # type: ignore[assignment]


if __name__ == "__main__":
    folder, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    if len(sys.argv) > 4:
        dying(int(sys.argv[4]), int(sys.argv[5]))
    store = EmbeddingStore(folder, SHAPE, SHARD)
    for begin in range(first, last, 2):
        numbers = list(range(begin, min(begin + 2, last)))
        got = store.get([str(n) for n in numbers], lambda places: entries([numbers[p] for p in places]))  # noqa: B023
        assert np.array_equal(got, entries(numbers))
    assert not store.notes, store.notes
