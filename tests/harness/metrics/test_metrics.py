"""DSC and NSD of masks and label maps equal the definition, and the policies of both protocols hold."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.metrics import borders, box_iou, dice, hd95, protocol_spacing, score_case, surface_dice, volume_error
from harness.metrics.ball import ball
from harness.metrics.boxes import label_boxes, mask_box

GOLDENS = Path(__file__).parents[2] / "goldens"
EXPECTED: dict[str, dict[str, Any]] = json.loads((GOLDENS / "metrics.json").read_text())


def golden(name: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(GOLDENS / "metrics.npz", allow_pickle=False) as arrays:
        return arrays[f"{name}_gt"], arrays[f"{name}_seg"]


def same(value: float, expected: float | None) -> bool:
    return math.isnan(value) if expected is None else abs(value - expected) <= 1e-9


def disc(centre: tuple[int, int], radius: int = 40, shape: tuple[int, int] = (128, 128)) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2)


@pytest.mark.parametrize("name", EXPECTED)
def test_masks_score_as_the_reference_evaluation(name: str) -> None:
    gt, seg = golden(name)
    expected = EXPECTED[name]
    for index, label in enumerate(range(1, int(gt.max()) + 1)):
        a, b = gt == label, seg == label
        assert same(dice(a, b), expected["dsc_per_label"][index])
        if gt.ndim == 2:
            a, b = a[..., None], b[..., None]
        spacing = expected["spacing"] or (1.0, 1.0, 1.0)
        assert same(surface_dice(a, b, spacing, 2.0), expected["nsd_per_label_t2"][index])
        assert same(surface_dice(a, b, spacing, 1.0), expected["nsd_t1"][index])


@pytest.mark.parametrize("name", EXPECTED)
def test_cvpr24_gives_the_case_score_of_the_challenge(name: str) -> None:
    gt, seg = golden(name)
    expected = EXPECTED[name]
    score = score_case(gt, seg, expected["spacing"], "cvpr24")
    dsc = expected["dsc_case"]
    assert same(score.case["dsc"], None if dsc is None else float(np.round(dsc, 4)))
    assert score.case["nsd"] == float(np.round(expected["nsd_case_official"], 4))


def test_cvpr24_rounds_as_numpy_does_where_python_rounds_another_way() -> None:
    gt, seg = np.zeros((20, 40), np.uint8), np.zeros((20, 40), np.uint8)
    gt.ravel()[:160], seg.ravel()[123:283] = 1, 1  # 37 pixels in common: 0.23125
    assert round(74 / 320, 4) == 0.2313
    assert score_case(gt, seg, None, "cvpr24").case["dsc"] == 0.2312


def test_strict_sees_a_shifted_contour_that_the_slab_of_cvpr24_hardly_sees() -> None:
    gt, seg = disc((60, 60)).astype(np.uint16), disc((60, 70)).astype(np.uint16)
    assert score_case(gt, seg, None, "strict").objects[1]["nsd"] == pytest.approx(0.175, abs=5e-4)
    assert score_case(gt, seg, None, "cvpr24").case["nsd"] == pytest.approx(0.889, abs=5e-4)
    assert score_case(gt, seg, None, "cvpr24").case["dsc"] == pytest.approx(0.842, abs=5e-4)


def test_both_empty_is_undefined_and_one_empty_is_zero() -> None:
    empty, full = np.zeros((8, 8), bool), np.ones((8, 8), bool)
    assert math.isnan(dice(empty, empty))
    assert math.isnan(surface_dice(empty, empty, (1, 1), 2))
    assert dice(full, empty) == dice(empty, full) == 0
    assert surface_dice(full, empty, (1, 1), 2) == surface_dice(empty, full, (1, 1), 2) == 0


def test_strict_leaves_undefined_objects_out_of_the_case_mean() -> None:
    gt = np.zeros((20, 20), np.uint16)
    gt[2:8, 2:8], gt[12:18, 12:18] = 1, 3
    score = score_case(gt, gt.copy())
    assert math.isnan(score.objects[2]["dsc"])
    assert score.case == {"dsc": 1.0, "nsd": 1.0}


def test_strict_counts_a_predicted_object_that_the_truth_does_not_have() -> None:
    gt = np.zeros((20, 20), np.uint16)
    gt[2:8, 2:8] = 1
    seg = gt.copy()
    seg[12:18, 12:18] = 2
    assert score_case(gt, seg).objects[2] == {"dsc": 0.0, "nsd": 0.0}
    assert score_case(gt, seg, protocol="cvpr24").case["dsc"] == 1.0


def test_the_objects_to_score_can_be_named() -> None:
    gt = np.zeros((20, 20), np.uint16)
    gt[2:8, 2:8] = 1
    assert sorted(score_case(gt, gt, labels=(1, 2, 3)).objects) == [1, 2, 3]


def test_more_labels_than_a_byte_holds_are_scored_one_by_one() -> None:
    gt = np.zeros((40, 40), np.uint16)
    gt.reshape(-1)[:300] = np.arange(1, 301)
    score = score_case(gt, gt)
    assert len(score.objects) == 300
    assert score.case == {"dsc": 1.0, "nsd": 1.0}


def test_a_single_voxel_at_the_corner_of_a_volume_has_a_whole_surface() -> None:
    gt = np.zeros((4, 4, 4), bool)
    gt[0, 0, 0] = True
    assert surface_dice(gt, gt, (1, 1, 1), 0) == 1
    assert surface_dice(gt, np.roll(gt, 3, axis=2), (1, 1, 1), 2) < 1
    assert surface_dice(gt, np.roll(gt, 3, axis=2), (1, 1, 1), 3) == 1


def test_a_distance_equal_to_the_tolerance_is_accepted() -> None:
    gt = np.zeros((3, 9), bool)
    gt[1, 2] = True
    seg = np.roll(gt, 2, axis=1)
    assert surface_dice(gt, seg, (1, 1), 2) == 1
    assert surface_dice(gt, seg, (1, 1.001), 2) < 1


def test_the_spacing_of_each_protocol_has_its_own_axis_order() -> None:
    assert protocol_spacing("strict", (0.8, 0.7, 2.5)) == (2.5, 0.7, 0.8)
    assert protocol_spacing("cvpr24", (0.8, 0.7, 2.5)) == (0.8, 0.7, 2.5)
    assert protocol_spacing("strict", None) is None


def test_nsd_of_a_volume_without_spacing_is_undefined_in_strict() -> None:
    volume = np.zeros((4, 6, 6), np.uint16)
    volume[1:3, 2:4, 2:4] = 1
    score = score_case(volume, volume, None)
    assert score.objects[1]["dsc"] == 1
    assert math.isnan(score.objects[1]["nsd"])


def test_working_in_blocks_changes_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    for shape, spacing in (((60, 40), (0.7, 1.3)), ((30, 24, 20), (1.7, 0.9, 0.6))):
        gt, seg = rng.random(shape) < 0.02, rng.random(shape) < 0.02
        whole = surface_dice(gt, seg, spacing, 1.5)
        monkeypatch.setattr(borders, "BLOCK_ELEMENTS", 1)
        assert surface_dice(gt, seg, spacing, 1.5) == pytest.approx(whole, abs=1e-12)
        monkeypatch.undo()


def test_steps_that_rounding_puts_on_both_sides_of_the_tolerance_are_kept_apart() -> None:
    found = ball((1.1, 1.1), 5.5, (12, 12))
    assert found is not None
    assert sorted(map(tuple, found.edge.tolist())) == [(-5, 0), (0, -5), (0, 5), (5, 0)]  # 5.5
    assert {tuple(sorted(map(abs, step))) for step in found.beyond.tolist()} == {(3, 4)}  # 5.500000000000001
    assert found.reach == (5, 5)


def test_a_tolerance_of_very_many_voxels_is_decided_by_a_distance_transform() -> None:
    gt, seg = np.zeros((30, 30, 30), bool), np.zeros((30, 30, 30), bool)
    gt[2, 2, 2] = seg[25, 2, 2] = True
    assert ball((1, 1, 1), 21.5, gt.shape) is None
    assert surface_dice(gt, seg, (1, 1, 1), 21.5) == 0
    assert surface_dice(gt, seg, (1, 1, 1), 22) == 0.5
    assert surface_dice(gt, seg, (1, 1, 1), 23) == 1


@pytest.mark.parametrize(("tolerance", "share"), [(-1.0, 0.0), (math.nan, 0.0), (math.inf, 1.0)])
def test_a_tolerance_that_is_no_distance_accepts_nothing_or_everything(tolerance: float, share: float) -> None:
    gt = np.eye(5, dtype=bool)
    assert surface_dice(gt, gt, (1, 1), tolerance) == share


def test_the_hausdorff_distance_leaves_out_the_farthest_twentieth_of_a_surface() -> None:
    gt = np.zeros((60, 60), bool)
    gt[5:45, 5:45] = True
    far = gt.copy()
    far[55, 55] = True
    assert hd95(gt, np.roll(gt, 3, axis=0), (2.5, 1)) == 7.5
    assert hd95(gt, far, (1, 1)) == 0


def test_the_volume_error_is_positive_for_a_prediction_that_is_too_large() -> None:
    gt = np.zeros((10, 10), bool)
    gt[:4, :5] = True
    large = np.zeros_like(gt)
    large[:6, :5] = True
    assert volume_error(gt, large) == 0.5
    assert volume_error(large, gt) == pytest.approx(-1 / 3)
    assert volume_error(gt, np.zeros_like(gt)) == -1
    assert math.isnan(volume_error(np.zeros_like(gt), gt))


def test_the_box_iou_sees_bounding_boxes_and_not_shapes() -> None:
    gt, seg = np.zeros((4, 10, 10), bool), np.zeros((4, 10, 10), bool)
    gt[1, 0, 0] = gt[2, 9, 9] = True
    seg[1:3] = True
    assert box_iou(gt, seg) == 1
    assert box_iou(gt[:, :5, :5], seg[:, 5:, 5:]) == 1 / 50
    assert box_iou(gt, np.zeros_like(gt)) == 0
    assert math.isnan(box_iou(np.zeros_like(gt), np.zeros_like(gt)))


def test_strict_gives_every_metric_asked_for() -> None:
    gt = np.zeros((30, 30), np.uint16)
    gt[2:12, 2:12] = 1
    score = score_case(gt, np.roll(gt, 1, axis=1), metrics=("hd95", "box_iou", "volume_error", "dsc"))
    assert score.objects == {1: {"hd95": 1.0, "box_iou": 90 / 110, "volume_error": 0.0, "dsc": 0.9}}
    assert score.case == score.objects[1]


def test_an_object_that_one_map_lacks_is_as_far_off_as_the_case_is_large() -> None:
    gt = np.zeros((4, 6, 8), np.uint16)
    gt[1, 1, 1] = 1
    score = score_case(gt, np.zeros_like(gt), (2.0, 1.0, 0.5), metrics=("hd95", "volume_error"))
    assert score.case == {"hd95": math.hypot(8, 6, 4), "volume_error": -1.0}
    other = score_case(np.zeros_like(gt), gt, (2.0, 1.0, 0.5), metrics=("hd95", "volume_error"))
    assert other.case["hd95"] == math.hypot(8, 6, 4)
    assert math.isnan(other.case["volume_error"])


def test_no_metric_of_distance_has_a_meaning_in_a_volume_without_spacing() -> None:
    volume = np.zeros((4, 6, 6), np.uint16)
    volume[1:3, 2:4, 2:4] = 1
    score = score_case(volume, volume, None, metrics=("nsd", "hd95", "box_iou"))
    assert score.objects[1]["box_iou"] == 1
    assert math.isnan(score.objects[1]["nsd"])
    assert math.isnan(score.objects[1]["hd95"])


def test_the_challenge_s_protocol_has_dsc_and_nsd_alone() -> None:
    gt = np.ones((4, 4), np.uint8)
    with pytest.raises(ValueError, match=r"protocol cvpr24 has no metric 'hd95'; it has dsc, nsd"):
        score_case(gt, gt, None, "cvpr24", ("dsc", "hd95"))


@pytest.mark.parametrize("shape", [(40, 7), (9, 30, 5), (3, 1, 1), (1, 64), (17,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.bool_])
def test_the_boxes_of_all_labels_are_those_of_each_mask(shape: tuple[int, ...], dtype: type) -> None:
    rng = np.random.default_rng(7)
    for share in (0.0, 0.02, 0.5, 1.0):
        labels = np.where(rng.random(shape) < share, rng.integers(1, 6, shape) * 50, 0).astype(dtype)
        expected = {}
        for label in np.unique(labels[labels > 0]):
            where = np.nonzero(labels == label)
            expected[int(label)] = tuple(slice(int(w.min()), int(w.max()) + 1) for w in where)
        assert label_boxes(labels) == expected
        whole = np.nonzero(labels)
        box = tuple(slice(int(w.min()), int(w.max()) + 1) for w in whole) if len(whole[0]) else None
        assert mask_box(labels != 0) == box


def test_a_map_that_is_not_laid_out_in_order_is_scored_alike() -> None:
    gt = np.zeros((12, 20, 16), np.uint8)
    gt[2:9, 3:15, 4:12] = 3
    seg = np.roll(gt, 1, axis=2)
    turned = [np.asfortranarray(a) for a in (gt, seg)]
    assert score_case(*turned, (1.0, 1.0, 1.0), labels=[3]) == score_case(gt, seg, (1.0, 1.0, 1.0), labels=[3])
    assert score_case(gt[:, ::-1], seg[:, ::-1], (1.0, 1.0, 1.0), labels=[3]).case["nsd"] == 1


@pytest.mark.parametrize(
    ("gt", "seg", "message"),
    [
        (np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8), "differ in shape"),
        (np.zeros((4, 4), np.float32), np.zeros((4, 4), np.uint8), "integers"),
        (np.zeros(4, np.uint8), np.zeros(4, np.uint8), "2 or 3 dimensions"),
        (np.full((4, 4), -1), np.zeros((4, 4), np.uint8), "from 0, not -1"),
    ],
)
def test_label_maps_that_cannot_be_scored_are_named(gt: np.ndarray, seg: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score_case(gt, seg)
