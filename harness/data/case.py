"""A case: one image or volume with its boxes, ground truth, spacing and modality, and its file in the challenge layout.

The layout (MedSAM on Laptop, CVPR 2024): one npz a case, and its NAME decides: ``3D…`` is a volume, anything else an
image.  ``imgs`` is (H,W,3), or grey (H,W), or (D,H,W) for volumes, values 0..255.  ``boxes`` is (N,4) x0,y0,x1,y1 or
(N,6) x0,y0,z0,x1,y1,z1 with inclusive maxima; label i+1 of ``gts`` belongs to ``boxes[i]``.  ``spacing`` is x,y,z in mm
although arrays are z,y,x.  ``gts`` may lie in a file of the same name in another folder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.data.npz import DECLARED_LIMIT, ArrayHeader, read_arrays, read_headers
from harness.errors import BenchError
from harness.files import replacing
from harness.schema import modality_of

FIELDS: Final = ("imgs", "boxes", "gts", "spacing")
MAX_LABEL: Final = 65535


@dataclass(frozen=True, eq=False)
class Case:
    """One image or volume with everything needed to prompt and to score it.

    Attributes:
        name: file name without ``.npz``; ``3D…`` marks a volume.
        modality: a word of ``harness.schema.MODALITIES`` or ``unknown``.
        image: uint8, (H,W,3) or (D,H,W).
        boxes: int64, (N,4) x0,y0,x1,y1 or (N,6) x0,y0,z0,x1,y1,z1 in pixels, maxima inclusive and inside the image.
        spacing_xyz: mm per voxel in x,y,z order as stored, or ``None``.
        truth: uint16 label map of the image's size, label i+1 for ``boxes[i]``, or ``None``.
        notes: what was made to fit while reading, in words.
    """

    name: str
    modality: str
    image: NDArray[np.uint8]
    boxes: NDArray[np.int64]
    spacing_xyz: tuple[float, float, float] | None = None
    truth: NDArray[np.uint16] | None = None
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        expected = "(D,H,W)" if self.ndim == 3 else "(H,W,3)"
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or (self.ndim == 2 and self.image.shape[2] != 3):
            raise BenchError(f"case {self.name}: the image must be uint8 {expected}, not {_describe(self.image)}")
        if self.boxes.dtype != np.int64 or self.boxes.ndim != 2 or self.boxes.shape[1] != 2 * self.ndim:
            raise BenchError(f"case {self.name}: boxes must be int64 (N,{2 * self.ndim}), not {_describe(self.boxes)}")
        for problem in box_problems(self.boxes, self.size):
            raise BenchError(f"case {self.name}: {problem}")
        if self.truth is not None and (self.truth.dtype != np.uint16 or self.truth.shape != self.size):
            raise BenchError(
                f"case {self.name}: the truth must be uint16 {self.size} like the image, not {_describe(self.truth)}"
            )

    @property
    def ndim(self) -> int:
        """2 for an image, 3 for a volume."""
        return ndim_of(self.name)

    @property
    def size(self) -> tuple[int, ...]:
        """(H,W) or (D,H,W): the shape of label maps."""
        return self.image.shape[: self.ndim]

    @property
    def objects(self) -> int:
        """Number of boxes."""
        return len(self.boxes)

    @property
    def spacing_zyx(self) -> tuple[float, float, float] | None:
        """mm per voxel in the order of the array axes."""
        if self.spacing_xyz is None:
            return None
        x, y, z = self.spacing_xyz
        return z, y, x


@dataclass(frozen=True)
class CaseHeader:
    """What can be said about a case file without reading its image.

    ``shape`` is that of ``imgs`` as stored; ``objects`` the rows of ``boxes``.
    """

    name: str
    modality: str
    ndim: int
    shape: tuple[int, ...]
    objects: int
    has_truth: bool
    arrays: dict[str, ArrayHeader]


def ndim_of(name: str) -> int:
    """3 if the case's name starts with ``3D``, else 2 (the challenge's rule)."""
    return 3 if name.startswith("3D") else 2


def inspect_header(path: Path, *, limit: int = DECLARED_LIMIT) -> CaseHeader:
    """Check the shapes and dtypes a case file declares; nothing large is allocated.

    Raises:
        BenchError: see ``harness.data.npz.read_headers``; or a field is missing, or has the wrong shape or dtype.
    """
    path = Path(path)
    arrays = read_headers(path, limit=limit)
    check_headers(path, arrays)
    return header_of(path, arrays)


def header_of(path: Path, arrays: dict[str, ArrayHeader]) -> CaseHeader:
    """The header of a file whose arrays have passed ``check_headers``."""
    name = path.stem
    imgs, boxes = arrays["imgs"], arrays["boxes"]
    return CaseHeader(name, modality_of(name), ndim_of(name), imgs.shape, boxes.shape[0], "gts" in arrays, arrays)


def check_headers(path: Path, arrays: dict[str, ArrayHeader]) -> None:
    """Raise ``BenchError`` at the first field whose declared shape cannot be a case's."""
    for problem in header_problems(path, arrays):
        raise BenchError(problem)


def header_problems(path: Path, arrays: dict[str, ArrayHeader]) -> list[str]:
    """All reasons why a file that declares ``arrays`` cannot be a case, one sentence each."""
    ndim = ndim_of(path.stem)
    has = ", ".join(arrays) or "nothing"
    problems = [
        f"{path}: field '{key}' is missing (the file has {has}); a case needs imgs and boxes"
        for key in ("imgs", "boxes")
        if key not in arrays
    ]
    if "imgs" in arrays:
        problems += _image_shape_problems(path, arrays["imgs"].shape, ndim)
    if "boxes" in arrays:
        problems += _boxes_shape_problems(path, arrays["boxes"].shape, ndim)
    if "gts" in arrays and "imgs" in arrays and not problems:
        problems += _truth_shape_problems(path, arrays["gts"].shape, arrays["imgs"].shape[:ndim])
    return problems


def _boxes_shape_problems(path: Path, shape: tuple[int, ...], ndim: int) -> list[str]:
    if len(shape) != 2 or shape[1] != 2 * ndim:
        order = "x0,y0,z0,x1,y1,z1" if ndim == 3 else "x0,y0,x1,y1"
        return [f"{path}: field 'boxes' has shape {shape}; a {ndim}D case needs (N,{2 * ndim}) {order}"]
    if shape[0] == 0:
        return [f"{path}: field 'boxes' is empty; a case needs at least one box"]
    if shape[0] > MAX_LABEL:
        return [f"{path}: field 'boxes' has {shape[0]} rows; labels end at {MAX_LABEL}, so split the case"]
    return []


def _truth_shape_problems(path: Path, truth: tuple[int, ...], size: tuple[int, ...]) -> list[str]:
    if truth in (size, (*size, 1)):
        return []
    return [f"{path}: field 'gts' has shape {truth} but the image is {size}; store one label per pixel"]


def _image_shape_problems(path: Path, shape: tuple[int, ...], ndim: int) -> list[str]:
    if 0 in shape or not shape:
        return [f"{path}: field 'imgs' has shape {shape}, without a pixel; store the image"]
    if ndim == 3 and len(shape) != 3:
        return [
            f"{path}: field 'imgs' has shape {shape}, but a name starting with 3D promises a volume (D,H,W); "
            "rename the file or store (D,H,W)"
        ]
    if ndim == 2 and not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))):
        return [
            f"{path}: field 'imgs' has shape {shape}, but a 2D case needs (H,W,3) or (H,W); "
            "give a volume a name starting with 3D"
        ]
    return []


def read_case(path: Path, truth_dir: Path | None = None, *, limit: int = DECLARED_LIMIT) -> Case:
    """Read a case in the challenge layout, checking everything.

    Grey images are repeated to three channels.  A box maximum equal to the image's width, height or depth (an exclusive
    maximum) is moved to the last pixel and noted.

    Args:
        path: the npz file; its name decides between 2D and 3D.
        truth_dir: folder of npz files of the same names whose ``gts`` (and ``spacing``, where the case has none) count.
        limit: bytes the file may declare.

    Raises:
        BenchError: one sentence naming the file, the field and the remedy.
    """
    path = Path(path)
    arrays = read_arrays(path, FIELDS, limit=limit, check=check_headers)
    name, ndim = path.stem, ndim_of(path.stem)
    image = image_from(path, arrays["imgs"])
    size = image.shape[:ndim]
    boxes, notes = boxes_from(path, arrays["boxes"], size)
    truth, spacing = arrays.get("gts"), arrays.get("spacing")
    truth_path = path
    if truth_dir is not None:
        truth_path = Path(truth_dir) / path.name
        truth, other_spacing = read_sibling_truth(truth_path, size, limit=limit)
        spacing = spacing if spacing is not None else other_spacing
    return Case(
        name=name,
        modality=modality_of(name),
        image=image,
        boxes=boxes,
        spacing_xyz=None if spacing is None else spacing_from(path, spacing),
        truth=None if truth is None else truth_from(truth_path, truth, size),
        notes=tuple(notes),
    )


def read_sibling_truth(
    path: Path, size: tuple[int, ...], *, limit: int = DECLARED_LIMIT
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """``gts`` and, if there, ``spacing`` of a file that holds the truth of an image of ``size``, as stored."""
    if not path.is_file():
        raise BenchError(f"{path}: the ground truth of case {path.stem} is missing; add the file or leave out `truth`")
    arrays = read_arrays(path, ("gts", "spacing"), limit=limit, check=lambda p, h: check_truth_headers(p, h, size))
    return arrays["gts"], arrays.get("spacing")


def check_truth_headers(path: Path, arrays: dict[str, ArrayHeader], size: tuple[int, ...]) -> None:
    """Raise ``BenchError`` unless a file declares the label map of an image of ``size``."""
    if "gts" not in arrays:
        has = ", ".join(arrays) or "nothing"
        raise BenchError(f"{path}: field 'gts' is missing (the file has {has}); store the label map")
    for problem in _truth_shape_problems(path, arrays["gts"].shape, size):
        raise BenchError(problem)


def image_from(path: Path, imgs: NDArray[Any]) -> NDArray[np.uint8]:
    """``imgs`` as uint8 (H,W,3) or (D,H,W); values must be whole numbers 0..255."""
    if imgs.dtype != np.uint8:
        low, high = _range(path, "imgs", imgs)
        if low < 0 or high > 255:
            raise BenchError(
                f"{path}: field 'imgs' holds values {low:g}..{high:g}; window or rescale them to 0..255 and store uint8"
            )
        if imgs.dtype.kind == "f" and not np.array_equal(imgs, np.rint(imgs)):
            raise BenchError(
                f"{path}: field 'imgs' holds fractions ({imgs.dtype}, {low:g}..{high:g}); rescale to 0..255, round and "
                "store uint8"
            )
        imgs = imgs.astype(np.uint8)
    if ndim_of(path.stem) == 2:
        if imgs.ndim == 3 and imgs.shape[2] == 1:
            imgs = imgs[..., 0]
        if imgs.ndim == 2:
            imgs = np.repeat(imgs[..., None], 3, axis=2)
    return np.ascontiguousarray(imgs)


def boxes_from(path: Path, boxes: NDArray[Any], size: tuple[int, ...]) -> tuple[NDArray[np.int64], list[str]]:
    """``boxes`` as int64 with inclusive maxima inside ``size`` ((H,W) or (D,H,W)), and notes on what was moved."""
    whole = _whole_numbers(path, "boxes", boxes)
    ndim = len(size)
    last = np.array(size[::-1], dtype=np.int64) - 1
    maxima = whole[:, ndim:]
    beyond = maxima == last + 1
    notes: list[str] = []
    if beyond.any():
        rows = np.flatnonzero(beyond.any(axis=1))
        notes.append(
            f"{len(rows)} of {len(whole)} boxes have a maximum equal to the image's size (exclusive); "
            "moved to the last pixel"
        )
        whole = np.concatenate([whole[:, :ndim], np.where(beyond, last, maxima)], axis=1)
    for problem in box_problems(whole, size):
        raise BenchError(f"{path}: {problem}")
    return np.ascontiguousarray(whole), notes


def box_problems(boxes: NDArray[np.int64], size: tuple[int, ...]) -> list[str]:
    """What is wrong with boxes (N,2·ndim) in an image of ``size`` ((H,W) or (D,H,W)); empty if nothing is."""
    ndim = len(size)
    last = np.array(size[::-1], dtype=np.int64) - 1
    low, high = boxes[:, :ndim], boxes[:, ndim:]
    problems = []
    for row in np.flatnonzero((low > high).any(axis=1)):
        problems.append(
            f"field 'boxes', row {row} {boxes[row].tolist()} has a minimum above its maximum; "
            "store the minima first, then the maxima"
        )
    for row in np.flatnonzero(((low < 0) | (high > last)).any(axis=1)):
        order = "x,y,z" if ndim == 3 else "x,y"
        problems.append(
            f"field 'boxes', row {row} {boxes[row].tolist()} leaves the image, whose last pixel is {last.tolist()} "
            f"({order}); store inclusive pixel coordinates"
        )
    return problems


def truth_from(path: Path, gts: NDArray[Any], size: tuple[int, ...]) -> NDArray[np.uint16]:
    """``gts`` as a uint16 label map of ``size``."""
    for problem in _truth_shape_problems(path, gts.shape, size):
        raise BenchError(problem)
    gts = gts.reshape(size)
    if gts.dtype not in (np.uint8, np.uint16, np.bool_):
        whole = _whole_numbers(path, "gts", gts)
        low, high = int(whole.min()), int(whole.max())
        if low < 0 or high > MAX_LABEL:
            raise BenchError(f"{path}: field 'gts' holds labels {low}..{high}; labels must lie in 0..{MAX_LABEL}")
    return np.ascontiguousarray(gts.astype(np.uint16))


def spacing_from(path: Path, spacing: NDArray[Any]) -> tuple[float, float, float]:
    """``spacing`` as three positive numbers, x,y,z in mm."""
    values = [float(v) for v in spacing.ravel()]
    if len(values) != 3 or not all(np.isfinite(v) and v > 0 for v in values):
        raise BenchError(
            f"{path}: field 'spacing' is {values}; store three positive numbers x,y,z in mm or leave it out"
        )
    return values[0], values[1], values[2]


def _whole_numbers(path: Path, key: str, values: NDArray[Any]) -> NDArray[np.int64]:
    if values.dtype.kind == "f":
        _range(path, key, values)
        if not np.array_equal(values, np.rint(values)):
            raise BenchError(f"{path}: field '{key}' holds fractions ({values.dtype}); store whole numbers (integers)")
    if values.size and (abs(float(values.min())) >= 2**62 or abs(float(values.max())) >= 2**62):
        raise BenchError(f"{path}: field '{key}' holds a number beyond 2**62; store pixel coordinates or labels")
    return values.astype(np.int64)


def _range(path: Path, key: str, values: NDArray[Any]) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise BenchError(f"{path}: field '{key}' holds infinite or undefined numbers; replace them and store integers")
    return low, high


def _describe(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"


def write_case(case: Case, path: Path) -> None:
    """Write a case in the challenge layout, atomically: the file is whole or absent, also after a kill.

    Equal cases give equal bytes under one version of numpy and zlib.

    Raises:
        BenchError: the name of ``path`` differs from the case's name, or the file cannot be written.
    """
    path = Path(path)
    if path.name != f"{case.name}.npz":
        raise BenchError(f"{path}: the file of case {case.name} must be called {case.name}.npz; rename one of the two")
    write_whole(path, lambda stream: save_case(case, stream))


def save_case(case: Case, stream: IO[bytes]) -> None:
    """Write the npz archive of a case to a stream; labels are uint8 where none is above 255."""
    arrays: dict[str, NDArray[Any]] = {"imgs": case.image, "boxes": case.boxes}
    if case.truth is not None:
        arrays["gts"] = case.truth.astype(np.uint8) if int(case.truth.max()) <= 255 else case.truth
    if case.spacing_xyz is not None:
        arrays["spacing"] = np.array(case.spacing_xyz, dtype=np.float64)
    np.savez_compressed(stream, allow_pickle=False, **arrays)


def write_whole(path: Path, save: Callable[[IO[bytes]], object]) -> None:
    """Let ``save`` write the new content of a file, which takes the old one's place when it is whole.

    Raises:
        BenchError: the file cannot be written.
    """
    try:
        with replacing(path) as stream:
            save(stream)
    except OSError as error:
        raise BenchError(
            f"{path}: cannot be written ({error.strerror}); check the free space and the permissions"
        ) from error
