"""On random masks every value equals the definition's own implementation, wherever that defines one."""

from __future__ import annotations

import math
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.random import Generator

from harness.metrics import dice, hd95, surface_dice

pytestmark = pytest.mark.filterwarnings(r"ignore:.*`scipy\.ndimage\.\w+` namespace is deprecated:DeprecationWarning")

SPACINGS = (0.2, 0.4, 0.5, 0.7, 0.75, 0.8, 1.0, 1.3, 2.5, 3.3, 5.0)
TOLERANCES = (0.0, 0.7, 1.0, 2.0, 3.5)
SOUND = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


class Pair(NamedTuple):
    gt: np.ndarray
    seg: np.ndarray
    spacing: tuple[float, ...]


def noise(rng: Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(rng.random(shape) < rng.choice([0.01, 0.2, 0.9]))


def body(rng: Generator, shape: tuple[int, ...]) -> np.ndarray:
    """An ellipsoid anywhere, so that many touch the border or leave the field."""
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    centre = [rng.uniform(-1, n + 1) for n in shape]
    radii = [rng.uniform(0.5, 0.6 * n + 1) for n in shape]
    return np.asarray(sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) <= 1)


def empty(rng: Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape, bool)


def full(rng: Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.ones(shape, bool)


def single(rng: Generator, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(rng.integers(0, shape))] = True
    return mask


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    ndim = draw(st.sampled_from([2, 3]))
    shape = tuple(draw(st.lists(st.integers(1, 40 if ndim == 2 else 14), min_size=ndim, max_size=ndim)))
    spacing = tuple(draw(st.lists(st.sampled_from(SPACINGS), min_size=ndim, max_size=ndim)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kinds = st.sampled_from([body, body, body, noise, single, full, empty])
    gt = draw(kinds)(rng, shape)
    if draw(st.booleans()):  # a prediction that is nearly right
        return Pair(gt, np.roll(gt, rng.integers(-3, 4, ndim), axis=tuple(range(ndim))), spacing)
    return Pair(gt, draw(kinds)(rng, shape), spacing)


def compare(definition: ModuleType, pair: Pair) -> None:
    gt, seg, spacing = pair
    if not gt.any() and not seg.any():
        assert math.isnan(surface_dice(gt, seg, spacing, 2.0))
        assert math.isnan(hd95(gt, seg, spacing))
        assert math.isnan(dice(gt, seg))
        return
    assert dice(gt, seg) == pytest.approx(definition.compute_dice_coefficient(gt, seg), abs=1e-9)
    distances = definition.compute_surface_distances(gt, seg, spacing)
    for tolerance in TOLERANCES:
        expected = definition.compute_surface_dice_at_tolerance(distances, tolerance)
        assert surface_dice(gt, seg, spacing, tolerance) == pytest.approx(expected, abs=1e-9)
    # Where sizes come to 95 % exactly, the rounding of their sum decides between two neighbours.
    low, high = (definition.compute_robust_hausdorff(distances, 95 + change) for change in (-1e-9, 1e-9))
    found = hd95(gt, seg, spacing)
    assert found == high if math.isinf(high) else low - 1e-9 <= found <= high + 1e-9


@settings(SOUND, max_examples=150)
@given(pair=pairs())
def test_random_masks_score_as_the_definition(definition: ModuleType, pair: Pair) -> None:
    compare(definition, pair)


@pytest.mark.slow
@settings(SOUND, max_examples=2000)
@given(pair=pairs())
def test_two_thousand_random_masks_score_as_the_definition(definition: ModuleType, pair: Pair) -> None:
    compare(definition, pair)


def test_multiples_of_the_spacing_at_the_tolerance_itself_score_as_the_definition(definition: ModuleType) -> None:
    gt, seg = np.zeros((12, 12), bool), np.zeros((12, 12), bool)
    gt[1, 1] = seg[6, 1] = seg[4, 5] = True  # 5 steps of 1.1, and 3 with 4 across: both 5.5 mm but for rounding
    distances = definition.compute_surface_distances(gt, seg, (1.1, 1.1))
    expected = definition.compute_surface_dice_at_tolerance(distances, 5.5)
    assert surface_dice(gt, seg, (1.1, 1.1), 5.5) == pytest.approx(expected, abs=1e-9)
    rng = np.random.default_rng(4)
    for step in (0.1, 0.2, 0.4, 2 / 3, 0.5, 1.0):
        for _ in range(6):
            compare(definition, Pair(rng.random((44, 44)) < 0.004, rng.random((44, 44)) < 0.004, (step, step)))
