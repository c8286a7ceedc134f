"""Points and a scribble made from a box: where they may lie, and what they depend on."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import variants
from variants import prompts

ALL = ("box", "points", "scribble")
RULES = ("paper", "code")
SIZE = 64
rule_cases = pytest.mark.parametrize("rule", RULES)

sides = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(sorted)
boxes = st.tuples(sides, sides).map(lambda s: [s[0][0], s[1][0], s[0][1], s[1][1]])
keys = st.text(max_size=8)
images = st.builds(
    lambda seed, share, shown: sparse(seed, share, shown),
    st.integers(0, 99),
    st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    st.integers(1, SIZE),
)


def sparse(seed, share, shown=SIZE):
    """An image with a share of non-zero pixels in its first rows; the rest is padding."""
    rng = np.random.default_rng(seed)
    image = np.where(rng.random((SIZE, SIZE)) < share, rng.random((3, SIZE, SIZE)) + 0.01, 0)
    image[:, shown:] = 0
    return image.astype(np.float32)


def bright(size=256):
    return np.ones((3, size, size), np.float32)


def make(box, image, rule, key="case/0/1", wanted=ALL):
    made = prompts.make(np.array([box], np.float32), image, wanted, rule, [key])
    return made.points[0] if made.points is not None else None, made.scribble


def centre(box):
    return np.array([(box[0] + box[2]) // 2, (box[1] + box[3]) // 2])


@settings(max_examples=40, deadline=None)
@given(boxes, images, st.sampled_from(RULES), keys)
def test_the_four_points_lie_in_the_image_each_in_its_quadrant_of_the_box(box, image, rule, key):
    points, _ = make(box, image, rule, key)
    assert points.shape == (4, 2)
    assert np.array_equal(points, np.rint(points))
    assert (points >= 0).all()
    assert (points < SIZE).all()
    middle = np.minimum(centre(box), SIZE - 1)
    for point, right, low in zip(points, (False, False, True, True), (False, True, True, False), strict=True):
        for axis, behind in ((0, right), (1, low)):
            first, last = (middle[axis], box[2 + axis]) if behind else (box[axis], middle[axis])
            assert min(first, SIZE - 1) <= point[axis] <= last


@settings(max_examples=40, deadline=None)
@given(boxes, images, st.sampled_from(RULES), keys)
def test_a_scribble_is_one_piece_of_non_zero_pixels_of_the_box_or_empty(box, image, rule, key):
    _, scribble = make(box, image, rule, key)
    assert scribble.shape == (1, 1, SIZE, SIZE)
    assert set(np.unique(scribble)) <= {0.0, 1.0}
    region = np.zeros((SIZE, SIZE), bool)
    region[box[1] : box[3], box[0] : box[2]] = True
    drawn = scribble[0, 0] > 0
    assert not (drawn & ~(region & image.any(axis=0))).any()
    pieces = cv2.connectedComponents(drawn.astype(np.uint8), connectivity=8)[0] - 1
    assert pieces == (drawn.sum() > 0)
    assert drawn.sum() == 0 or drawn.sum() > 5


@settings(max_examples=20, deadline=None)
@given(st.lists(boxes, min_size=2, max_size=5), images, st.sampled_from(RULES), st.randoms())
def test_prompts_of_a_key_depend_neither_on_other_boxes_nor_on_their_order(several, image, rule, random):
    names = [f"case/{i}" for i in range(len(several))]
    together = prompts.make(np.array(several, np.float32), image, ALL, rule, names)
    order = random.sample(range(len(several)), len(several))
    shuffled = prompts.make(
        np.array([several[i] for i in order], np.float32), image, ALL, rule, [names[i] for i in order]
    )
    assert np.array_equal(shuffled.points, together.points[order])
    assert np.array_equal(shuffled.scribble, together.scribble[order])
    alone, scribble = make(several[-1], image, rule, names[-1])
    assert np.array_equal(alone, together.points[-1])
    assert np.array_equal(scribble[0], together.scribble[-1])


@rule_cases
def test_points_are_the_same_with_and_without_a_scribble_and_the_other_way_round(rule):
    points, scribble = make([20, 0, 250, 240], bright(), rule)
    assert np.array_equal(points, make([20, 0, 250, 240], bright(), rule, wanted=("box", "points"))[0])
    assert np.array_equal(scribble, make([20, 0, 250, 240], bright(), rule, wanted=("box", "scribble"))[1])


@rule_cases
def test_another_key_gives_other_prompts_and_the_same_key_the_same(rule):
    box = [10, 20, 250, 240]
    first, second, again = (make(box, bright(), rule, key) for key in ("a/0/1", "a/0/2", "a/0/1"))
    for one, other, same in zip(first, second, again, strict=True):
        assert not np.array_equal(one, other)
        assert np.array_equal(one, same)


@pytest.mark.parametrize(
    ("rule", "points"),
    [
        ("paper", [[120, 124], [105, 189], [130, 133], [131, 79]]),
        ("code", [[121, 121], [97, 146], [144, 154], [148, 82]]),
    ],
)
def test_the_points_of_a_key_stay_what_they_were(rule, points):
    made, _ = make([0, 0, 250, 250], bright(), rule, "2DBox_US_0002.npz/0/1")
    assert made.tolist() == points


def test_a_box_alone_is_handed_through():
    made = prompts.make(np.array([[1.5, 2, 30, 40]]), bright(), ("box",), "paper", ["key"])
    assert made.boxes.dtype == np.float32
    assert made.boxes.tolist() == [[1.5, 2, 30, 40]]
    assert made.points is None
    assert made.scribble is None


def test_no_box_gives_no_prompt():
    made = prompts.make(np.zeros((0, 4)), bright(), ALL, "code", [])
    assert made.points.shape == (0, 4, 2)
    assert made.scribble.shape == (0, 1, 256, 256)


@rule_cases
def test_a_black_box_gets_its_centre_four_times_and_an_empty_scribble(rule):
    image = bright()
    image[:, :, :200] = 0
    points, scribble = make([10, 20, 190, 251], image, rule)
    assert points.tolist() == [[100, 135]] * 4
    assert not scribble.any()


@rule_cases
@pytest.mark.parametrize(
    ("box", "point"),
    [
        ([7, 9, 8, 10], [7, 9]),
        ([7, 9, 7, 9], [7, 9]),
        ([256, 256, 256, 256], [255, 255]),
        ([300, 20, 400, 22], [255, 21]),
        ([-20, -30, -5, -1], [0, 0]),
        ([9, 8, 3, 2], [9, 8]),
    ],
    ids=["one pixel", "no pixel", "behind the last pixel", "right of the image", "left of the image", "inside out"],
)
def test_a_degenerate_box_gets_a_point_of_the_image_and_no_scribble(rule, box, point):
    points, scribble = make(box, bright(), rule)
    assert points.tolist() == [point] * 4
    assert not scribble.any()


def many(box, image, rule):
    """Points and scribbles of 150 keys."""
    names = [f"key {i}" for i in range(150)]
    made = prompts.make(np.array([box] * len(names), np.float32), image, ALL, rule, names)
    return made.points, made.scribble[:, 0] > 0


def test_by_the_code_the_box_is_narrowed_by_shares_of_its_own_sides():
    points, scribbles = many([100, 40, 200, 240], bright(), "code")
    assert points.reshape(-1, 2).min(0).tolist() >= [100 + 100 // 5, 40 + 200 // 5]
    assert (points.reshape(-1, 2).max(0) < [200 - 20, 240 - 40]).all()
    assert len(np.unique(points)) > 50
    _, rows, columns = np.nonzero(scribbles)
    assert columns.min() >= 100 + 100 // 8
    assert columns.max() < 200 - 100 // 8
    assert rows.min() >= 40 + 200 // 8
    assert rows.max() < 240 - 200 // 8
    assert scribbles.any(axis=(1, 2)).mean() > 0.9


def test_by_the_paper_the_box_is_narrowed_by_shares_of_the_image():
    points, scribbles = many([0, 0, 256, 256], bright(), "paper")
    assert (points > 256 / 5).all()
    assert (points < 256 * 4 / 5).all()
    assert len(np.unique(points)) > 50
    _, rows, columns = np.nonzero(scribbles)
    assert min(rows.min(), columns.min()) > 256 / 8
    assert max(rows.max(), columns.max()) < 256 * 7 / 8
    assert scribbles.any(axis=(1, 2)).mean() > 0.9


def test_by_the_paper_a_box_too_narrow_for_the_shift_has_its_centre_and_no_scribble():
    points, _ = many([0, 100, 256, 100 + 102], bright(), "paper")
    assert (points == [128, 151]).all()
    _, scribbles = many([0, 100, 256, 100 + 64], bright(), "paper")
    assert not scribbles.any()


def test_by_the_paper_a_point_is_a_non_zero_pixel_and_by_the_code_its_column_and_row_are():
    image = np.zeros((3, 256, 256), np.float32)
    image[:, np.arange(256), np.arange(256)] = 1  # a diagonal: two of the four quadrants are black
    for rule, on_the_line in (("paper", True), ("code", False)):
        points, _ = many([0, 0, 256, 256], image, rule)
        along = points[:, [0, 2]]
        assert (along[..., 0] == along[..., 1]).all() == on_the_line
        assert (points[:, [1, 3]] == 128).all()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"prompts": ("box", "pints")}, "no prompt 'pints'; did you mean 'points'"),
        ({"prompts": ("points",)}, "must include 'box'"),
        ({"rule": "papier"}, "no prompt rule 'papier'; did you mean 'paper'"),
        ({"boxes": np.zeros((1, 1, 4))}, r"boxes must be \(N, 4\)"),
        ({"boxes": np.full((1, 4), np.nan)}, "finite"),
        ({"image": np.zeros((256, 256), np.float32)}, r"image must be a network input \(3, S, S\)"),
        ({"keys": ["a", "b"]}, "one key for each of the 1 boxes, not 2"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_is_wanted(changed, said):
    given = {"boxes": np.zeros((1, 4)), "image": bright(), "prompts": ALL, "rule": "code", "keys": ["a"]}
    with pytest.raises(variants.VariantError, match=said):
        prompts.make(**(given | changed))


def test_prompts_are_made_without_torch(run_python):
    code = """
import sys, numpy as np
from variants import prompts
prompts.make(np.array([[1, 2, 30, 40]]), np.ones((3, 64, 64), np.float32), ("box", "points", "scribble"), "code", ["a"])
print("torch" in sys.modules)
"""
    assert run_python(code) == "False"
