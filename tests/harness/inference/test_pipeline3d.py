"""A volume is segmented from the middle slice outwards; two loops give the same labels, one with fewer encodings."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from harness.inference import segment_volume
from harness.inference.masks import Region
from harness.inference.pipeline3d import propagated_box
from tests.harness.inference.support import BrightInBox


def cloudy_volume(seed: int, depth: int = 14, hw: tuple[int, int] = (300, 240)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.random((depth, 12, 10)).astype(np.float32)
    volume = np.stack([cv2.resize(s, hw[::-1], interpolation=cv2.INTER_CUBIC) for s in coarse])
    return (255 * np.clip(volume, 0, 1)).astype(np.uint8)


BOXES = np.array(
    [
        [20, 30, 1, 120, 160, 9],
        [60, 80, 3, 200, 240, 13],
        [5, 6, 0, 90, 100, 2],
        [150, 200, 11, 230, 290, 13],
        [10, 10, 5, 60, 60, 5],
        [30, 40, 2, 130, 170, 12],
    ]
)


def test_the_sweep_gives_the_labels_of_the_reference_execution() -> None:
    for seed in range(3):
        volume = cloudy_volume(seed)
        sweep, reference = BrightInBox(), BrightInBox()
        fast = segment_volume(sweep, volume, BOXES, execution="sweep", batch=3)
        slow = segment_volume(reference, volume, BOXES, execution="reference")
        # An interpolated logit that is zero but for rounding may fall on either side.
        assert np.count_nonzero(fast.segs != slow.segs) <= 1e-5 * np.count_nonzero(slow.segs)
        assert sorted(sweep.boxes) == sorted(reference.boxes)


def test_the_reference_execution_encodes_once_per_object_and_slice_and_the_sweep_once_per_slice() -> None:
    volume = cloudy_volume(0)
    visits = int((BOXES[:, 5] - BOXES[:, 2] + 1).sum())
    assert segment_volume(BrightInBox(), volume, BOXES, execution="reference").encodes == visits
    prediction = segment_volume(BrightInBox(), volume, BOXES, execution="sweep")
    assert prediction.encodes == len(volume)


def test_encodings_of_a_slice_that_was_encoded_before_are_told() -> None:
    volume = cloudy_volume(0)
    visits = int((BOXES[:, 5] - BOXES[:, 2] + 1).sum())
    assert segment_volume(BrightInBox(), volume, BOXES).encoded_again == 0
    reference = segment_volume(BrightInBox(), volume, BOXES, execution="reference")
    assert reference.encoded_again == visits - len(volume)


def test_slices_without_an_object_are_not_encoded() -> None:
    volume = cloudy_volume(0)
    assert segment_volume(BrightInBox(), volume, BOXES[2:4]).encodes == 6


def test_the_embedding_cache_stays_within_its_budget_and_costs_only_encodings() -> None:
    volume = cloudy_volume(1)
    one = 3 * 256 * 256 * 4
    whole = segment_volume(BrightInBox(), volume, BOXES)
    for slices in (0, 1, 4):
        small = segment_volume(BrightInBox(), volume, BOXES, cache_bytes=slices * one)
        assert np.array_equal(small.segs, whole.segs)
        assert len(volume) < small.encodes <= 2 * len(volume) - 1
    none, four = (segment_volume(BrightInBox(), volume, BOXES, cache_bytes=n * one).encodes for n in (0, 4))
    assert four < none


def test_every_slice_of_a_box_is_visited_both_ends_included() -> None:
    volume = np.zeros((9, 64, 64), np.uint8)
    volume[:, 20:40, 20:40] = 255
    segs = segment_volume(BrightInBox(), volume, np.array([[15, 15, 2, 45, 45, 6]])).segs
    assert [z for z in range(9) if segs[z].any()] == [2, 3, 4, 5, 6]


def test_an_object_of_one_slice_is_segmented() -> None:
    volume = np.zeros((5, 64, 64), np.uint8)
    volume[:, 20:40, 20:40] = 255
    segs = segment_volume(BrightInBox(), volume, np.array([[15, 15, 4, 45, 45, 4]])).segs
    assert [z for z in range(5) if segs[z].any()] == [4]


def test_the_box_follows_the_object_s_own_mask_and_falls_back_to_the_given_box_where_that_is_empty() -> None:
    volume = np.zeros((7, 256, 256), np.uint8)
    for z, x in ((3, 100), (4, 104), (6, 110)):  # slice 5 is empty
        volume[z, 100:120, x : x + 20] = 255
    session = BrightInBox()
    segment_volume(session, volume, np.array([[95, 95, 0, 145, 125, 6]]), execution="reference")
    given = [95.0, 95.0, 145.0, 125.0]
    assert session.boxes[:4] == [
        given,  # slice 3, the middle
        [97.0, 97.0, 122.0, 122.0],  # slice 4: the mask of slice 3, widened by 3
        [101.0, 97.0, 125.0, 122.0],  # slice 5: what the box above showed of slice 4
        given,  # slice 6: slice 5 is empty
    ]
    assert session.boxes[4:] == [[97.0, 97.0, 122.0, 122.0], given, given]  # down from the mask of slice 3


def test_the_given_box_is_truncated_in_both_directions() -> None:
    session = BrightInBox()
    segment_volume(session, np.zeros((4, 300, 300), np.uint8), np.array([[101, 103, 0, 207, 209, 3]]))
    assert session.boxes == [[86.0, 87.0, 176.0, 178.0]] * 4


def test_the_propagated_box_depends_on_the_label_where_the_image_is_reduced() -> None:
    # INTER_AREA rounds label × coverage: label 1 needs half of a network pixel, label 6 a twelfth.
    mask = np.zeros((400, 400), bool)
    mask[166:332, 180:299] = True
    region = Region(slice(0, 400), slice(0, 400), mask)
    first, sixth = (propagated_box(region, label, (400, 400), (256, 256), 256) for label in (1, 6))
    assert first is not None
    assert sixth is not None
    assert (sixth[:2] <= first[:2]).all()
    assert (sixth[2:] >= first[2:]).all()
    assert sixth.tolist() != first.tolist()


def test_the_propagated_box_stays_inside_the_network_input() -> None:
    region = Region(slice(0, 256), slice(0, 256), np.ones((256, 256), bool))
    assert propagated_box(region, 1, (256, 256), (256, 256), 256).tolist() == [0, 0, 256, 256]


def test_a_mask_that_vanishes_at_network_size_propagates_no_box() -> None:
    mask = np.zeros((2048, 2048), bool)
    mask[1000, 1000] = True
    assert propagated_box(Region(slice(0, 2048), slice(0, 2048), mask), 1, (2048, 2048), (256, 256), 256) is None


def test_a_later_box_overwrites_an_earlier_one_on_every_slice() -> None:
    volume = np.zeros((8, 64, 64), np.uint8)
    volume[:, 10:50, 10:50] = 255
    boxes = np.array([[5, 5, 0, 55, 55, 7], [20, 20, 3, 40, 40, 5]])
    segs = segment_volume(BrightInBox(), volume, boxes).segs
    assert (segs[3:6, 25:35, 25:35] == 2).all()
    assert (segs[[0, 1, 2, 6, 7], 25:35, 25:35] == 1).all()


def test_an_unknown_execution_is_refused() -> None:
    with pytest.raises(ValueError, match="known: sweep, reference"):
        segment_volume(BrightInBox(), np.zeros((2, 9, 9), np.uint8), BOXES[:1], execution="spiral")
