"""Small stores of embeddings, and a process of its own that fills one and may kill itself in the middle of a write.

python -m tests.harness.training.storing FOLDER FIRST LAST [WRITE BYTES]

Stores the keys FIRST..LAST-1, two at a time.  With WRITE and BYTES: of the WRITEth write (1-based; entries and lines
alike) that many bytes reach the file, and SIGKILL follows.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.training.embeddings import EmbeddingStore

ROOT = Path(__file__).resolve().parents[3]
SHAPE = (2, 3)
SHARD = 3
ENTRY = 2 * 3 * 4
SEVEN = range(7)  # three shards: two complete, one with a single entry


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


class Source:
    """Computes entries and remembers which."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def ask(self, store: EmbeddingStore, numbers: Sequence[int]) -> np.ndarray:
        def compute(places: list[int]) -> np.ndarray:
            self.asked += [numbers[p] for p in places]
            return entries([numbers[p] for p in places])

        return store.get([str(n) for n in numbers], compute)


def opened(folder: Path) -> EmbeddingStore:
    return EmbeddingStore(folder, SHAPE, SHARD)


def asked(store: EmbeddingStore, numbers: Sequence[int]) -> list[int]:
    """What has to be computed to give these entries; all of them are right."""
    source = Source()
    assert np.array_equal(source.ask(store, numbers), entries(numbers))
    return source.asked


def filled(folder: Path) -> Path:
    assert asked(opened(folder), SEVEN) == list(SEVEN)
    return folder


def only(folder: Path, name: str) -> Path:
    (path,) = folder.rglob(name)
    return path


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def line_starts(index: Path) -> list[int]:
    """Where the lines of the seven entries start, and the end."""
    lines = index.read_bytes().splitlines(keepends=True)
    return [sum(map(len, lines[:n])) for n in range(1, len(lines) + 1)]


def child(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.harness.training.storing", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> int:
    _, errors = process.communicate(timeout=60)
    assert process.returncode <= 0, errors
    return process.returncode


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
