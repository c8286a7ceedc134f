"""Reading and writing cases in the challenge layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from harness.data import Case, inspect_header, read_case, write_case
from harness.data.phantoms.scene import tight_boxes
from harness.errors import BenchError

from .conftest import Write


def assert_equal(left: Case, right: Case) -> None:
    assert (left.name, left.modality, left.ndim) == (right.name, right.modality, right.ndim)
    np.testing.assert_array_equal(left.image, right.image)
    np.testing.assert_array_equal(left.boxes, right.boxes)
    np.testing.assert_array_equal(left.truth, right.truth)
    assert left.spacing_xyz == right.spacing_xyz


def test_an_image_survives_writing_and_reading(case: Case, tmp_path: Path) -> None:
    write_case(case, tmp_path / f"{case.name}.npz")
    assert_equal(read_case(tmp_path / f"{case.name}.npz"), case)


def test_a_volume_survives_with_its_spacing_in_stored_and_in_array_order(volume: Case, tmp_path: Path) -> None:
    write_case(volume, tmp_path / f"{volume.name}.npz")
    read = read_case(tmp_path / f"{volume.name}.npz")
    assert_equal(read, volume)
    assert read.spacing_xyz == (0.5, 0.6, 4.0)
    assert read.spacing_zyx == (4.0, 0.6, 0.5)


@settings(max_examples=25, deadline=None)
@given(truth=arrays.arrays(np.uint16, st.tuples(st.integers(2, 9), st.integers(2, 9)), elements=st.integers(1, 3)))
def test_any_label_map_survives_writing_and_reading(
    truth: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    labels = np.unique(truth, return_inverse=True)[1].reshape(truth.shape).astype(np.uint16) + 1
    pixels = np.zeros((*labels.shape, 3), np.uint8)
    case = Case("2DBox_CT_0001", "CT", pixels, tight_boxes(labels), truth=labels)
    path = tmp_path_factory.mktemp("case") / "2DBox_CT_0001.npz"
    write_case(case, path)
    assert_equal(read_case(path), case)


def test_equal_cases_give_equal_bytes(case: Case, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_case(case, tmp_path / folder / f"{case.name}.npz")
    assert (tmp_path / "a" / f"{case.name}.npz").read_bytes() == (tmp_path / "b" / f"{case.name}.npz").read_bytes()


def test_a_file_under_another_name_than_its_case_is_refused(case: Case, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"must be called 2DBox_US_0001\.npz"):
        write_case(case, tmp_path / "other.npz")


def test_writing_leaves_no_temporary_file(case: Case, tmp_path: Path) -> None:
    write_case(case, tmp_path / f"{case.name}.npz")
    assert [file.name for file in tmp_path.iterdir()] == [f"{case.name}.npz"]


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1)])
def test_a_grey_image_is_repeated_to_three_channels(npz: Write, image: np.ndarray, shape: tuple[int, ...]) -> None:
    grey = image[..., 0].reshape(shape)
    read = read_case(npz(imgs=grey, boxes=[[0, 0, 5, 5]]))
    assert read.image.shape == (20, 30, 3)
    for channel in range(3):
        np.testing.assert_array_equal(read.image[..., channel], image[..., 0])


def test_the_name_decides_between_image_and_volume_where_the_array_does_not(npz: Write) -> None:
    pixels = np.zeros((10, 12, 3), np.uint8)
    as_image = read_case(npz("2DBox_CT_0001", imgs=pixels, boxes=[[0, 0, 5, 5]]))
    as_volume = read_case(npz("3DBox_CT_0001", imgs=pixels, boxes=[[0, 0, 0, 2, 5, 5]]))
    assert (as_image.ndim, as_image.size) == (2, (10, 12))
    assert (as_volume.ndim, as_volume.size) == (3, (10, 12, 3))


def test_the_modality_comes_from_the_name(npz: Write, image: np.ndarray) -> None:
    assert read_case(npz("2DBox_XRay_0001", imgs=image, boxes=[[0, 0, 5, 5]])).modality == "X-Ray"
    assert read_case(npz("holiday", imgs=image, boxes=[[0, 0, 5, 5]])).modality == "unknown"


def test_maxima_equal_to_the_size_are_moved_to_the_last_pixel_and_noted(npz: Write, image: np.ndarray) -> None:
    read = read_case(npz(imgs=image, boxes=[[0, 0, 30, 20], [1, 1, 5, 5]]))
    assert read.boxes.tolist() == [[0, 0, 29, 19], [1, 1, 5, 5]]
    assert read.notes == ("1 of 2 boxes have a maximum equal to the image's size (exclusive); moved to the last pixel",)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int16, np.int64, np.uint64, np.float32])
def test_label_maps_of_any_whole_number_type_become_uint16(npz: Write, image: np.ndarray, dtype: type) -> None:
    gts = np.zeros((20, 30), dtype)
    gts[2:4, 2:4] = 1
    truth = read_case(npz(imgs=image, boxes=[[2, 2, 3, 3]], gts=gts)).truth
    assert truth is not None
    assert truth.dtype == np.uint16
    assert truth.sum() == 4


def test_label_maps_may_have_gaps(npz: Write, image: np.ndarray) -> None:
    gts = np.zeros((20, 30), np.uint8)
    gts[2:4, 2:4] = 3
    read = read_case(npz(imgs=image, boxes=[[0, 0, 1, 1], [5, 5, 6, 6], [2, 2, 3, 3]], gts=gts))
    assert read.truth is not None
    assert set(np.unique(read.truth)) == {0, 3}


@pytest.mark.parametrize("dtype", [np.int32, np.uint16, np.float64])
def test_boxes_of_any_whole_number_type_become_int64(npz: Write, image: np.ndarray, dtype: type) -> None:
    boxes = read_case(npz(imgs=image, boxes=np.array([[1, 2, 3, 4]], dtype))).boxes
    assert boxes.dtype == np.int64
    assert boxes.tolist() == [[1, 2, 3, 4]]


def test_whole_numbers_in_a_float_image_are_taken_as_they_are(npz: Write, image: np.ndarray) -> None:
    read = read_case(npz(imgs=image.astype(np.float32), boxes=[[0, 0, 5, 5]]))
    np.testing.assert_array_equal(read.image, image)


def test_truth_in_a_sibling_folder_counts_and_brings_its_spacing(npz: Write, volume: Case, tmp_path: Path) -> None:
    path = npz(volume.name, tmp_path / "imgs", imgs=volume.image, boxes=volume.boxes)
    npz(volume.name, tmp_path / "gts", gts=volume.truth, spacing=[1.0, 2.0, 3.0])
    read = read_case(path, tmp_path / "gts")
    np.testing.assert_array_equal(read.truth, volume.truth)
    assert read.spacing_xyz == (1.0, 2.0, 3.0)
    assert read_case(path).truth is None


def test_missing_truth_in_the_sibling_folder_is_said(npz: Write, volume: Case, tmp_path: Path) -> None:
    path = npz(volume.name, tmp_path / "imgs", imgs=volume.image, boxes=volume.boxes)
    (tmp_path / "gts").mkdir()
    with pytest.raises(BenchError, match=r"gts/3DBox_MR_0001\.npz: the ground truth .* is missing"):
        read_case(path, tmp_path / "gts")


def test_truth_of_another_size_in_the_sibling_folder_is_said(npz: Write, volume: Case, tmp_path: Path) -> None:
    path = npz(volume.name, tmp_path / "imgs", imgs=volume.image, boxes=volume.boxes)
    npz(volume.name, tmp_path / "gts", gts=np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(BenchError, match=r"field 'gts' has shape \(2, 2, 2\) but the image is \(6, 16, 12\)"):
        read_case(path, tmp_path / "gts")


PIXELS = np.zeros((20, 30, 3), np.uint8)
BOX = [[1, 2, 5, 6]]


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"image": PIXELS, "boxes": BOX}, "field 'imgs' is missing (the file has image, boxes)"),
        ({"imgs": PIXELS}, "field 'boxes' is missing"),
        ({"imgs": PIXELS.astype(np.float32) - 1, "boxes": BOX}, "holds values -1..-1; window or rescale"),
        ({"imgs": PIXELS + np.int16(1000), "boxes": BOX}, "holds values 1000..1000; window or rescale"),
        ({"imgs": PIXELS + 0.5, "boxes": BOX}, "field 'imgs' holds fractions"),
        ({"imgs": PIXELS * np.nan, "boxes": BOX}, "holds infinite or undefined numbers"),
        ({"imgs": PIXELS.astype("U1"), "boxes": BOX}, "field 'imgs' has dtype <U1"),
        ({"imgs": np.zeros((5, 20, 30), np.uint8), "boxes": BOX}, "give a volume a name starting with 3D"),
        ({"imgs": np.zeros((0, 30, 3), np.uint8), "boxes": BOX}, "without a pixel"),
        ({"imgs": PIXELS, "boxes": [1, 2, 3, 4]}, "field 'boxes' has shape (4,); a 2D case needs (N,4)"),
        ({"imgs": PIXELS, "boxes": [[0, 0, 0, 1, 1, 1]]}, "field 'boxes' has shape (1, 6)"),
        ({"imgs": PIXELS, "boxes": np.zeros((0, 4))}, "field 'boxes' is empty"),
        ({"imgs": PIXELS, "boxes": [[1, 2, 5.5, 6]]}, "field 'boxes' holds fractions"),
        ({"imgs": PIXELS, "boxes": [[5, 2, 1, 6]]}, "row 0 [5, 2, 1, 6] has a minimum above its maximum"),
        ({"imgs": PIXELS, "boxes": [[1, 2, 31, 6]]}, "row 0 [1, 2, 31, 6] leaves the image"),
        ({"imgs": PIXELS, "boxes": [[-1, 2, 3, 6]]}, "row 0 [-1, 2, 3, 6] leaves the image"),
        ({"imgs": PIXELS, "boxes": np.array([[0, 0, 2**64 - 1, 1]], np.uint64)}, "beyond 2**62"),
        ({"imgs": PIXELS, "boxes": BOX, "gts": np.zeros((20, 29), int)}, "field 'gts' has shape (20, 29)"),
        ({"imgs": PIXELS, "boxes": BOX, "gts": np.full((20, 30), -1)}, "holds labels -1..-1"),
        ({"imgs": PIXELS, "boxes": BOX, "gts": np.full((20, 30), 70000)}, "holds labels 70000..70000"),
        ({"imgs": PIXELS, "boxes": BOX, "spacing": [1.0, 0.0, 1.0]}, "field 'spacing' is [1.0, 0.0, 1.0]"),
        ({"imgs": PIXELS, "boxes": BOX, "spacing": [1.0]}, "store three positive numbers"),
    ],
)
def test_a_file_that_cannot_be_a_case_is_refused_in_one_sentence(
    npz: Write, arrays: dict[str, object], sentence: str
) -> None:
    path = npz(**arrays)
    with pytest.raises(BenchError) as caught:
        read_case(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert sentence in message
    assert "\n" not in message


def test_the_header_tells_shape_and_objects_without_reading_the_image(npz: Write, volume: Case) -> None:
    header = inspect_header(npz(volume.name, imgs=volume.image, boxes=volume.boxes, gts=volume.truth))
    assert (header.ndim, header.modality, header.shape) == (3, "MR", (6, 16, 12))
    assert (header.objects, header.has_truth) == (1, True)


def test_a_case_made_in_code_is_checked_too(image: np.ndarray) -> None:
    box = np.array([[0, 0, 5, 5]], np.int64)
    with pytest.raises(BenchError, match="the image must be uint8"):
        Case("2DBox_CT_0001", "CT", image.astype(np.float32), box)  # type: ignore[arg-type]
    with pytest.raises(BenchError, match=r"boxes must be int64 \(N,4\)"):
        Case("2DBox_CT_0001", "CT", image, box[0])
    with pytest.raises(BenchError, match="leaves the image"):
        Case("2DBox_CT_0001", "CT", image, box + 100)
    with pytest.raises(BenchError, match="the truth must be uint16"):
        Case("2DBox_CT_0001", "CT", image, box, truth=np.zeros((2, 2), np.uint16))
