"""Colour jitter: torchvision's definitions, recomputed pixel by pixel."""

from __future__ import annotations

import colorsys
import time
from dataclasses import replace

import numpy as np
import pytest

from harness.recipe import ColourJitter
from harness.training.augment import colour_jittered, is_coloured
from harness.training.samples import Draw, make_samples
from tests.harness.training.toys import image_case
from variants import preprocess

NONE = ColourJitter(brightness=0, contrast=0, saturation=0, hue=0)
SHOWN = (12, 16)


def image(coloured: bool = True) -> np.ndarray:
    """A network input of side 16 whose last four rows are padding."""
    values = np.random.default_rng(1).random((3 if coloured else 1, *SHOWN), np.float32)
    network = np.zeros((3, 16, 16), np.float32)
    network[:, :12] = values
    return network


def jittered(network: np.ndarray, jitter: ColourJitter, seed: int = 0, coloured: bool = True) -> np.ndarray:
    return colour_jittered(network, SHOWN, jitter, coloured, np.random.default_rng(seed))


def factors(pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """What the first of each pair was multiplied by, and that it is one number."""
    found = []
    for before, after in pairs:
        inside = (after > 1e-3) & (after < 1 - 1e-3) & (abs(before) > 0.02)
        ratios = after[inside] / before[inside]
        assert np.ptp(ratios) < 1e-3
        found.append(ratios.mean())
    return np.array(found)


def grey(pixels: np.ndarray) -> np.ndarray:
    return np.tensordot([0.299, 0.587, 0.114], pixels, 1)


def test_brightness_is_scaled_by_a_factor_between_its_bounds() -> None:
    before = image()
    after = [jittered(before, NONE.model_copy(update={"brightness": 0.4}), seed) for seed in range(200)]
    found = factors([(before, one) for one in after])
    assert 0.6 <= found.min() < 0.62
    assert 1.38 < found.max() <= 1.4
    assert max(one.max() for one in after) == 1, "clipped"


def test_no_factor_is_negative() -> None:
    jitter = NONE.model_copy(update={"brightness": 3.0})
    assert all(jittered(image(), jitter, seed)[0, :12].mean() > 0 for seed in range(50))


def test_contrast_is_scaled_around_the_mean_grey_value_of_what_is_shown() -> None:
    before = image()
    mean = grey(before[:, :12]).mean()
    after = [jittered(before, NONE.model_copy(update={"contrast": 0.5}), seed)[:, :12] for seed in range(200)]
    unclipped = [(one > 0) & (one < 1) for one in after]
    found = np.array([np.polyfit(before[:, :12][u], one[u], 1) for u, one in zip(unclipped, after, strict=True)])
    assert np.allclose(found[:, 1], (1 - found[:, 0]) * mean, atol=1e-4)
    assert 0.5 <= found[:, 0].min() < 0.53
    assert 1.47 < found[:, 0].max() <= 1.5


def test_saturation_is_scaled_around_each_pixels_grey_value() -> None:
    before = 0.25 + image() / 2
    before[:, 12:] = 0
    for seed in range(20):
        after = jittered(before, NONE.model_copy(update={"saturation": 0.4}), seed)
        assert np.allclose(grey(after), grey(before), atol=1e-5)
        (factor,) = factors([((before - grey(before))[:, :12].ravel(), (after - grey(after))[:, :12].ravel() + 0)])
        assert 0.6 <= factor <= 1.4


def test_the_hue_is_turned_by_the_same_share_of_the_circle_everywhere() -> None:
    before = image()
    turns = []
    for seed in range(100):
        after = jittered(before, NONE.model_copy(update={"hue": 0.2}), seed)[:, :12].reshape(3, -1).T
        old, new = (
            np.array([colorsys.rgb_to_hsv(*pixel) for pixel in pixels.tolist()])
            for pixels in (before[:, :12].reshape(3, -1).T, after)
        )
        turn = (new[:, 0] - old[:, 0] + 0.5) % 1 - 0.5
        assert np.ptp(turn) < 1e-3
        assert np.allclose(new[:, 1:], old[:, 1:], atol=1e-4)
        turns.append(turn.mean())
    assert -0.2 <= min(turns) < -0.19
    assert 0.19 < max(turns) <= 0.2


def test_the_order_of_the_changes_is_drawn() -> None:
    """Brightness and contrast, both clipped, do not commute: brightness comes first about every other time."""
    jitter = NONE.model_copy(update={"brightness": 0.4, "contrast": 0.5})
    before = image()
    brightness_first = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        brightness, contrast, _, _ = (rng.uniform(-x, x) for x in (0.4, 0.5, 0.0, 0.0))
        bright = np.clip(before[:, :12] * (1 + brightness), 0, 1)
        last = np.clip((1 + contrast) * bright - contrast * grey(bright).mean(), 0, 1)
        brightness_first += np.allclose(jittered(before, jitter, seed)[:, :12], last, atol=1e-5)
    assert 15 < brightness_first < 45


def test_padding_stays_zero_and_values_between_0_and_1() -> None:
    for seed in range(30):
        after = jittered(image(), ColourJitter(), seed)
        assert after.dtype == np.float32
        assert not after[:, 12:].any()
        assert 0 <= after.min() < after.max() <= 1


@pytest.mark.parametrize("coloured", [True, False])
def test_grey_stays_grey(coloured: bool) -> None:
    before = image(coloured=False)
    for seed in range(30):
        after = jittered(before, ColourJitter(), seed, coloured)
        assert np.allclose(after[0], after[1], atol=1e-6 if coloured else 0)
        assert np.allclose(after[0], after[2], atol=1e-6 if coloured else 0)
        assert not np.array_equal(after, before)


def test_channels_that_are_no_colours_change_alike_in_brightness_and_contrast_alone() -> None:
    before = image()
    before[2, :12] = before[0, 11::-1]
    for seed in range(10):
        after = jittered(before, ColourJitter(), seed, coloured=False)
        assert np.array_equal(after[2, :12], after[0, 11::-1])
        rising = after[:, :12].ravel()[np.argsort(before[:, :12], axis=None)]
        assert (np.diff(rising) >= 0).all()


def test_the_probability_decides_whether_anything_changes() -> None:
    before = image()
    often = ColourJitter(probability=0.3)
    changed = sum(not np.array_equal(jittered(before, often, seed), before) for seed in range(300))
    assert 60 < changed < 120
    assert np.array_equal(jittered(before, ColourJitter(probability=0)), before)


def test_the_image_that_is_given_stays_as_it_is() -> None:
    before = image()
    kept = before.copy()
    jittered(before, ColourJitter())
    assert np.array_equal(before, kept)


@pytest.mark.parametrize("rule", preprocess.RULES)
def test_only_channels_that_follow_the_images_own_colours_count_as_colours(rule: str) -> None:
    """A red image and its grey look differ in what the network sees exactly where its channels are colours."""
    red = np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)
    red[..., 1:] //= 3
    seen = preprocess.prepare(red, 16, rule).network
    follows = bool((seen[0] > seen[2]).mean() > 0.7)
    assert is_coloured(red, rule) == follows
    assert not is_coloured(red[..., 0], rule)
    assert not is_coloured(np.repeat(red[..., :1], 3, 2), rule)


def test_slices_of_grey_volumes_change_too() -> None:
    case = image_case()
    draw = Draw(256, "longest-side", 0, 0.0)
    mask, plane = np.asarray(case.truth == 1), np.ascontiguousarray(case.image[..., 0])
    for rng in (np.random.default_rng(i) for i in range(3)):
        (sample,) = make_samples(plane, [mask], replace(draw, colour=ColourJitter()), rng, "x")
        assert np.array_equal(sample.image[0], sample.image[2])
        assert not np.array_equal(sample.image, preprocess.prepare(plane, 256).network)


def test_an_image_of_256_pixels_takes_a_few_milliseconds() -> None:
    network = np.random.default_rng(0).random((3, 256, 256), np.float32)
    rng = np.random.default_rng(0)

    def once() -> float:
        started = time.thread_time()
        colour_jittered(network, (256, 256), ColourJitter(), True, rng)
        return time.thread_time() - started

    assert min(once() for _ in range(10)) < 0.006
