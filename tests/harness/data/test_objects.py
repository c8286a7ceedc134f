"""Which pixels are one object, and the boxes around them."""

from __future__ import annotations

import numpy as np
import pytest

from harness.data.objects import boxes_of, cleaned, numbered, whole_labels
from harness.errors import BenchError


@pytest.fixture
def classes() -> np.ndarray:
    """Class 7 in two pieces, one of them joined by a corner; class 3 in one."""
    labels = np.zeros((8, 10), np.int64)
    labels[0:2, 0:2] = 7
    labels[2, 2] = 7
    labels[5:8, 6:9] = 7
    labels[4, 0:3] = 3
    return labels


def test_a_label_is_an_object_in_the_order_of_the_labels(classes: np.ndarray) -> None:
    truth = numbered(classes, "labels", "mask")
    assert truth.dtype == np.uint16
    assert np.array_equal(truth == 1, classes == 3)
    assert np.array_equal(truth == 2, classes == 7)


def test_a_connected_piece_is_an_object_where_asked_and_corners_connect(classes: np.ndarray) -> None:
    truth = numbered(classes, "components", "mask")
    assert [int((truth == label).sum()) for label in (1, 2, 3)] == [3, 5, 9]
    assert int(truth.max()) == 3


def test_a_map_without_background_and_an_empty_one_are_numbered_too() -> None:
    assert set(numbered(np.full((3, 3), 255), "labels", "mask").ravel()) == {1}
    assert set(numbered(np.zeros((3, 3), np.int64), "labels", "mask").ravel()) == {0}


def test_boxes_are_tight_with_inclusive_maxima_in_x_y_z_order() -> None:
    truth = np.zeros((4, 8, 10), np.uint16)
    truth[1:3, 2:6, 4:9] = 1
    assert boxes_of(truth).tolist() == [[4, 2, 1, 8, 5, 2]]
    assert boxes_of(truth[1]).tolist() == [[4, 2, 8, 5]]


def test_a_margin_widens_in_x_and_y_and_ends_at_the_border() -> None:
    truth = np.zeros((4, 8, 10), np.uint16)
    truth[1:3, 2:6, 4:9] = 1
    assert boxes_of(truth, margin=2).tolist() == [[2, 0, 1, 9, 7, 2]]


def test_cleaning_drops_small_pieces_of_volumes_then_of_slices() -> None:
    labels = np.zeros((4, 20, 20), np.int64)
    labels[0:2, 0:10, 0:10] = 1  # 200 voxels stay
    labels[2, 0:3, 0:3] = 1  # joined to them, but 9 pixels of a slice
    labels[1:3, 14:17, 14:17] = 2  # 18 voxels
    kept = cleaned(labels)
    assert np.array_equal(kept[:2] == 1, labels[:2] == 1)
    assert not kept[2].any()
    assert not (kept == 2).any()


def test_labels_that_are_no_whole_numbers_are_refused() -> None:
    for labels, said in (
        (np.array([[0.0, 1.5]]), "hold fractions .such as 1.5"),
        (np.array([[0.0, np.nan]]), "NaN or infinity"),
        (np.array([[0, -1]]), "go down to -1"),
        (np.array([["a"]]), "store one whole number"),
    ):
        with pytest.raises(BenchError, match=f"mask.nii: labels .*{said}|mask.nii: labels are .*{said}"):
            whole_labels(labels, "mask.nii")
    assert whole_labels(np.array([[0.0, 2.0]]), "mask.nii").tolist() == [[0, 2]]


def test_more_objects_than_labels_are_refused() -> None:
    with pytest.raises(BenchError, match="65536 objects are more than a case can hold"):
        numbered(np.arange(65537).reshape(1, -1), "labels", "mask")
