from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.data import Case

Write = Callable[..., Path]


@pytest.fixture
def npz(tmp_path: Path) -> Write:
    """Write arrays under a case's name, without any check."""

    def write(name: str = "2DBox_CT_0001", folder: Path | None = None, **arrays: object) -> Path:
        target = folder or tmp_path
        target.mkdir(parents=True, exist_ok=True)
        path = target / f"{name}.npz"
        np.savez_compressed(path, **{key: np.asarray(value) for key, value in arrays.items()})
        return path

    return write


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture
def case(image: np.ndarray) -> Case:
    truth = np.zeros((20, 30), np.uint16)
    truth[3:9, 4:11] = 1
    truth[12:18, 20:28] = 2
    boxes = np.array([[4, 3, 10, 8], [20, 12, 27, 17]], np.int64)
    return Case("2DBox_US_0001", "US", image, boxes, truth=truth)


@pytest.fixture
def volume() -> Case:
    rng = np.random.default_rng(8)
    truth = np.zeros((6, 16, 12), np.uint16)
    truth[1:5, 2:10, 3:9] = 1
    boxes = np.array([[3, 2, 1, 8, 9, 4]], np.int64)
    pixels = rng.integers(0, 256, truth.shape, dtype=np.uint8)
    return Case("3DBox_MR_0001", "MR", pixels, boxes, spacing_xyz=(0.5, 0.6, 4.0), truth=truth)
