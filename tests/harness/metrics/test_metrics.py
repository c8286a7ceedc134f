"""DSC and NSD of masks and label maps equal the definition, and the policies of both protocols hold."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.metrics import dice, protocol_spacing, score_case, surface_dice
from harness.metrics import surface as surface_module

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
    assert same(score.case["dsc"], None if dsc is None else round(dsc, 4))
    assert score.case["nsd"] == round(expected["nsd_case_official"], 4)


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
        monkeypatch.setattr(surface_module, "BLOCK_ELEMENTS", 1)
        assert surface_dice(gt, seg, spacing, 1.5) == pytest.approx(whole, abs=1e-12)
        monkeypatch.undo()


@pytest.mark.filterwarnings(r"ignore:.*`scipy\.ndimage\.\w+` namespace is deprecated:DeprecationWarning")
def test_random_masks_score_as_the_definition_s_own_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "NaN", np.nan, raising=False)  # the package predates numpy 2
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)
    import surface_distance as oracle

    rng = np.random.default_rng(11)
    for trial in range(120):
        ndim = 2 + trial % 2
        shape = tuple(int(n) for n in rng.integers(1, 14 if ndim == 3 else 40, ndim))
        spacing = tuple(float(s) for s in rng.choice([0.4, 0.5, 1.0, 2.5, 3.3], ndim))
        gt, seg = (rng.random(shape) < rng.choice([0.02, 0.3, 0.9]) for _ in range(2))
        if not gt.any() and not seg.any():
            continue
        distances = oracle.compute_surface_distances(gt, seg, spacing)
        for tolerance in (0.0, 1.0, 2.0, 4.0):
            expected = oracle.compute_surface_dice_at_tolerance(distances, tolerance)
            assert surface_dice(gt, seg, spacing, tolerance) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("gt", "seg", "message"),
    [
        (np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8), "differ in shape"),
        (np.zeros((4, 4), np.float32), np.zeros((4, 4), np.uint8), "integers"),
        (np.zeros(4, np.uint8), np.zeros(4, np.uint8), "2 or 3 dimensions"),
    ],
)
def test_label_maps_that_cannot_be_scored_are_named(gt: np.ndarray, seg: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score_case(gt, seg)
