"""Box, points and scribble in training, and the mask they are made from."""

from __future__ import annotations

import numpy as np
import pytest

from harness.training.prompting import box_scribble, jittered_box, mask_to_logits_grid, object_points

LIT = np.ones((3, 256, 256), np.float32)


def mask_of(*rectangles: tuple[int, int, int, int]) -> np.ndarray:
    """Pixels x0..x1-1, y0..y1-1 of each rectangle."""
    mask = np.zeros((256, 256), np.uint8)
    for x0, y0, x1, y1 in rectangles:
        mask[y0:y1, x0:x1] = 1
    return mask


def box_of(*sides: float) -> np.ndarray:
    return np.array(sides, np.float32)


def test_jitter_moves_every_side_outward_by_at_most_its_pixels_and_stays_in_the_image() -> None:
    mask = np.zeros((256, 256), np.uint8)
    mask[2:250, 40:254] = 1
    boxes = np.array([jittered_box(mask, 256, 5, np.random.default_rng(i)) for i in range(300)])
    assert boxes.min(0).tolist() == [35, 0, 253, 249]
    assert boxes.max(0).tolist() == [40, 2, 255, 254]


def test_boxes_are_in_network_pixels_where_the_input_is_larger_than_the_logits() -> None:
    mask = np.zeros((256, 256), np.uint8)
    mask[10:21, 30:41] = 1
    box = jittered_box(mask, 1024, 0, np.random.default_rng(0))
    assert box.tolist() == [120, 40, 160, 80]


def test_a_pixel_belongs_to_the_object_if_half_of_it_does() -> None:
    mask = np.zeros((512, 512), bool)
    mask[0, 0:2] = True  # covers half of network pixel (0, 0)
    mask[0, 4] = True  # a quarter of pixel (0, 2)
    assert np.argwhere(mask_to_logits_grid(mask, (256, 256), 256)).tolist() == [[0, 0]]


def test_an_object_too_thin_for_the_grid_keeps_the_pixels_it_covers_most() -> None:
    mask = np.zeros((2048, 2048), bool)
    mask[801, 1001] = True
    assert np.argwhere(mask_to_logits_grid(mask, (256, 256), 256)).tolist() == [[100, 125]]


def test_each_quadrant_of_the_box_gives_a_pixel_of_the_object_in_the_order_of_inference() -> None:
    mask = mask_of((42, 32, 45, 36), (44, 95, 46, 99), (90, 80, 95, 85), (80, 40, 99, 42))
    box = box_of(40, 30, 100, 100)  # quadrants meet at (70, 65)
    drawn = [object_points(mask, box, 256, np.random.default_rng(i)) for i in range(40)]
    for points in drawn:
        assert points.dtype == np.float32
        assert all(mask[int(y), int(x)] for x, y in points)
        assert [(x < 70, y < 65) for x, y in points] == [(True, True), (True, False), (False, False), (False, True)]
    assert len({points.tobytes() for points in drawn}) > 30


def test_column_and_row_of_a_point_belong_to_one_pixel() -> None:
    diagonal = np.eye(256, dtype=np.uint8)
    for i in range(20):
        points = object_points(diagonal, box_of(0, 0, 200, 200), 256, np.random.default_rng(i))
        assert points[0, 0] == points[0, 1] < 100
        assert points[2, 0] == points[2, 1] >= 100


def test_a_quadrant_without_the_object_gives_the_midpoint() -> None:
    points = object_points(mask_of((42, 32, 43, 33)), box_of(40, 30, 100, 100), 256, np.random.default_rng(0))
    assert points.tolist() == [[42, 32], [70, 65], [70, 65], [70, 65]]


def test_points_are_in_network_pixels_where_the_input_is_larger_than_the_logits() -> None:
    points = object_points(mask_of((42, 32, 43, 33)), box_of(160, 120, 400, 400), 1024, np.random.default_rng(0))
    assert points.tolist() == [[168, 128], [280, 260], [280, 260], [280, 260]]


def test_an_object_of_one_pixel_has_its_points_on_it() -> None:
    points = object_points(mask_of((255, 255, 256, 256)), box_of(255, 255, 255, 255), 256, np.random.default_rng(0))
    assert points.tolist() == [[255, 255]] * 4


def test_a_scribble_lies_in_the_box_and_reaches_all_of_it() -> None:
    box = box_of(40, 30, 100, 100)
    drawn = [box_scribble(LIT, box, np.random.default_rng(i)) for i in range(200)]
    assert all(s.shape == (1, 256, 256) and s.dtype == np.float32 and set(np.unique(s)) == {0, 1} for s in drawn)
    together = np.sum(drawn, axis=0)[0]
    rows, columns = np.nonzero(together)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (40, 99, 30, 99)
    assert (together[30:100, 40:100] > 0).mean() > 0.99


@pytest.mark.parametrize(
    ("image", "box"),
    [(0 * LIT, (40, 30, 100, 100)), (LIT, (40, 30, 42, 32)), (LIT, (40, 30, 40, 30))],
    ids=["zero all over the box", "room for less than the fewest pixels", "one pixel"],
)
def test_there_is_no_scribble_where_there_is_nothing_to_draw_on(image: np.ndarray, box: tuple[int, ...]) -> None:
    assert not box_scribble(image, box_of(*box), np.random.default_rng(0)).any()
