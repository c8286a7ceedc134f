"""Preprocessing is the published rule, to the bit, and its inverse fits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import variants
from tests.variants import published
from variants import preprocess

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
