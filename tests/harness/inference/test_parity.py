"""With equal weights the pipelines write the segmentations of LiteMedSAM's own inference script."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import variants
from harness.data.case import read_case
from harness.inference import Session, segment, segment_volume
from harness.inference.torch_session import TorchSession
from tests.harness.inference.support import golden_fill

E2E = Path(__file__).parents[2] / "goldens" / "e2e"
THREADS = min(2, os.cpu_count() or 1)


@pytest.fixture(scope="module")
def session() -> Session:
    return TorchSession(golden_fill(variants.create("litemedsam")), threads=THREADS, channels_last=False)


def agreement(segs: np.ndarray, name: str) -> float:
    with np.load(E2E / "segs_lite" / f"{name}.npz", allow_pickle=False) as expected:
        assert segs.dtype == expected["segs"].dtype
        return float((segs == expected["segs"]).mean())


@pytest.mark.parametrize("name", ["2DBox_US_0002", "2DBox_XRay_0001"])
def test_images_are_segmented_as_by_the_original(session: Session, name: str) -> None:
    assert agreement(segment(session, read_case(E2E / f"{name}.npz")).segs, name) >= 0.999


@pytest.mark.slow
def test_a_volume_is_segmented_as_by_the_original_with_one_encoding_a_slice(session: Session) -> None:
    prediction = segment(session, read_case(E2E / "3DBox_CT_0001.npz"))
    assert agreement(prediction.segs, "3DBox_CT_0001") >= 0.999
    assert prediction.encodes == 8


def test_both_loops_agree_on_a_network() -> None:
    tiny = TorchSession(variants.create("litemedsam_tiny", seed=3), threads=THREADS, channels_last=False)
    volume = read_case(E2E / "3DBox_CT_0001.npz").image
    boxes = np.array([[20, 30, 1, 80, 100, 3], [5, 6, 2, 50, 60, 3]])
    sweep, reference = (segment_volume(tiny, volume, boxes, loop=loop) for loop in ("sweep", "reference"))
    assert (sweep.segs == reference.segs).mean() >= 0.9999
    assert (sweep.encodes, reference.encodes) == (3, 5)
