"""What ``torchrun`` says of a training's processes, without importing torch."""

from __future__ import annotations

import os


def count() -> int:
    """Number of processes that train together; 1 outside of torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this one is, from 0."""
    return int(os.environ.get("RANK", "0"))
