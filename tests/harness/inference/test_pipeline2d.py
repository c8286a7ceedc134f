"""An image is encoded once, every box gets a mask, and masks cost no more than they cover."""

from __future__ import annotations

import numpy as np
import pytest

from harness.failure import InvalidOutputError
from harness.inference import InputRules, masks, segment_image
from harness.inference.masks import Region, positive_region
from tests.harness.inference.support import BrightInBox
from variants.preprocess import Prepared, boxes_to_network, logits_to_mask, longest_side_hw, prepare


def smooth_noise(rng: np.random.Generator, blobs: int, low: float = -3.0) -> np.ndarray:
    """Logits with a few positive islands."""
    grid = np.arange(256)
    field = np.full((256, 256), low)
    for _ in range(blobs):
        y, x, r = rng.integers(0, 256), rng.integers(0, 256), rng.integers(1, 60)
        field = np.maximum(field, 1 - np.hypot(*np.meshgrid((grid - y) / r, (grid - x) / r, indexing="ij")))
    return (field + 0.05 * rng.standard_normal((256, 256))).astype(np.float32)


@pytest.mark.parametrize(
    "original_hw", [(256, 256), (300, 200), (64, 80), (1, 7), (1000, 31), (512, 512), (255, 640), (128, 128)]
)
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0], ids=["cut out of the whole mask", "as it is", "region alone"])
def test_a_mask_computed_only_where_it_can_be_positive_equals_the_reference_rule(
    original_hw: tuple[int, int], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks, "WHOLE", share)
    rng = np.random.default_rng(5)
    scale_hw = longest_side_hw(original_hw, 256)
    prepared = Prepared(np.zeros((3, 256, 256), np.float32), scale_hw, original_hw)
    for blobs in (0, 1, 3, 12):
        logits = smooth_noise(rng, blobs)
        region = positive_region(logits, 256, scale_hw, original_hw)
        mask = np.zeros(original_hw, np.uint8)
        if region is not None:
            region.paint(mask, 1)
        assert np.array_equal(mask.astype(bool), logits_to_mask(logits, prepared))


@pytest.mark.parametrize(("dtype", "label"), [(np.uint8, 255), (np.uint16, 300), (np.uint16, 65535)])
def test_painting_writes_over_what_stands_where_the_mask_is_true_and_nowhere_else(dtype: type, label: int) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 250, (40, 30)).astype(dtype)
    values = rng.random((12, 1)) > 0.5
    expected = labels.copy()
    expected[5:17, 9:10][values] = label
    Region(slice(5, 17), slice(9, 10), values).paint(labels, label)
    assert np.array_equal(labels, expected)


@pytest.mark.parametrize("original_hw", [(300, 200), (64, 80), (512, 512), (255, 640)])
def test_probabilities_resized_before_the_threshold_give_the_mask_of_the_reference_rule(
    original_hw: tuple[int, int],
) -> None:
    # A teacher stretches the image to the whole input and thresholds the resized probability.
    rng = np.random.default_rng(8)
    prepared = Prepared(np.zeros((3, 1024, 1024), np.float32), (1024, 1024), original_hw, sigmoid_first=True)
    differs = 0
    for blobs in (0, 1, 3, 12):
        logits = 40 * smooth_noise(rng, blobs)
        region = positive_region(logits, 1024, (1024, 1024), original_hw, sigmoid_first=True)
        mask, plain = np.zeros(original_hw, np.uint8), np.zeros(original_hw, np.uint8)
        if region is not None:
            region.paint(mask, 1)
        assert np.array_equal(mask.astype(bool), logits_to_mask(logits, prepared))
        region = positive_region(logits, 1024, (1024, 1024), original_hw)
        if region is not None:
            region.paint(plain, 1)
        differs += int((mask != plain).sum())
    assert differs > 0


@pytest.mark.parametrize("original_hw", [(300, 200), (100, 130)])
def test_the_reference_execution_decodes_one_box_at_a_time_and_gives_the_same_labels(
    original_hw: tuple[int, int],
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*original_hw, 3), dtype=np.uint8)
    boxes = np.array([[5, 7, 60, 80], [30, 20, 99, 90], [2, 50, 90, 95], [40, 40, 41, 41]])
    fast, slow = BrightInBox(), BrightInBox()
    sweep = segment_image(fast, image, boxes).segs
    assert np.array_equal(segment_image(slow, image, boxes, execution="reference").segs, sweep)
    assert set(np.unique(sweep)) >= {0, 1, 2, 3}
    assert (fast.largest_batch, slow.largest_batch) == (4, 1)


def test_the_rule_of_the_variant_decides_how_image_box_and_mask_are_scaled() -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    box = np.array([[30, 20, 77, 61]])
    for rule in ("longest-side", "stretch", "gray-code"):
        session = BrightInBox()
        prepared = prepare(image, 256, rule)
        expected = boxes_to_network(box, (90, 120), 256, rule)
        segs = segment_image(session, image, box, InputRules(preprocess=rule)).segs
        assert session.boxes == expected.tolist()
        logits, _ = session.decode(session.encode(prepared.network[None]), expected)
        assert np.array_equal(segs > 0, logits_to_mask(logits[0, 0], prepared))


def test_a_mask_of_random_signs_everywhere_equals_the_reference_rule() -> None:
    logits = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    prepared = Prepared(np.zeros((3, 256, 256), np.float32), (256, 171), (300, 200))
    region = positive_region(logits, 256, (256, 171), (300, 200))
    mask = np.zeros((300, 200), np.uint8)
    assert region is not None
    region.paint(mask, 1)
    assert np.array_equal(mask.astype(bool), logits_to_mask(logits, prepared))


def test_nothing_is_computed_for_a_mask_without_a_positive_logit() -> None:
    assert positive_region(np.full((256, 256), -1, np.float32), 256, (256, 256), (2000, 2000)) is None


def test_only_the_padding_being_positive_gives_an_empty_mask() -> None:
    logits = np.full((256, 256), -1, np.float32)
    logits[:, 130:] = 5
    assert positive_region(logits, 256, (256, 128), (512, 256)) is None


def test_an_image_is_encoded_once_and_boxes_are_decoded_in_bounded_batches() -> None:
    session = BrightInBox()
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    boxes = np.array([[5 * i, 10, 5 * i + 20, 60] for i in range(19)])
    prediction = segment_image(session, image, boxes, batch=4)
    assert (session.encodes, prediction.encodes, session.largest_batch) == (1, 1, 4)
    assert session.boxes == boxes_to_network(boxes, (90, 120), 256).tolist()


def test_the_batch_size_changes_no_label() -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    boxes = np.array([[5 * i, 10, 5 * i + 20, 60] for i in range(19)])
    one, all_at_once = (segment_image(BrightInBox(), image, boxes, batch=n).segs for n in (1, 100))
    assert np.array_equal(one, all_at_once)


def test_a_later_box_overwrites_an_earlier_one() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[20:80, 20:80] = 255
    segs = segment_image(BrightInBox(), image, np.array([[0, 0, 99, 99], [40, 40, 60, 60]])).segs
    assert segs[30, 30] == 1
    assert segs[50, 50] == 2


@pytest.mark.parametrize(("objects", "dtype"), [(255, np.uint8), (256, np.uint16)])
def test_labels_beyond_255_do_not_wrap(objects: int, dtype: type) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[10:20, 10:20] = 255
    segs = segment_image(BrightInBox(), image, np.tile([[8, 8, 22, 22]], (objects, 1))).segs
    assert segs.dtype == dtype
    assert segs.max() == objects


def test_the_time_of_every_phase_is_told() -> None:
    timings = segment_image(BrightInBox(), np.zeros((9, 9, 3), np.uint8), np.array([[1, 1, 5, 5]])).timings
    assert sorted(timings) == ["decode", "encode", "postprocess", "preprocess"]
    assert all(seconds > 0 for seconds in timings.values())


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_logits_that_are_not_finite_are_not_passed_off_as_a_mask(value: str) -> None:
    class Diverged(BrightInBox):
        def decode(self, embedding, boxes, *prompts):
            logits, iou = super().decode(embedding, boxes)
            return np.full_like(logits, np.float32(value)), iou

    with pytest.raises(InvalidOutputError, match="not finite"):
        segment_image(Diverged(), np.zeros((9, 9, 3), np.uint8), np.array([[1, 1, 5, 5]]))


def test_a_grey_image_gives_the_masks_of_the_same_image_in_three_channels() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8)
    boxes = np.array([[5, 5, 40, 40]])
    rgb = np.repeat(grey[..., None], 3, axis=2)
    assert np.array_equal(prepare(grey, 256).network, prepare(rgb, 256).network)
    assert np.array_equal(segment_image(BrightInBox(), grey, boxes).segs, segment_image(BrightInBox(), rgb, boxes).segs)
