"""Advisory locks that the kernel releases when their holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def file_lock(path: Path, *, shared: bool = False, waiting: Callable[[], None] | None = None) -> Iterator[int]:
    """Hold the lock of a file, exclusively or shared; ``waiting`` is called once if another process holds it.

    Yields the descriptor, for ``alone``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _take(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, waiting)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def alone(descriptor: int, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock that is held shared exclusively for a while.

    The kernel gives the shared lock up before it takes the other, so two that want to be alone do not block each other.
    """
    try:
        _take(descriptor, fcntl.LOCK_EX, waiting)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_SH)


def _take(descriptor: int, kind: int, waiting: Callable[[], None] | None) -> None:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        if waiting:
            waiting()
        fcntl.flock(descriptor, kind)


def is_locked(path: Path) -> bool:
    """Whether another process holds the exclusive lock of the file now."""
    if not path.exists():
        return False
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def machine_lock_path() -> Path:
    """One file a machine and user: timings hold it alone, all other jobs share it."""
    return Path(tempfile.gettempdir()) / f"medsam-bench-{os.getuid()}.lock"
