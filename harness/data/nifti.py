"""NIfTI images and label maps: read as the challenge's preparation reads them, written without loss.

Arrays come as (z,y,x), the order of SimpleITK and of challenge npz files; NIfTI stores x first.  Needs nibabel, which
the extra ``medical`` brings.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.errors import BenchError, UnavailableError

SUFFIXES: Final = (".nii.gz", ".nii")
EXTRA: Final = "'medsam-bench[medical]'"
_MM: Final = {"mm": 1.0, "meter": 1000.0, "micron": 0.001, "unknown": 1.0}
_ALIGNED: Final = 0.999
"""Least share of a voxel axis's length along one axis of the patient: within 2.5°."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxels and where they lie.

    Attributes:
        values: (z,y,x); an RGB image is (1,y,x,3).
        spacing_xyz: mm in the order x,y,z of the array's last to first axis.
        affine: voxel x,y,z to mm (RAS), after any turning.
        unit_known: whether the file says in which unit it measures.
    """

    values: NDArray[Any]
    spacing_xyz: tuple[float, float, float]
    affine: NDArray[np.float64]
    unit_known: bool


def require_nibabel() -> Any:
    """The module nibabel; raises ``UnavailableError`` with the pip command if it is not installed."""
    try:
        return import_module("nibabel")
    except ImportError:
        raise UnavailableError(f"nibabel is not installed; `pip install -c constraints.txt {EXTRA}`") from None


def read_nifti(path: Path, orientation: str = "stored") -> Grid:
    """Read a NIfTI-1 or NIfTI-2 file.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        orientation: ``stored`` keeps the file's order of voxels; ``LPS`` turns a volume, so that x runs to the
            patient's left, y to the back and z to the head, as in axial DICOM.

    Raises:
        UnavailableError: nibabel is not installed.
        BenchError: the file cannot be read, is no image or volume, states no usable spacing, or, for ``LPS``, is not
            aligned with the axes of the patient.
    """
    nib = require_nibabel()
    damaged = (OSError, EOFError, ValueError, zlib.error, nib.filebasedimages.ImageFileError)
    try:
        image = nib.load(path)
        raw = np.asanyarray(image.dataobj)
    except (*damaged, nib.spatialimages.HeaderDataError) as error:
        reason = str(error).strip().splitlines()
        raise BenchError(
            f"{path}: cannot be read as NIfTI ({reason[0].rstrip('.') if reason else type(error).__name__}); copy it "
            "again or convert it anew"
        ) from error
    if not isinstance(image, nib.nifti1.Nifti1Pair):
        raise BenchError(f"{path}: is {type(image).__name__}, no NIfTI image; convert it to .nii.gz")
    spacing, millimetres = _spacing(path, _as_stored(image))
    known = _unit(image.header) != "unknown"
    values = _three_axes(path, raw)
    affine = np.diag([millimetres] * 3 + [1.0]) @ np.asarray(image.affine, dtype=np.float64)
    if orientation == "LPS" and values.shape[2] > 1:
        values, spacing, affine = _turned(path, values, spacing, affine)
    return Grid(_zyx(values), spacing, affine, known)


def same_place(image: Grid, label: Grid) -> bool:
    """Whether two grids of one shape put no voxel further apart than half a voxel."""
    size = np.array(image.values.shape[:3][::-1])  # x, y, z
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=np.float64)
    corners[:, :3] *= size - 1
    apart = corners @ (image.affine - label.affine).T
    return bool(np.abs(apart).max() <= 0.5 * max(image.spacing_xyz))


def nifti_bytes(values: NDArray[Any], spacing_xyz: tuple[float, float, float] | None, *, colour: bool = False) -> bytes:
    """A ``.nii.gz`` of a volume (z,y,x), an image (y,x) or, ``colour``, an RGB image (y,x,3); equal input, equal bytes.

    NIfTI-1 where its single precision holds the spacing, else NIfTI-2.  The axes are those of axial DICOM (LPS).
    Without a spacing the unit is unknown.
    """
    nib = require_nibabel()
    size = spacing_xyz or (1.0, 1.0, 1.0)
    exact = all(float(np.float32(side)) == side for side in size)
    kind = nib.Nifti1Image if exact else nib.Nifti2Image
    affine = np.diag([-size[0], -size[1], size[2], 1.0])
    image = kind(_xyz(values, colour), affine)
    image.header.set_zooms(size)
    image.header.set_xyzt_units("mm" if spacing_xyz else "unknown")
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    image.header["pixdim"][1:4] = size
    return gzip.compress(image.to_bytes(), compresslevel=4, mtime=0)


def _as_stored(image: Any) -> Any:
    """The header as the file has it: nibabel replaces a spacing of 0 by 1 when it opens a file."""
    holder = image.file_map.get("header") or image.file_map["image"]
    with holder.get_prepare_fileobj("rb") as stream:
        return type(image.header).from_fileobj(stream, check=False)


def _spacing(path: Path, header: Any) -> tuple[tuple[float, float, float], float]:
    """x, y, z in mm, and how many mm the file's unit is."""
    zooms = [abs(float(v)) for v in header["pixdim"][1:4]]
    flat = int(header["dim"][0]) < 3
    if flat:
        zooms[2] = zooms[2] or 1.0
    if not all(np.isfinite(v) and v > 0 for v in zooms):
        raise BenchError(
            f"{path}: the spacing is missing (field 'pixdim' is {zooms}); write the size of a voxel in mm into the "
            "header"
        )
    millimetres = _MM[_unit(header)]
    x, y, z = (v * millimetres for v in zooms)
    return (x, y, z), millimetres


def _unit(header: Any) -> str:
    try:
        return str(header.get_xyzt_units()[0])
    except KeyError:  # a code that the format does not define
        return "unknown"


def _three_axes(path: Path, raw: NDArray[Any]) -> NDArray[Any]:
    """(x,y,z), or (x,y,1,3) for RGB."""
    if raw.dtype.names:
        channels = [raw[name] for name in raw.dtype.names[:3]]
        raw = np.stack(channels, axis=-1)
        raw = raw.reshape(*raw.shape[:2], -1, 3)
        if raw.shape[2] != 1:
            raise BenchError(f"{path}: is a colour volume of shape {raw.shape}; give one grey value per voxel")
        return raw
    while raw.ndim > 3 and raw.shape[-1] == 1:
        raw = raw[..., 0]
    if raw.ndim == 2:
        raw = raw[..., None]
    if raw.ndim != 3 or 0 in raw.shape:
        raise BenchError(f"{path}: has shape {raw.shape}; give one volume (x,y,z) per file, not a series")
    return raw


def _turned(
    path: Path, values: NDArray[Any], spacing: tuple[float, float, float], affine: NDArray[np.float64]
) -> tuple[NDArray[Any], tuple[float, float, float], NDArray[np.float64]]:
    orientations = require_nibabel().orientations
    axes = affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not (lengths > 0).all() or (np.abs(axes).max(axis=0) < _ALIGNED * lengths).any():
        raise BenchError(
            f"{path}: its axes are not aligned with the patient's, so it cannot be turned to LPS; resample it, or "
            "leave `orientation` at stored"
        )
    turn = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt("LPS"))
    turned = orientations.apply_orientation(values, turn)
    back = orientations.inv_ornt_aff(turn, values.shape[:3])
    order = np.argsort(turn[:, 0])
    x, y, z = (spacing[int(axis)] for axis in order)
    return turned, (x, y, z), affine @ back


def _zyx(values: NDArray[Any]) -> NDArray[Any]:
    if values.ndim == 4:
        return np.ascontiguousarray(values.transpose(2, 1, 0, 3))
    return np.ascontiguousarray(values.transpose(2, 1, 0))


def _xyz(values: NDArray[Any], colour: bool) -> NDArray[Any]:
    if colour:
        swapped = np.ascontiguousarray(values.transpose(1, 0, 2))
        return swapped.view(np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    return values.transpose()[..., None] if values.ndim == 2 else values.transpose()
