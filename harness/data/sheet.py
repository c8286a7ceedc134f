"""Contact sheets: thumbnails of cases with boxes and the outlines of the ground truth, as PNG or as one HTML page."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.data.case import Case, write_whole
from harness.errors import BenchError

A_PAGE: Final = 60
"""Cases of one PNG; what is more goes to NAME-2.png and so on."""
_COLOURS: Final = (
    (70, 230, 90), (255, 220, 60), (70, 210, 255), (255, 110, 220), (255, 150, 60), (150, 160, 255)
)  # fmt: skip


def contact_sheet(cases: Iterable[Case], path: Path, *, cell: int = 256, columns: int = 4) -> list[Path]:
    """Draw all cases; a volume shows its fullest slice.  Boxes are dim rectangles, masks bright outlines.

    Args:
        cases: read one at a time.
        path: ``.png`` for pictures of ``columns`` cells a row, ``.html`` for one self-contained page.
        cell: side of a thumbnail in pixels.

    Returns:
        The files written.

    Raises:
        BenchError: another ending, or a picture cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() in (".html", ".htm"):
        _store(path, _page(thumbnail(case, cell) for case in cases).encode())
        return [path]
    if path.suffix.lower() != ".png":
        raise BenchError(f"{path}: a contact sheet is a .png or a .html; change the ending")
    drawn, written = (thumbnail(case, cell) for case in cases), list[Path]()
    while cells := list(islice(drawn, A_PAGE)):
        cells += [np.full_like(cells[0], 24)] * (-len(cells) % columns)
        rows = [np.hstack(cells[start : start + columns]) for start in range(0, len(cells), columns)]
        file = path if not written else path.with_name(f"{path.stem}-{len(written) + 1}{path.suffix}")
        _store(file, _png(np.vstack(rows)))
        written.append(file)
    return written


def thumbnail(case: Case, cell: int) -> NDArray[np.uint8]:
    """A case as RGB (cell,cell,3): its name above its image, boxes and outlines."""
    image, truth, layer = case.image, case.truth, None
    if case.ndim == 3:
        layer = _fullest(case)
        image = np.repeat(case.image[layer][..., None], 3, axis=2)
        truth = None if truth is None else truth[layer]
    height, width = image.shape[:2]
    scale = min((cell - 4) / width, (cell - 20) / height)
    shown = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = np.full((cell, cell, 3), 24, np.uint8)
    picture = cv2.resize(image, shown, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    canvas[18 : 18 + shown[1], 2 : 2 + shown[0]] = picture
    for number, box in enumerate(case.boxes.tolist()):
        if layer is None or box[2] <= layer <= box[5]:
            _rectangle(canvas, box, case.ndim, scale, _COLOURS[number % len(_COLOURS)])
    for label in [] if truth is None else [int(v) for v in np.unique(truth) if v]:
        mask = cv2.resize(np.asarray(truth == label, dtype=np.uint8), shown, interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        moved = [contour + np.array([[2, 18]]) for contour in contours]
        cv2.drawContours(canvas, moved, -1, _COLOURS[(label - 1) % len(_COLOURS)], 1)
    cv2.putText(canvas, case.name, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (230, 230, 230), 1, cv2.LINE_AA)
    return canvas


def _fullest(case: Case) -> int:
    if case.truth is None:
        return int((case.boxes[0, 2] + case.boxes[0, 5]) // 2) if len(case.boxes) else len(case.image) // 2
    return int((case.truth > 0).sum(axis=(1, 2)).argmax())


def _rectangle(
    canvas: NDArray[np.uint8], box: list[int], ndim: int, scale: float, colour: tuple[int, int, int]
) -> None:
    x0, y0, x1, y1 = box[0], box[1], box[ndim], box[ndim + 1]
    corner = (2 + int(x0 * scale), 18 + int(y0 * scale))
    opposite = (2 + int((x1 + 1) * scale) - 1, 18 + int((y1 + 1) * scale) - 1)
    cv2.rectangle(canvas, corner, opposite, tuple(value * 3 // 5 for value in colour), 1)


def _store(path: Path, data: bytes) -> None:
    write_whole(path, lambda stream: stream.write(data))


def _png(picture: NDArray[np.uint8]) -> bytes:
    done, encoded = cv2.imencode(".png", picture[..., ::-1])
    if not done:
        raise BenchError("the picture of the contact sheet cannot be encoded; choose fewer cases")
    return encoded.tobytes()


def _page(pictures: Iterator[NDArray[np.uint8]]) -> str:
    images = (f'<img src="data:image/png;base64,{base64.b64encode(_png(each)).decode()}">' for each in pictures)
    style = "body{background:#181818;margin:8px}img{margin:2px}"
    return f"<!doctype html><meta charset=utf-8><title>Cases</title><style>{style}</style>" + "".join(images)
