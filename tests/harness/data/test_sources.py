"""NIfTI files and images as cases: arrays, orientation, spacing, grey values, objects, and what is refused."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import nibabel as nib
import numpy as np
import pytest

from harness.config import ImagesData, NiftiData
from harness.data import Case
from harness.data.sources import case_name, list_sources, read_source
from harness.errors import BenchError


def save_nifti(path: Path, xyz: np.ndarray, affine: np.ndarray | None = None, unit: str = "mm") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(xyz, np.diag([-0.5, -0.6, 4.0, 1.0]) if affine is None else affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)


def save_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels)


def only_case(spec: NiftiData | ImagesData) -> Case:
    (source,) = list_sources(spec)
    return read_source(source, spec)


@pytest.fixture
def scan(tmp_path: Path) -> dict[str, Any]:
    """A CT of 9 × 8 × 5 voxels (x,y,z) in Hounsfield units with one object, and its folders."""
    xyz = np.full((9, 8, 5), -1000, np.int16)
    xyz[2:7, 2:6, 1:4] = 40
    xyz[8, 7, 4] = 3000
    labels = np.zeros(xyz.shape, np.uint8)
    labels[2:7, 2:6, 1:4] = 6
    save_nifti(tmp_path / "images" / "liver_07.nii.gz", xyz)
    save_nifti(tmp_path / "labels" / "liver_07.nii.gz", labels)
    return {"path": str(tmp_path / "images"), "truth": str(tmp_path / "labels"), "modality": "CT"}


def test_a_ct_becomes_a_windowed_volume_in_z_y_x_with_spacing_in_x_y_z(scan: dict[str, Any]) -> None:
    case = only_case(NiftiData(**scan))
    assert (case.name, case.modality, case.image.shape) == ("3DBox_CT_liver_07", "CT", (5, 8, 9))
    assert case.spacing_xyz == pytest.approx((0.5, 0.6, 4.0))
    assert case.boxes.tolist() == [[2, 2, 1, 6, 5, 3]]
    assert case.truth is not None
    assert set(case.image[case.truth == 1]) == {127}
    assert (int(case.image[0, 0, 0]), int(case.image[4, 7, 8])) == (0, 255)


def test_the_window_can_be_another(scan: dict[str, Any]) -> None:
    by_name, by_numbers = only_case(NiftiData(**scan, window="bone")), only_case(NiftiData(**scan, window=(400, 1800)))
    assert np.array_equal(by_name.image, by_numbers.image)
    assert not np.array_equal(by_name.image, only_case(NiftiData(**scan)).image)


def test_mr_is_prepared_by_percentiles_and_uint8_is_left_alone(scan: dict[str, Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(1, 4000, (9, 8, 5)).astype(np.float32)
    save_nifti(tmp_path / "images" / "liver_07.nii.gz", values)
    low, high = np.percentile(values, (0.5, 99.5))
    expected = ((np.clip(values, low, high) - low) / (high - low) * 255).astype(np.uint8)
    assert np.array_equal(only_case(NiftiData(**scan | {"modality": "MR"})).image, expected.transpose())
    save_nifti(tmp_path / "images" / "liver_07.nii.gz", expected)
    assert np.array_equal(only_case(NiftiData(**scan)).image, expected.transpose())


def test_voxels_stay_in_stored_order_unless_turning_to_lps_is_asked_for(scan: dict[str, Any], tmp_path: Path) -> None:
    # stored z (to the head), x (to the right), y (to the front); 2, 0.5 and 0.6 mm
    affine = np.array([[0, 0.5, 0, 0], [0, 0, 0.6, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]])
    stored = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
    for folder in ("images", "labels"):
        save_nifti(tmp_path / folder / "liver_07.nii.gz", stored, affine)
    as_stored = only_case(NiftiData(**scan))
    assert np.array_equal(as_stored.image, stored.transpose())
    assert as_stored.spacing_xyz == pytest.approx((2.0, 0.5, 0.6))
    turned = only_case(NiftiData(**scan, orientation="LPS"))
    assert np.array_equal(turned.image, stored[:, ::-1, ::-1].transpose(0, 2, 1))
    assert turned.spacing_xyz == pytest.approx((0.5, 0.6, 2.0))


def test_an_oblique_volume_is_read_as_stored_and_refused_where_it_must_be_turned(
    scan: dict[str, Any], tmp_path: Path
) -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    for folder in ("images", "labels"):
        save_nifti(tmp_path / folder / "liver_07.nii.gz", np.ones((4, 5, 6), np.uint8), turn)
    assert only_case(NiftiData(**scan)).image.shape == (6, 5, 4)
    with pytest.raises(BenchError, match="not aligned with the patient's"):
        only_case(NiftiData(**scan, orientation="LPS"))


def test_lengths_in_other_units_become_millimetres(scan: dict[str, Any], tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        save_nifti(
            tmp_path / folder / "liver_07.nii.gz", np.ones((4, 5, 6), np.uint8), np.diag([500, 500, 500, 1]), "micron"
        )
    assert only_case(NiftiData(**scan)).spacing_xyz == pytest.approx((0.5, 0.5, 0.5))


def test_the_challenge_s_cleaning_keeps_labelled_slices_and_drops_labels(scan: dict[str, Any], tmp_path: Path) -> None:
    labels = np.zeros((20, 20, 6), np.uint8)
    labels[0:10, 0:10, 2:5] = 5
    labels[12:18, 12:18, 0:5] = 12
    labels[15, 2, 1] = 5
    image = np.arange(6, dtype=np.uint8) * np.ones((20, 20, 1), np.uint8)
    save_nifti(tmp_path / "images" / "liver_07.nii.gz", image)
    save_nifti(tmp_path / "labels" / "liver_07.nii.gz", labels)
    case = only_case(NiftiData(**scan, drop_labels=(12,), clean=True))
    assert case.image[:, 0, 0].tolist() == [2, 3, 4]
    assert case.boxes.tolist() == [[0, 0, 0, 9, 9, 2]]


def test_nnunet_names_are_matched_without_the_channel(scan: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "images" / "liver_07.nii.gz").rename(tmp_path / "images" / "liver_07_0000.nii.gz")
    assert only_case(NiftiData(**scan)).name == "3DBox_CT_liver_07"


def test_what_is_wrong_with_a_nifti_data_set_is_said_in_one_sentence(scan: dict[str, Any], tmp_path: Path) -> None:
    image, label = tmp_path / "images" / "liver_07.nii.gz", tmp_path / "labels" / "liver_07.nii.gz"
    good, mask = np.zeros((9, 8, 5), np.int16), np.ones((9, 8, 5), np.uint8)

    def said(xyz: np.ndarray = good, labels: np.ndarray = mask, affine: np.ndarray | None = None, **fields: Any) -> str:
        save_nifti(image, xyz)
        save_nifti(label, labels, affine)
        with pytest.raises(BenchError) as caught:
            only_case(NiftiData(**scan | fields))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "the label map is (5, 8, 4) but the image liver_07.nii.gz is (5, 8, 9)" in said(labels=mask[:4])
    assert "labels hold fractions (such as 0.5)" in said(labels=mask * np.float32(0.5))
    assert "holds no object" in said(labels=mask * 0)
    assert "set `modality`" in said(modality=None)
    assert "lies elsewhere" in said(affine=np.diag([0.5, -0.6, 4, 1]))
    assert "NaN, infinity" in said(xyz=np.full((9, 8, 5), np.nan, np.float32))
    assert "not a series" in said(xyz=np.zeros((9, 8, 5, 2), np.int16))
    save_nifti(image, good)
    raw = nib.load(image)
    raw.header["pixdim"][3] = 0
    image.write_bytes(gzip.compress(raw.header.binaryblock + bytes(4) + good.tobytes()))
    with pytest.raises(BenchError, match="the spacing is missing"):
        only_case(NiftiData(**scan))
    image.write_bytes(image.read_bytes()[:80])
    with pytest.raises(BenchError, match="cannot be read as NIfTI"):
        only_case(NiftiData(**scan))
    label.unlink()
    with pytest.raises(BenchError, match="its label map is missing in"):
        list_sources(NiftiData(**scan))


def test_a_missing_nibabel_is_said_with_the_command_that_brings_it(
    scan: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(BenchError, match=r"nibabel is not installed; `pip install .* 'medsam-bench\[medical\]'`"):
        only_case(NiftiData(**scan))


@pytest.fixture
def photo(tmp_path: Path) -> dict[str, Any]:
    """A colour image with an instance mask in 16 bits, and its folders."""
    pixels = np.random.default_rng(1).integers(0, 256, (12, 15, 3), dtype=np.uint8)
    mask = np.zeros((12, 15), np.uint16)
    mask[1:4, 1:5] = 300
    mask[6:9, 7:10] = 40000
    save_image(tmp_path / "images" / "a.png", pixels)
    save_image(tmp_path / "masks" / "a.png", mask)
    return {"path": str(tmp_path / "images"), "truth": str(tmp_path / "masks"), "modality": "Microscopy"}


def test_an_image_keeps_its_colours_and_an_instance_mask_its_objects(photo: dict[str, Any]) -> None:
    case = only_case(ImagesData(**photo))
    assert (case.name, case.spacing_xyz) == ("2DBox_Microscopy_a", None)
    assert np.array_equal(case.image, np.random.default_rng(1).integers(0, 256, (12, 15, 3), dtype=np.uint8))
    assert case.boxes.tolist() == [[1, 1, 4, 3], [7, 6, 9, 8]]


def test_pieces_of_a_class_mask_become_objects_where_asked(photo: dict[str, Any], tmp_path: Path) -> None:
    mask = np.zeros((12, 15), np.uint8)
    mask[1:4, 1:5] = mask[6:9, 7:10] = 255
    save_image(tmp_path / "masks" / "a.png", mask)
    assert only_case(ImagesData(**photo)).objects == 1
    assert only_case(ImagesData(**photo, objects="components")).objects == 2


def test_every_colour_of_a_colour_mask_but_black_is_a_label(photo: dict[str, Any], tmp_path: Path) -> None:
    mask = np.zeros((12, 15, 3), np.uint8)
    mask[1:4, 1:5] = (0, 0, 255)
    mask[6:9, 7:10] = (255, 0, 0)
    save_image(tmp_path / "masks" / "a.png", mask)
    assert only_case(ImagesData(**photo)).boxes.tolist() == [[1, 1, 4, 3], [7, 6, 9, 8]]


def test_sixteen_bit_images_are_rescaled_and_small_values_are_not(photo: dict[str, Any], tmp_path: Path) -> None:
    grey = np.linspace(0, 60000, 180).reshape(12, 15).astype(np.uint16)
    save_image(tmp_path / "images" / "a.png", grey)
    case = only_case(ImagesData(**photo))
    assert np.array_equal(case.image[..., 0], (grey / 60000 * 255).astype(np.uint8))
    save_image(tmp_path / "images" / "a.png", (grey // 300).astype(np.uint16))
    assert np.array_equal(only_case(ImagesData(**photo)).image[..., 2], grey // 300)


def test_jpeg_images_are_read_and_jpeg_masks_refused(photo: dict[str, Any], tmp_path: Path) -> None:
    pixels = np.full((12, 15, 3), (200, 100, 50), np.uint8)
    (tmp_path / "images" / "a.png").unlink()
    save_image(tmp_path / "images" / "a.jpg", pixels)
    assert np.abs(only_case(ImagesData(**photo)).image.astype(int) - pixels).max() < 6
    (tmp_path / "masks" / "a.png").unlink()
    save_image(tmp_path / "masks" / "a.jpg", pixels)
    with pytest.raises(BenchError, match="JPEG blurs the numbers of a mask"):
        only_case(ImagesData(**photo))


def test_a_volume_is_pages_or_slices_ordered_by_number_and_needs_a_spacing(tmp_path: Path) -> None:
    volume = np.random.default_rng(2).integers(0, 256, (11, 6, 5), dtype=np.uint8)
    mask = np.ones_like(volume)
    for z in range(11):
        save_image(tmp_path / "images" / "b" / f"{z}.png", volume[z])
    (tmp_path / "masks").mkdir()
    assert cv2.imwritemulti(str(tmp_path / "masks" / "b.tiff"), list(mask))
    fields = {"path": str(tmp_path / "images"), "truth": str(tmp_path / "masks"), "modality": "MR"}
    with pytest.raises(BenchError, match="the spacing of the volume is missing"):
        only_case(ImagesData(**fields))
    case = only_case(ImagesData(**fields, spacing=(1, 1, 3)))
    assert np.array_equal(case.image, volume)
    assert (case.name, case.spacing_xyz) == ("3DBox_MR_b", (1, 1, 3))


def test_a_box_file_gives_the_boxes_and_leaves_labels_as_they_are(photo: dict[str, Any], tmp_path: Path) -> None:
    mask = np.zeros((12, 15), np.uint8)
    mask[1:4, 1:5] = 2
    save_image(tmp_path / "masks" / "a.png", mask)
    box_file = tmp_path / "boxes" / "a.json"
    box_file.parent.mkdir()
    box_file.write_text(json.dumps({"boxes": [[5, 5, 8, 8], [0, 0, 6, 6]]}))
    case = only_case(ImagesData(**photo, boxes=str(box_file.parent)))
    assert case.boxes.tolist() == [[5, 5, 8, 8], [0, 0, 6, 6]]
    assert case.truth is not None
    assert set(np.unique(case.truth)) == {0, 2}
    for text in ("{", '{"box": []}', '{"boxes": [[1, 2]]}', '{"boxes": [[1, 2, "x", 3]]}'):
        box_file.write_text(text)
        with pytest.raises(BenchError, match="is no box file"):
            only_case(ImagesData(**photo, boxes=str(box_file.parent)))


def test_files_that_cannot_be_paired_or_read_are_named(photo: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "images" / "a.png").write_bytes(b"no picture")
    with pytest.raises(BenchError, match=r"a\.png: is damaged"):
        only_case(ImagesData(**photo))
    save_image(tmp_path / "images" / "a.tif", np.zeros((12, 15), np.uint8))
    with pytest.raises(BenchError, match="same name but for its ending"):
        only_case(ImagesData(**photo))
    (tmp_path / "images" / "a.tif").unlink()
    with pytest.raises(BenchError, match="no such folder; check `truth`"):
        list_sources(ImagesData(**photo | {"truth": str(tmp_path / "no")}))
    (tmp_path / "masks" / "empty").mkdir()
    with pytest.raises(BenchError, match="holds no PNG, TIFF or JPEG"):
        list_sources(ImagesData(path=str(tmp_path / "masks" / "empty"), truth=str(tmp_path / "masks")))


@pytest.mark.parametrize(
    ("stem", "volume", "modality", "name"),
    [
        ("2DBox_US_0001", False, None, "2DBox_US_0001"),
        ("2DBox_US_0001", False, "US", "2DBox_US_0001"),
        ("2DBox_US_0001", False, "CT", "2DBox_CT_2DBox_US_0001"),
        ("2DBox_CT_0001", True, None, "3DBox_2DBox_CT_0001"),
        ("eye", False, "Fundus", "2DBox_Fundus_eye"),
        ("eye", False, None, "2DBox_eye"),
    ],
)
def test_names_say_dimension_and_modality(stem: str, volume: bool, modality: str | None, name: str) -> None:
    assert case_name(stem, volume, modality) == name
