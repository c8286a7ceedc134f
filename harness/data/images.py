"""PNG, TIFF and JPEG as arrays and back; a volume is a TIFF of pages or a folder of numbered slices.

Colours come as RGB, alpha is left out, and pixels stay as they are stored (no rotation by EXIF), because masks are
drawn on stored pixels.  Read and written by OpenCV.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.errors import BenchError

LOSSLESS: Final = (".png", ".tif", ".tiff")
LOSSY: Final = (".jpg", ".jpeg")
SUFFIXES: Final = (*LOSSLESS, *LOSSY)
_TIFF: Final = (".tif", ".tiff")


def read_image(files: Sequence[Path]) -> tuple[NDArray[Any], bool]:
    """The pixels of one file, or of a folder's slices in the order given, and whether they are a volume.

    Returns:
        (H,W) or (H,W,3) RGB of one page; (D,H,W) of several pages or slices; dtype as stored.

    Raises:
        BenchError: a file cannot be read, slices differ in size, or a slice of a volume has colours.
    """
    pages = [(file, page) for file in files for page in _pages(file)]
    first = pages[0][1]
    if len(pages) == 1:
        return first, False
    for file, page in pages:
        if page.shape[:2] != first.shape[:2]:
            raise BenchError(
                f"{file}: a slice of {page.shape[:2]} in a volume of {first.shape[:2]}; store equal slices"
            )
    return np.stack([_grey(file, page) for file, page in pages]), True


def read_mask(files: Sequence[Path]) -> NDArray[Any]:
    """A label map (H,W) or (D,H,W) as stored; in a colour mask every colour but black is a label, ordered by R, G, B.

    Raises:
        BenchError: as ``read_image``; or the file is a JPEG, which does not keep labels.
    """
    for file in files:
        if file.suffix.lower() in LOSSY:
            raise BenchError(f"{file}: JPEG blurs the numbers of a mask; store masks as PNG or TIFF")
    mask, volume = read_image(files)
    return mask if volume or mask.ndim == 2 else _labels_of_colours(mask)


def slices_of(folder: Path) -> list[Path]:
    """The image files of a folder that is a volume, in the order of the numbers in their names."""
    files = [f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith(".")]
    return sorted(files, key=lambda f: ([int(n) for n in re.findall(r"\d+", f.stem)], f.name))


def png_bytes(values: NDArray[Any]) -> bytes:
    """A PNG of (H,W) uint8 or uint16, or (H,W,3) RGB uint8."""
    done, encoded = cv2.imencode(".png", _for_opencv(values))
    if not done:
        raise BenchError(f"an image of {values.dtype} {values.shape} cannot be written as PNG; write NIfTI")
    return encoded.tobytes()


def tiff_bytes(values: NDArray[Any], *, volume: bool) -> bytes:
    """A TIFF of (H,W), (H,W,3) RGB, or, ``volume``, of the pages of (D,H,W)."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "pages.tiff"
        pages = list(values) if volume else [_for_opencv(values)]
        if not cv2.imwritemulti(str(path), pages):
            raise BenchError(f"an image of {values.dtype} {values.shape} cannot be written as TIFF; write NIfTI")
        return path.read_bytes()


def _pages(file: Path) -> list[NDArray[Any]]:
    try:
        data = np.frombuffer(file.read_bytes(), np.uint8)
    except OSError as error:
        raise BenchError(f"{file}: cannot be read ({error.strerror}); check its name and permissions") from error
    try:
        if file.suffix.lower() in _TIFF:
            done, found = cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED) if data.size else (False, ())
        else:
            page = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
            done, found = page is not None, () if page is None else (page,)
    except cv2.error as error:
        raise BenchError(f"{file}: cannot be decoded ({error.err}); copy it again") from error
    if not done or not found:
        raise BenchError(f"{file}: is damaged or no image that can be read here; copy it again or store it as PNG")
    return [_rgb(np.asarray(page)) for page in found]


def _rgb(page: NDArray[Any]) -> NDArray[Any]:
    if page.ndim == 2:
        return page
    return page[..., 0] if page.shape[2] in (1, 2) else np.ascontiguousarray(page[..., 2::-1])


def _grey(file: Path, page: NDArray[Any]) -> NDArray[Any]:
    if page.ndim == 2:
        return page
    if (page[..., 0] == page[..., 1]).all() and (page[..., 0] == page[..., 2]).all():
        return page[..., 0]
    raise BenchError(f"{file}: a slice of a volume has colours; store one grey value per voxel")


def _labels_of_colours(mask: NDArray[Any]) -> NDArray[Any]:
    red, green, blue = (mask[..., c].astype(np.int64) for c in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red
    _, labels = np.unique((red << 32) + (green << 16) + blue, return_inverse=True)
    black = not bool(((red == 0) & (green == 0) & (blue == 0)).any())
    return np.asarray(labels.reshape(red.shape) + black)


def _for_opencv(values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(values[..., ::-1]) if values.ndim == 3 else values
