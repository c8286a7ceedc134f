"""Threads of a process's libraries: how many, and what they do when there is nothing to do.  Environment variables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
RESTING = {"OPENBLAS_THREAD_TIMEOUT": "4"}
"""The threads of NumPy's BLAS sleep as soon as they are idle (after 2^4 cycles).  Else they spin for a tenth of a
second and longer after each product, on the processors that PyTorch computes on meanwhile: two products in the
preparation of an image doubled the time of a training step of MedSAM's tiny size."""


def environment(threads: int) -> dict[str, str]:
    """Environment in which a process starts with so many threads in each library's pool, idle ones resting."""
    return {**dict.fromkeys(_COUNTS, str(threads)), **RESTING}


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes that start meanwhile have no pools: NumPy's BLAS would have one before their own code could say so."""
    before = {name: os.environ.get(name) for name in _COUNTS}
    os.environ.update(dict.fromkeys(_COUNTS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
