"""Keeping freed memory with the process (glibc), so that large activations are not faulted in again and again.

glibc serves every large block by a mapping of its own and gives it back to the kernel when freed.  A network whose
activations are tens of megabytes then pays a page fault per 4 KiB of every layer: on the TinyViT encoder half a million
faults an image and a third of the wall time.  Values do not depend on it, times do: for measured processes the
deployment's ``allocator`` decides, the engine's own processes always keep their pages.
"""

from __future__ import annotations

import ctypes
import sys

_NO_MAPPINGS = 0
_NEVER_TRIM = 2**31 - 1
_TOP_PAD = 64 * 1024**2

# malloc.h: numbers of the parameters of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4

SETTINGS: dict[str, dict[str, str]] = {
    "system": {},
    "keep-pages": {
        "MALLOC_MMAP_MAX_": str(_NO_MAPPINGS),
        "MALLOC_TRIM_THRESHOLD_": str(_NEVER_TRIM),
        "MALLOC_TOP_PAD_": str(_TOP_PAD),
    },
}


def environment(allocator: str) -> dict[str, str]:
    """Environment variables that give a child process the allocator of a deployment (``system`` or ``keep-pages``).

    Read by glibc when a process starts; other C libraries ignore them.

    Raises:
        ValueError: an unknown allocator.
    """
    if allocator not in SETTINGS:
        raise ValueError(f"unknown allocator {allocator!r}; known: {', '.join(SETTINGS)}")
    return dict(SETTINGS[allocator])


def keep_pages() -> bool:
    """Keep freed memory with this process from now on; call it before the first large allocation.

    Returns:
        Whether the C library took the settings; ``False`` where it is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        return False
    settings = ((_M_MMAP_MAX, _NO_MAPPINGS), (_M_TRIM_THRESHOLD, _NEVER_TRIM), (_M_TOP_PAD, _TOP_PAD))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
