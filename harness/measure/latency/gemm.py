"""The machine's own limit: the matrix product (GEMM) of the best library at hand, in a process of its own.

A process of its own, because the limit must be the same for every backend: which library reaches most depends on the
CPU (OpenBLAS of numpy on AMD, MKL behind torch on Intel), and a process that is measured without torch must not import
it.  The two processes take turns, so that a drift of the clock meets both alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

from harness.measure.latency.pipe import serve

SIZES = (1024, 1536, 2048)
"""Sides of the square matrices that are tried; far above the caches, the largest product takes a tenth of a second."""
TRIES = 3
"""Timed tries of every library and size."""
ROUND_TRIES = 2
"""Timed tries of a round, of which the best counts."""
WORK = 2048**3
"""Multiply-adds of a timing at least: small matrices are multiplied several times."""


@dataclass(frozen=True)
class Product:
    """One library's product of two square matrices of side ``size``."""

    library: str
    precision: str
    size: int
    multiply: Callable[[], object]

    def speed(self, work: int = 0) -> float:
        """Multiply-adds per second of one product, or of as many as make up ``work`` multiply-adds."""
        times = max(1, ceil(work / self.size**3))
        begun = time.perf_counter()
        for _ in range(times):
            self.multiply()
        return times * self.size**3 / (time.perf_counter() - begun)

    def peak(self) -> float:
        """The limit of a round: multiply-adds per second of the best of `ROUND_TRIES` timings.

        A product that is not timed comes first: the round before it has slept, and threads that wake and a clock that
        rises would make the limit lower than it is.
        """
        self.multiply()
        return max(self.speed(WORK) for _ in range(ROUND_TRIES))


def candidates(precision: str, threads: int) -> Iterator[Product]:
    """Every library × size that multiplies in this precision, result in place."""
    import numpy as np

    for size in SIZES:
        left, right = (np.random.default_rng(seed).random((size, size), dtype=np.float32) for seed in (0, 1))
        if precision == "fp32":
            out = np.empty_like(left)
            yield Product(f"numpy {np.__version__}", precision, size, _numpy_product(left, right, out))
        try:
            import torch
        except ImportError:  # numpy alone is a limit as well, and the record names it
            continue
        torch.set_num_threads(threads)
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        factors = torch.from_numpy(left).to(kind), torch.from_numpy(right).to(kind)
        yield Product(f"torch {torch.__version__}", precision, size, _torch_product(*factors))


def _numpy_product(left: Any, right: Any, out: Any) -> Callable[[], object]:
    import numpy as np

    return lambda: np.matmul(left, right, out=out)


def _torch_product(left: Any, right: Any) -> Callable[[], object]:
    import torch

    out = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=out)


def best(precision: str, threads: int) -> Product | None:
    """The fastest of all libraries and sizes, by the best of `TRIES`; ``None`` if no library has the precision."""
    found: list[tuple[float, Product]] = []
    for product in candidates(precision, threads):
        product.multiply()  # threads and buffers are made by the first call
        found.append((max(product.speed() for _ in range(TRIES)), product))
    return max(found, key=lambda pair: pair[0])[1] if found else None


class Gemm:
    """Answers ``open`` (precisions and threads) and ``round``."""

    def __init__(self) -> None:
        self._products: list[Product] = []

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """``open`` names the product chosen for each precision, ``round`` gives multiply-adds per second of each."""
        if request["do"] == "open":
            chosen = (best(precision, int(request["threads"])) for precision in request["precisions"])
            self._products = [product for product in chosen if product is not None]
            return {p.precision: {"library": p.library, "size": p.size} for p in self._products}
        return {product.precision: product.peak() for product in self._products}


if __name__ == "__main__":
    serve(Gemm().answer)
