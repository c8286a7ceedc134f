"""Batches ahead of time: in the calling process, or by worker processes through PyTorch's ``DataLoader``.

A batch is a function of its index, so any number of workers gives the same ones, bit for bit.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, cast

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from harness.errors import BenchError
from harness.parent import end_with_parent
from harness.threads import one_thread_each
from harness.training.samples import Batch, Samples

PREFETCH = 2
"""Batches that each worker has ready or in hand."""
DEATH = "DataLoader worker (pid"
"""How PyTorch begins to tell that a worker died."""


class Loader:
    """Calls give batches; those after the one asked for are prepared meanwhile.

    Workers start at the first call (some seconds, which do not count as waiting) and stay until ``close``, or until the
    thread that started them ends, however it does.  Each has one thread, and its share of the byte budget of decoded
    cases.

    Attributes:
        waited: seconds that callers waited for batches.

    Args:
        samples: what the batches are made of.
        size: images of a whole batch.
        workers: processes; 0 prepares batches in the calling process, when asked.
        first: place in the batch of the first image given, see ``Samples.batch``.
        count: images given of each batch; all from ``first`` on if left out.
    """

    def __init__(self, samples: Samples, size: int, workers: int = 0, first: int = 0, count: int | None = None) -> None:
        self.waited = 0.0
        self._workers = workers
        self._batches = _Batches(samples.for_workers(workers) if workers else samples, size, first, count)
        self._indices = _Indices()
        self._loader: DataLoader[Any] | None = None
        self._stream: Iterator[Batch | BenchError] | None = None
        self._next: int | None = None
        self._processes: list[BaseProcess] = []

    def __call__(self, index: int) -> Batch:
        """The batch of a step (0-based), or this process's share of it.

        Any order is possible; asking for another index than the next one throws away what was prepared.

        Raises:
            BenchError: what ``Samples`` raises, from whichever process; or a worker was killed.
        """
        started = time.perf_counter()
        starting = bool(self._workers) and self._loader is None
        found = self._delivered(index) if self._workers else self._batches[index]
        if not starting:
            self.waited += time.perf_counter() - started
        if isinstance(found, BenchError):
            raise found
        return found

    def close(self) -> None:
        """End the workers; a later call starts new ones."""
        stream, self._stream, self._loader, self._next = self._stream, None, None, None
        self._processes.clear()
        if stream is not None:
            # Not left to the end of the last reference: the traceback of an exception may hold one.
            cast(Any, stream)._shutdown_workers()

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _delivered(self, index: int) -> Batch | BenchError:
        """The batch from the workers' stream, which is started, or started anew, where it does not come next."""
        expected, self._next = self._next, None  # whatever interrupts this: the next call starts anew
        try:
            with _deaths_raised(self._processes):
                if self._stream is None or index != expected:
                    self._indices.start = index
                    self._stream = self._restarted()
                found = next(self._stream)
        except RuntimeError as error:
            if not str(error).startswith(DEATH):
                raise
            self.close()
            raise BenchError(
                f"A process that prepares training batches ended unexpectedly ({str(error).splitlines()[0]}); memory "
                "may have run out: give `workers` a smaller number in the recipe."
            ) from error
        self._next = index + 1
        return found

    def _restarted(self) -> Iterator[Batch | BenchError]:
        before = set(active_children())
        with warnings.catch_warnings(), _same_child_handler(), one_thread_each():
            # More workers than processors is for the caller to decide: they may wait for a disk.
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            if self._loader is None:
                self._loader = DataLoader(
                    self._batches,
                    batch_size=None,
                    sampler=self._indices,
                    num_workers=self._workers,
                    collate_fn=_unchanged,
                    worker_init_fn=partial(_prepare_worker, os.getpid()),
                    # Started anew rather than forked: a fork would copy the locks of the caller's libraries.
                    multiprocessing_context="spawn",
                    # One of its own, so that the global one, which it would draw a seed from, stays as it is.
                    generator=torch.Generator(),
                    prefetch_factor=PREFETCH,
                    persistent_workers=True,
                )
            stream = iter(self._loader)
        self._processes += [child for child in active_children() if child not in before]
        return stream


class _Indices:
    """All indices from one on."""

    start = 0

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start)


class _Batches(Dataset[Any]):
    """Batches by index, as a ``DataLoader`` asks for them."""

    def __init__(self, samples: Samples, size: int, first: int, count: int | None) -> None:
        self._samples = samples
        self._share = size, first, count

    def __getitem__(self, index: int) -> Batch | BenchError:
        # The error is handed over as a value: a DataLoader would raise one with a traceback in its message.
        try:
            return self._samples.batch(index, *self._share)
        except BenchError as error:
            return error


def _unchanged(batch: Any) -> Any:
    # Arrays go through a pipe, not through tensors in shared memory, of which a container has little.
    return batch


def _prepare_worker(parent: int, worker: int) -> None:
    """In a worker: one thread (PyTorch has seen to its own), Ctrl-C is left to the parent, and the end is its end.

    A ``DataLoader``'s workers notice that too, but cannot end while a batch that nobody takes lies in their pipe.
    """
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(parent)


@contextmanager
def _deaths_raised(processes: list[BaseProcess]) -> Iterator[None]:
    """Raises a ``RuntimeError`` where one of the processes is dead or dies; the list may grow meanwhile.

    A ``DataLoader`` asks for them only when nothing arrives, and would wait forever for the rest of a batch that a
    killed worker had begun to send.
    """

    def check(*_: object) -> None:
        dead = [process for process in processes if not process.is_alive()]
        if dead:
            raise RuntimeError(f"{DEATH} {dead[0].pid}) has exit code {dead[0].exitcode}")

    if threading.current_thread() is not threading.main_thread():  # signals are out of reach
        check()
        yield
        return
    before = signal.signal(signal.SIGCHLD, check)
    try:
        check()
        yield
    finally:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


@contextmanager
def _same_child_handler() -> Iterator[None]:
    """Takes back the handler with which a ``DataLoader`` raises a worker's death in the middle of any other code."""
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
