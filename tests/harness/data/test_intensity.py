"""Grey values as the challenge's preparation makes them."""

from __future__ import annotations

import numpy as np
import pytest

from harness.data.intensity import WINDOWS, by_percentiles, stretched, windowed

AIR, FAT, WATER, LIVER, BONE = -1000, -100, 0, 60, 1200


@pytest.fixture
def body() -> np.ndarray:
    """A phantom in Hounsfield units: a body of fat with water, liver and bone, in air."""
    phantom = np.full((4, 10, 12), AIR, np.int16)
    phantom[:, 1:9, 1:11] = FAT
    phantom[:, 2, 2:10] = WATER
    phantom[:, 4, 2:10] = LIVER
    phantom[:, 6, 2:10] = BONE
    return phantom


@pytest.mark.parametrize(
    ("name", "low", "high"), [("abdomen", -160, 240), ("lung", -910, 590), ("brain", 0, 80), ("bone", -500, 1300)]
)
def test_a_window_cuts_at_level_plus_and_minus_half_its_width(body: np.ndarray, name: str, low: int, high: int) -> None:
    grey = windowed(body, *WINDOWS[name])
    top = min(high, BONE)  # the stretching ends at the largest value there is
    for value in (AIR, FAT, WATER, LIVER, BONE):
        inside = min(max(value, low), high)
        assert set(grey[body == value]) == {int((inside - low) / (top - low) * 255)}


def test_the_abdomen_window_by_hand(body: np.ndarray) -> None:
    grey = windowed(body, 40, 400)
    found = [int(grey[body == value][0]) for value in (AIR, FAT, WATER, LIVER, BONE)]
    # (HU + 160) / 400 * 255, truncated: fat 38.25, water 102, liver 140.25
    assert found == [0, 38, 102, 140, 255]
    assert grey.dtype == np.uint8


def test_a_window_stretches_what_is_left_not_the_window(body: np.ndarray) -> None:
    soft = np.where(body > LIVER, LIVER, np.where(body < FAT, FAT, body))
    grey = windowed(soft, 40, 400)
    assert (int(grey.min()), int(grey.max())) == (0, 255)


def test_percentiles_are_those_of_the_values_above_zero_and_zeros_stay_zero() -> None:
    values = np.zeros(3000, np.float32)
    values[1000:] = np.arange(1, 2001)
    values[5] = -50
    low, high = np.percentile(np.arange(1, 2001), (0.5, 99.5))
    grey = by_percentiles(values.reshape(10, 15, 20)).ravel()
    assert (grey[:5] == 0).all()
    assert grey[1000 + 499] == int((500 - low) / (high - low) * 255)
    assert (grey[-10:] == 255).all()
    assert (grey[1000:1010] == 0).all()


def test_an_image_without_a_value_above_zero_or_of_one_value_becomes_black() -> None:
    assert (by_percentiles(np.zeros((3, 4))) == 0).all()
    assert (stretched(np.full((3, 4), 7000)) == 0).all()


def test_stretching_reaches_both_ends_and_truncates() -> None:
    assert stretched(np.array([[100, 1000, 1999, 2000]], np.uint16)).tolist() == [[0, 120, 254, 255]]
