"""Preprocessing is the published rules, to the bit, and their inverse fits."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import variants
from tests.variants import published
from variants import gray, preprocess

GRAY = ("gray-paper", "gray-code")
GOLDEN = published.goldens("preprocess")
CASES = range(5)


def golden_image(i):
    height, width = GOLDEN[f"{i}_hw"]
    return np.random.default_rng(100 + i).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("i", CASES)
def test_the_network_input_equals_the_official_one(i):
    prepared = preprocess.prepare(golden_image(i), 256)
    assert np.array_equal(prepared.network.transpose(1, 2, 0), GOLDEN[f"{i}_padded_f32"])
    assert prepared.network.dtype == np.float32
    assert prepared.scale_hw == GOLDEN[f"{i}_resized"].shape[:2]
    assert prepared.original_hw == tuple(GOLDEN[f"{i}_hw"])


def test_a_grey_image_is_repeated_to_three_channels():
    grey = golden_image(0)[..., 0]
    repeated = preprocess.prepare(np.repeat(grey[..., None], 3, axis=2), 256)
    assert np.array_equal(preprocess.prepare(grey, 256).network, repeated.network)


def test_padding_is_at_the_bottom_and_right_and_as_dark_as_the_darkest_pixel():
    network = preprocess.prepare(np.full((100, 50), 200, np.uint8) + np.eye(100, 50, dtype=np.uint8), 256).network
    assert network[:, :, 128:].max() == 0
    assert network[:, :, :128].max() == 1


def test_a_constant_image_becomes_zero():
    assert not preprocess.prepare(np.full((10, 20, 3), 77, np.uint8), 256).network.any()


def test_a_very_long_image_keeps_one_row():
    assert preprocess.prepare(np.zeros((1, 2000), np.uint8), 256).scale_hw == (1, 256)


@pytest.mark.parametrize("rule", preprocess.RULES)
@pytest.mark.parametrize("hw", [(10, 20), (1, 1), (1, 300), (300, 1)])
@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_constant_image_becomes_zero_by_every_rule(rule, hw, value):
    assert not preprocess.prepare(np.full((*hw, 3), value, np.uint8), 64, rule).network.any()


@pytest.mark.parametrize("rule", preprocess.RULES)
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.booleans(), st.integers(1, 256), st.integers(0, 2**32 - 1))
def test_every_image_becomes_a_finite_input_from_0_to_1_by_every_rule(rule, height, width, grey, levels, seed):
    shape = (height, width) if grey else (height, width, 3)
    image = np.random.default_rng(seed).integers(0, levels, shape, dtype=np.uint8)
    prepared = preprocess.prepare(image, 32, rule)
    assert prepared.network.shape == (3, 32, 32)
    assert prepared.network.dtype == np.float32
    assert prepared.network.flags.c_contiguous
    assert np.isfinite(prepared.network).all()
    assert prepared.network.min() == 0
    assert prepared.network.max() in (0, 1)
    assert prepared.original_hw == (height, width)
    assert prepared.scale_hw == preprocess.shown_hw((height, width), 32, rule)
    if grey:
        repeated = preprocess.prepare(np.repeat(image[..., None], 3, axis=2), 32, rule)
        assert np.array_equal(prepared.network, repeated.network)
    mask = preprocess.logits_to_mask(np.ones((32, 32), np.float32), prepared)
    assert mask.shape == (height, width)
    assert mask.all()


@pytest.mark.parametrize("i", [0, 3])
def test_gray_code_makes_the_official_three_channels(i):
    assert np.array_equal(gray.channels_of_code(golden_image(i)), GOLDEN[f"{i}_gray3"])


def test_gray_code_stretches_the_whole_image_before_it_becomes_grey():
    image = np.array([[[10, 10, 10], [10, 60, 110]], [[10, 60, 10], [60, 60, 60]]], np.uint8)
    red, green, blue = np.moveaxis((image - 10.0) / 100 * 255, 2, 0)
    grey = np.round(0.2989 * red + 0.5870 * green + 0.1140 * blue).astype(np.uint8)
    assert np.array_equal(gray.channels_of_code(image)[..., 0], grey)


def test_gray_paper_keeps_the_image_smooths_it_and_equalises_what_is_smooth():
    image = golden_image(0)[..., 0] // 2
    channels = gray.channels_of_paper(image)
    assert np.array_equal(channels[..., 0], image)
    assert np.array_equal(channels[..., 1], gray.diffused(image))
    assert np.array_equal(channels[..., 2], cv2.equalizeHist(gray.diffused(image)))


def test_gray_paper_and_gray_code_differ_in_the_equalised_channel_of_a_grey_image():
    image = np.random.default_rng(0).permutation(256).astype(np.uint8).reshape(16, 16)
    paper, code = gray.channels_of_paper(image), gray.channels_of_code(image)
    assert np.array_equal(paper[..., :2], code[..., :2])
    assert not np.array_equal(paper[..., 2], code[..., 2])
    assert np.array_equal(code[..., 2], cv2.equalizeHist(image))


def test_gray_paper_leaves_a_colour_image_as_it_is_and_gray_code_does_not():
    image = golden_image(0)
    longest = preprocess.prepare(image, 256).network
    assert np.array_equal(preprocess.prepare(image, 256, "gray-paper").network, longest)
    assert not np.array_equal(preprocess.prepare(image, 256, "gray-code").network, longest)


def test_diffusion_is_smoothing_across_opposite_borders():
    grey = np.zeros((5, 6), np.uint8)
    grey[0, 2] = 250
    expected = np.zeros((5, 6))
    expected[0, 2] = 250 - 4 * 25
    for row, column in ((1, 2), (4, 2), (0, 1), (0, 3)):
        expected[row, column] = 25
    # The conductance is 1 to within 0.003, and the result is truncated.
    assert np.abs(gray.diffused(grey) - (expected - 0.5)).max() <= 1


@pytest.mark.parametrize("rule", GRAY)
def test_boxes_and_masks_of_the_gray_rules_are_those_of_the_longest_side(rule):
    assert preprocess.shown_hw((50, 100), 256, rule) == (128, 256)
    boxes = np.array([[1, 2, 39, 51]])
    assert np.array_equal(
        preprocess.boxes_to_network(boxes, (50, 100), 256, rule), preprocess.boxes_to_network(boxes, (50, 100), 256)
    )
    assert not preprocess.sigmoid_first(rule)


@pytest.mark.parametrize("hw", [(97, 211), (300, 200), (300, 64), (256, 256), (40, 33)])
def test_stretching_is_the_teachers_resizing_without_its_rounding_noise(hw):
    from skimage.transform import resize

    # Blobs and noise: on an even surface rounding noise decides what truncation gives.
    y, x = np.mgrid[: hw[0], : hw[1]]
    noise = np.random.default_rng(1).normal(0, 6, (*hw, 3))
    image = (np.clip(noise + 120 + 90 * (np.sin(x / 9) * np.cos(y / 7))[..., None], 0, 255)).astype(np.uint8)
    expected = resize(image, (256, 256), order=3, preserve_range=True, anti_aliasing=True).astype(np.uint8)
    low, high = int(expected.min()), int(expected.max())
    levels = preprocess.prepare(image, 256, "stretch").network.transpose(1, 2, 0) * (high - low) + low
    difference = np.abs(np.round(levels).astype(int) - expected)
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.999


def test_an_even_surface_stays_even_when_it_is_stretched():
    image = np.full((60, 90), 20, np.uint8)
    image[:, 45:] = 180
    image[:, 89:] = 250
    network = preprocess.prepare(image, 256, "stretch").network[0]
    # Far enough from the edges, where the spline swings.
    assert np.ptp(network[:, :60]) == 0
    assert np.ptp(network[:, 188:196]) == 0


def test_boxes_of_a_stretched_image_follow_each_side_and_keep_fractions():
    boxes = preprocess.boxes_to_network(np.array([[1, 2, 300, 100]]), (200, 600), 1024, "stretch")
    np.testing.assert_allclose(boxes, [[1024 / 600, 10.24, 512, 512]], rtol=1e-6)
    assert boxes.dtype == np.float32
    assert preprocess.shown_hw((200, 600), 1024, "stretch") == (1024, 1024)


@pytest.mark.parametrize("hw", [(97, 211), (512, 400), (40, 33)])
def test_a_stretched_images_mask_is_the_resized_probability_above_one_half(hw):
    prepared = preprocess.prepare(np.zeros(hw, np.uint8), 1024, "stretch")
    logits = 8 * np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    probability = torch.from_numpy(logits)[None, None].sigmoid()
    expected = torch.nn.functional.interpolate(probability, hw, mode="bilinear", align_corners=False)[0, 0].numpy()
    mask = preprocess.logits_to_mask(logits, prepared)
    assert mask.shape == hw
    assert (mask == (expected > 0.5)).mean() > 0.9999
    resized_first = torch.nn.functional.interpolate(torch.from_numpy(logits)[None, None], hw, mode="bilinear")
    assert (mask == (resized_first[0, 0].numpy() > 0)).mean() < 0.99


def test_a_probability_is_the_sigmoid_even_of_extreme_logits():
    logits = np.array([-1e4, -3, 0, 0.5, 1e4], np.float32)
    got = preprocess.probability(logits)
    np.testing.assert_allclose(got, torch.from_numpy(logits).sigmoid().numpy(), rtol=0, atol=1e-7)
    assert got.dtype == np.float32


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 10), np.float32),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((2, 10, 10, 3), np.uint8),
        np.zeros((0, 10, 3), np.uint8),
    ],
    ids=["float", "four channels", "volume", "empty"],
)
def test_other_images_are_refused(image):
    with pytest.raises(variants.VariantError, match="an image must"):
        preprocess.prepare(image, 256)


def test_an_unknown_rule_is_refused_with_a_suggestion():
    with pytest.raises(variants.VariantError, match="did you mean 'longest-side'"):
        preprocess.prepare(np.zeros((4, 4), np.uint8), 256, rule="longest_side")


def test_every_variant_names_a_known_rule():
    assert {variants.spec(name).preprocess for name in variants.names()} <= set(preprocess.RULES)


def test_the_rules_that_a_suite_may_name_are_those_that_exist():
    assert set(variants.registry.RULES["preprocess"]) == set(preprocess.RULES)


def test_boxes_are_scaled_and_truncated():
    boxes = preprocess.boxes_to_network(np.array([[1, 2, 399, 511], [0, 0, 3, 3]]), (512, 400), 256)
    assert boxes.tolist() == [[0, 1, 199, 255], [0, 0, 1, 1]]
    assert boxes.dtype == np.float32
    assert preprocess.boxes_to_network(np.zeros((0, 4), np.int64), (10, 10), 256).shape == (0, 4)


@pytest.mark.parametrize("hw", [(97, 211), (512, 400), (256, 256), (40, 33)])
def test_logits_become_a_mask_of_the_original_size_by_bilinear_resizing(hw):
    prepared = preprocess.prepare(np.zeros(hw, np.uint8), 256)
    logits = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    mask = preprocess.logits_to_mask(logits, prepared)
    height, width = prepared.scale_hw
    shown = torch.from_numpy(logits[:height, :width])[None, None]
    expected = torch.nn.functional.interpolate(shown, hw, mode="bilinear", align_corners=False)[0, 0].numpy() > 0
    assert mask.shape == hw
    assert mask.dtype == np.bool_
    assert (mask == expected).mean() > 0.9999
