"""Each named 3D loop gives the masks and the boxes of the script it is named after, however it is executed."""

from __future__ import annotations

from typing import Any, get_args

import cv2
import numpy as np
import pytest

from harness.errors import BenchError
from harness.inference import InputRules, segment_volume
from harness.inference.pipeline3d import box_around
from harness.protocols import LOOPS, LoopName, loop_rows
from tests.harness.inference.scripts import SCRIPTS, Script
from tests.harness.inference.support import BrightInBox, Picture

DEPTH = 12
# Four objects that overlap in the plane and along z, with middle slices 5, 2, 8 and 6; one of them reaches both ends.
FRACTIONS = np.array(
    [
        [0.10, 0.15, 1, 0.45, 0.60, 9],
        [0.30, 0.20, 0, 0.75, 0.70, 4],
        [0.20, 0.40, 6, 0.60, 0.90, 11],
        [0.40, 0.35, 0, 0.95, 0.95, 11],
    ]
)
SIZES = {"reduced": (401, 333), "reduced by two": (512, 512), "enlarged": (120, 97), "as it is": (256, 201)}


class Drifting(BrightInBox):
    """Marks what is bright inside the box, nothing on slices that are dark on the whole, so that boxes fall back."""

    def decode(self, embedding: Picture, boxes: np.ndarray, *prompts: Any) -> tuple[np.ndarray, np.ndarray]:
        logits, iou = super().decode(embedding, boxes)
        shown = embedding.image[0, 0]
        dark = shown[shown > 0].mean() < 0.47
        # The offset keeps interpolated logits off zero, where the last bit of a float would decide.
        return logits - (9 if dark else np.float32(0.00137)), iou


class OnePixelWide(BrightInBox):
    """Answers so that the mask of object 1 is one pixel of 150 x 100 wide and two high."""

    def decode(self, embedding: Picture, boxes: np.ndarray, *prompts: Any) -> tuple[np.ndarray, np.ndarray]:
        super().decode(embedding, boxes)
        logits = np.full((len(boxes), 1, 256, 256), -1, np.float32)
        logits[:, :, 69:71, 84] = 1
        return logits, np.ones((len(boxes), 1), np.float32)


def clouds(seed: int, hw: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.random((DEPTH, 12, 10)).astype(np.float32) ** rng.uniform(0.7, 1.5, (DEPTH, 1, 1)).astype(np.float32)
    volume = np.stack([cv2.resize(s, hw[::-1], interpolation=cv2.INTER_CUBIC) for s in coarse])
    return (255 * np.clip(volume, 0, 1)).astype(np.uint8)


def boxes_in(hw: tuple[int, int]) -> np.ndarray:
    return (FRACTIONS * [hw[1], hw[0], 1, hw[1], hw[0], 1]).astype(np.int64)


def run(loop: str, volume: np.ndarray, boxes: np.ndarray, **how: Any) -> tuple[Any, BrightInBox]:
    session = Drifting()
    return segment_volume(session, volume, boxes, InputRules(loop=loop), **how), session


def written_out(loop: str, volume: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, Script]:
    script = Script(Drifting(), volume)
    return SCRIPTS[loop](script, boxes), script


@pytest.mark.parametrize("hw", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_gives_the_masks_and_boxes_of_its_script(loop: str, hw: tuple[int, int]) -> None:
    volume, boxes = clouds(7, hw), boxes_in(hw)
    expected, script = written_out(loop, volume, boxes)
    for execution in ("reference", "sweep"):
        found, session = run(loop, volume, boxes, execution=execution)
        assert np.array_equal(found.segs, expected)
        assert sorted(session.boxes) == sorted(box for _, _, box in script.given)
    assert len(np.unique(expected)) == 5


def test_the_loops_differ_in_what_they_give() -> None:
    volume, boxes = clouds(7, SIZES["reduced"]), boxes_in(SIZES["reduced"])
    given = {loop: run(loop, volume, boxes)[0].segs.tobytes() for loop in LOOPS}
    same = {frozenset(name for name in LOOPS if given[name] == given[loop]) for loop in LOOPS}
    assert same == {
        frozenset({"litemedsam-2024-05-23", "rep-2024-06-19"}),
        frozenset({"rep-2024-06-11"}),
        frozenset({"litemedsam-2024-04-24", "swin"}),
        frozenset({"litemedsam-2024-04", "gray"}),
    }


def test_the_test_volume_makes_boxes_fall_back_on_both_ways() -> None:
    volume, boxes = clouds(7, SIZES["reduced"]), boxes_in(SIZES["reduced"])
    for loop in ("litemedsam-2024-04-24", "litemedsam-2024-04"):
        _, script = written_out(loop, volume, boxes)
        fractional = [box for _, _, box in script.given if any(c != int(c) for c in box)]
        followed = [box for i, _, box in script.given if box != script.truncated(boxes[i - 1]).tolist()]
        assert fractional
        assert len(followed) > len(fractional)


def test_a_merged_loop_gives_object_one_its_own_box_and_later_objects_the_box_around_the_others() -> None:
    volume = np.zeros((7, 256, 256), np.uint8)
    volume[:, 40:60, 40:60] = 255
    volume[:, 150:170, 150:170] = 255
    boxes = np.array([[30, 30, 0, 70, 70, 6], [140, 140, 0, 180, 180, 6]])
    session = BrightInBox()
    segment_volume(session, volume, boxes, InputRules(loop="litemedsam-2024-04"))
    first, second = session.boxes[:5], session.boxes[5:]
    assert first == [[30, 30, 70, 70]] * 5
    assert second == [[140, 140, 180, 180], *[[37, 37, 62, 62]] * 4]


def test_wider_labels_change_the_box_where_a_slice_is_enlarged() -> None:
    # OpenCV enlarges 8-bit images in fixed-point numbers, 16-bit ones in floats.
    labels = np.zeros((150, 100), np.uint8)
    labels[40:42, 49] = 1
    narrow, wide = (box_around(labels.astype(t), (256, 171), 256) for t in (np.uint8, np.uint16))
    assert narrow is not None
    assert wide is not None
    assert narrow.tolist() != wide.tolist()

    volume = np.zeros((6, 150, 100), np.uint8)
    volume[:, 40:42, 49] = 255
    boxes = np.array([[48, 39, 0, 50, 42, 5], [10, 20, 0, 60, 90, 5]])
    for loop, box in (("litemedsam-2024-04", narrow), ("gray", wide)):
        session = OnePixelWide()
        segment_volume(session, volume, boxes, InputRules(loop=loop))
        assert session.boxes[-1] == box.tolist()


@pytest.mark.parametrize("loop", [name for name, loop in LOOPS.items() if loop.ends == "exclusive"])
def test_an_exclusive_loop_leaves_the_two_outer_slices_of_an_object_empty(loop: str) -> None:
    volume = np.zeros((9, 64, 64), np.uint8)
    volume[:, 20:40, 20:40] = 255
    segs = segment_volume(BrightInBox(), volume, np.array([[15, 15, 2, 45, 45, 7]]), InputRules(loop=loop)).segs
    assert [z for z in range(9) if segs[z].any()] == [3, 4, 5, 6]


def test_slice_zero_is_done_by_the_loop_of_2024_06_11_only_as_the_middle() -> None:
    volume = np.zeros((5, 64, 64), np.uint8)
    volume[:, 20:40, 20:40] = 255
    for z_max, done in ((4, [1, 2, 3, 4]), (1, [0, 1])):
        boxes = np.array([[15, 15, 0, 45, 45, z_max]])
        segs = segment_volume(BrightInBox(), volume, boxes, InputRules(loop="rep-2024-06-11")).segs
        assert [z for z in range(5) if segs[z].any()] == done


def test_a_box_that_ends_at_the_depth_of_the_volume_ends_at_the_last_slice() -> None:
    volume = np.zeros((6, 64, 64), np.uint8)
    volume[:, 20:40, 20:40] = 255
    for loop in ("litemedsam-2024-05-23", "swin"):
        segs = segment_volume(BrightInBox(), volume, np.array([[15, 15, 2, 45, 45, 6]]), InputRules(loop=loop)).segs
        assert segs[5].any()


def test_a_script_with_cached_slices_encodes_all_between_the_outermost_boxes_once() -> None:
    volume = clouds(0, (64, 64))
    boxes = np.array([[5, 5, 1, 40, 40, 3], [20, 20, 7, 50, 50, 9]])
    for execution, encodes in (("reference", 9), ("sweep", 6)):
        assert run("rep-2024-06-19", volume, boxes, execution=execution)[0].encodes == encodes
    assert run("litemedsam-2024-05-23", volume, boxes, execution="reference")[0].encodes == 6


def test_merged_loops_encode_a_slice_once_for_all_objects() -> None:
    volume, boxes = clouds(0, (100, 100)), boxes_in((100, 100))
    visits = int((boxes[:, 5] - boxes[:, 2] - 1).sum())
    assert run("gray", volume, boxes, execution="reference")[0].encodes == visits
    assert run("gray", volume, boxes)[0].encodes == 10
    small = run("gray", volume, boxes, cache_bytes=2 * 3 * 256 * 256 * 4)[0]
    assert 10 < small.encodes <= visits
    assert np.array_equal(small.segs, run("gray", volume, boxes)[0].segs)


def test_every_loop_has_a_name_a_source_and_a_row_in_the_listing() -> None:
    assert tuple(LOOPS) == get_args(LoopName)
    assert [row["name"] for row in loop_rows()] == list(LOOPS)
    assert all(loop.source for loop in LOOPS.values())


def test_an_unknown_loop_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BenchError, match="no 3D loop 'spiral'; known: litemedsam-2024-05-23, "):
        InputRules(loop="spiral")
