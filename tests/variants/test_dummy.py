"""`dummy` fills the box with its inscribed ellipse, in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest

import variants


@pytest.fixture(scope="module")
def model():
    return variants.create("dummy")


@pytest.fixture(scope="module")
def embedding(model):
    return model.encode(np.zeros((2, 3, 256, 256), np.float32))


def test_the_mask_is_the_ellipse_that_touches_the_four_sides_of_the_box(model, embedding):
    logits, iou = model.decode(embedding, np.array([[40, 60, 179, 139]], np.float32))
    assert logits.shape == (1, 1, 256, 256)
    assert logits.dtype == iou.dtype == np.float32
    rows, columns = np.nonzero(logits[0, 0] > 0)
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (40, 60, 179, 139)
    assert (logits > 0).sum() == pytest.approx(math.pi / 4 * 140 * 80, rel=0.01)


def test_logits_are_about_the_distance_to_the_rim(model, embedding):
    logits = model.decode(embedding, [[100, 100, 139, 139]])[0][0, 0]
    assert logits[119, 119] == pytest.approx(20, abs=1)
    assert logits[119, 150] == pytest.approx(-11, abs=1)


def test_many_boxes_of_many_images_are_decoded_at_once(model, embedding):
    boxes = [[0, 0, 255, 255], [5, 5, 5, 5], [10, 20, 30, 25]]
    logits, iou = model.decode(embedding, boxes, image_index=[0, 1, 1], multimask=True)
    assert logits.shape == (3, 3, 256, 256)
    assert iou.shape == (3, 3)
    assert (logits[1, 0] > 0).sum() == 1


def test_it_keeps_one_number_an_image(embedding):
    assert len(embedding) == 2
    assert embedding[1].nbytes == 4


def test_it_refuses_prompts_it_cannot_use(model, embedding):
    with pytest.raises(variants.VariantError, match="boxes only"):
        model.decode(embedding, [[0, 0, 9, 9]], points=np.zeros((1, 1, 2)))
    with pytest.raises(variants.VariantError, match=r"boxes must be \(N, 4\)"):
        model.decode(embedding, [0, 0, 9, 9])
    with pytest.raises(variants.VariantError, match="images must be"):
        model.encode(np.zeros((3, 256, 256), np.float32))
