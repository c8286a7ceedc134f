"""What ``bench data make`` and ``bench data inspect`` do: write phantoms for people, and say what a folder holds.

``inspect`` is patient: it lists every problem of every file as data, where opening a data set stops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.data import case as fields
from harness.data.case import FIELDS, ndim_of
from harness.data.folder import Progress, case_files, file_digest
from harness.data.materialise import Manifest, materialise
from harness.data.npz import DECLARED_LIMIT, ArrayHeader, read_arrays
from harness.errors import BenchError, UnavailableError
from harness.schema import UNKNOWN_MODALITY, modality_of

if TYPE_CHECKING:
    from harness.config import AdaptedData, PhantomData
    from harness.data.convert import Item

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One file of a folder.

    Attributes:
        shape: of the stored image; empty if it could not be read.
        objects: number of boxes.
        spacing: x,y,z in mm as stored.
        digest: SHA-256 of the file.
        problems: why the file cannot be a case, one sentence each; empty if it can.
        notes: what is odd but allowed.
    """

    name: str
    modality: str
    ndim: int
    shape: tuple[int, ...]
    objects: int
    spacing: tuple[float, float, float] | None
    digest: str
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()


def make(spec: PhantomData, folder: Path, progress: Progress | None = None) -> Manifest:
    """Write the phantoms of ``spec`` as challenge npz files with a manifest into ``folder``.

    Raises:
        BenchError: the folder holds other phantoms, or cannot be written.
    """
    return materialise(spec, Path(folder).expanduser(), progress)


def inspect(
    folder: Path, truth: Path | None = None, progress: Progress | None = None, *, limit: int = DECLARED_LIMIT
) -> list[Row]:
    """Read every case of a folder in full and list what each holds and what is wrong with it.

    Raises:
        BenchError: only if the folder itself is missing or empty.
    """
    files = case_files(Path(folder).expanduser())
    if truth is not None and not Path(truth).is_dir():
        raise BenchError(f"{truth}: the folder of the ground truth does not exist; check its name")
    rows = []
    for number, path in enumerate(files):
        if progress is not None:
            progress(number / len(files), path.name)
        rows.append(_row(path, truth, limit))
    return _with_duplicates(rows)


def inspect_sources(spec: AdaptedData, progress: Progress | None = None) -> list[Row]:
    """Read every image of a folder of NIfTI files or images as the case it makes, and list what is wrong with each.

    Raises:
        BenchError: only if a folder itself is missing or empty, or two files have one stem.
    """
    from harness.data.convert import items_of

    items = items_of(spec, complete=False)
    rows = []
    for number, item in enumerate(items):
        if progress is not None:
            progress(number / len(items), item.stem)
        rows.append(_source_row(item))
    return _with_duplicates(rows)


def _source_row(item: Item) -> Row:
    try:
        case = item.load()
    except UnavailableError:
        raise
    except BenchError as error:
        modality = modality_of(item.stem)
        return Row(item.stem, modality, ndim_of(item.stem), (), 0, None, "", (str(error),))
    notes = [*case.notes]
    if int(case.image.min()) == int(case.image.max()):
        notes.append("the image is constant")
    notes += ["no ground truth"] if case.truth is None else truth_notes(case.boxes, case.truth)
    if case.modality == UNKNOWN_MODALITY:
        notes.append("the name states no modality")
    if case.ndim == 3 and case.spacing_xyz is None:
        notes.append("no spacing")
    digest = sha256("".join(file_digest(file) for file in item.files).encode()).hexdigest()
    return Row(
        case.name, case.modality, case.ndim, case.image.shape, case.objects, case.spacing_xyz, digest, (), tuple(notes)
    )


class _Findings:
    """Problems met on the way; ``attempt`` goes on where an exception would stop."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []

    def attempt(self, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except BenchError as error:
            if str(error) not in self.problems:
                self.problems.append(str(error))
            return None


def _row(path: Path, truth_dir: Path | None, limit: int) -> Row:
    found = _Findings()
    headers: dict[str, ArrayHeader] = {}

    def remember(_: Path, declared: dict[str, ArrayHeader]) -> None:
        headers.update(declared)

    arrays = found.attempt(lambda: read_arrays(path, FIELDS, limit=limit, check=remember)) or {}
    size: tuple[int, ...] | None = None
    if headers:
        for problem in fields.header_problems(path, headers):
            found.problems.append(problem)
        if "imgs" in arrays and not any("'imgs'" in problem for problem in found.problems):
            image = found.attempt(lambda: fields.image_from(path, arrays["imgs"]))
            size = arrays["imgs"].shape[: ndim_of(path.stem)]
            if image is not None and int(image.min()) == int(image.max()):
                found.notes.append("the image is constant")
    boxes = _boxes(path, arrays, size, found)
    truth, spacing = _truth(path, arrays, truth_dir, size, found, limit)
    if boxes is not None and truth is not None:
        found.notes += truth_notes(boxes, truth)
    stored = None if spacing is None else found.attempt(lambda: fields.spacing_from(path, spacing))
    modality = modality_of(path.stem)
    if modality == UNKNOWN_MODALITY:
        found.notes.append("the name states no modality")
    if ndim_of(path.stem) == 3 and spacing is None:
        found.notes.append("no spacing")
    return Row(
        name=path.stem,
        modality=modality,
        ndim=ndim_of(path.stem),
        shape=headers["imgs"].shape if "imgs" in headers else (),
        objects=headers["boxes"].shape[0] if "boxes" in headers and headers["boxes"].shape else 0,
        spacing=stored,
        digest=file_digest(path),
        problems=tuple(found.problems),
        notes=tuple(found.notes),
    )


def _boxes(
    path: Path, arrays: dict[str, NDArray[Any]], size: tuple[int, ...] | None, found: _Findings
) -> NDArray[np.int64] | None:
    if size is None or "boxes" not in arrays or any("'boxes'" in problem for problem in found.problems):
        return None
    result = found.attempt(lambda: fields.boxes_from(path, arrays["boxes"], size))
    if result is None:
        return None
    boxes, notes = result
    found.notes += notes
    return boxes


def _truth(
    path: Path,
    arrays: dict[str, NDArray[Any]],
    truth_dir: Path | None,
    size: tuple[int, ...] | None,
    found: _Findings,
    limit: int,
) -> tuple[NDArray[np.uint16] | None, NDArray[Any] | None]:
    spacing = arrays.get("spacing")
    if size is None:
        return None, spacing
    here, raw = path, arrays.get("gts")
    if truth_dir is not None:
        here = Path(truth_dir) / path.name
        pair = found.attempt(lambda: fields.read_sibling_truth(here, size, limit=limit))
        raw, other = pair if pair is not None else (None, None)
        spacing = spacing if spacing is not None else other
    if raw is None:
        if truth_dir is None:
            found.notes.append("no ground truth")
        return None, spacing
    stored = raw
    return found.attempt(lambda: fields.truth_from(here, stored, size)), spacing


def truth_notes(boxes: NDArray[np.int64], truth: NDArray[np.uint16]) -> list[str]:
    """What is odd about boxes and label map together: a label or a box without the other, loose boxes."""
    notes = []
    labels = {int(label) for label in np.unique(truth)} - {0}
    extra = sorted(label for label in labels if label > len(boxes))
    if extra:
        notes.append(f"labels {_few(extra)} have no box")
    absent = [label for label in range(1, len(boxes) + 1) if label not in labels]
    if absent:
        notes.append(f"boxes {_few(absent)} (counted from 1) have no label in the ground truth")
    loose = [label for label in sorted(labels) if label <= len(boxes) and not _is_tight(boxes[label - 1], truth, label)]
    if loose:
        notes.append(f"boxes {_few(loose)} (counted from 1) are not tight around their label")
    thin = [n + 1 for n, box in enumerate(boxes) if len(box) == 6 and box[2] == box[5]]
    if thin:
        notes.append(f"boxes {_few(thin)} (counted from 1) are one slice thick")
    return notes


def _is_tight(box: NDArray[np.int64], truth: NDArray[np.uint16], label: int) -> bool:
    mask = truth == label
    spans = []
    for axis in reversed(range(truth.ndim)):
        places = np.flatnonzero(mask.any(axis=tuple(a for a in range(truth.ndim) if a != axis)))
        spans.append((places[0], places[-1]))
    return bool(box.tolist() == [low for low, _ in spans] + [high for _, high in spans])


def _few(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5]))
    return shown if len(numbers) <= 5 else f"{shown} and {len(numbers) - 5} more"


def _with_duplicates(rows: list[Row]) -> list[Row]:
    first: dict[str, str] = {}
    out = []
    for row in rows:
        if row.digest and row.digest in first:
            note = f"same content as {first[row.digest]}"
            row = Row(**{**row.__dict__, "notes": (*row.notes, note)})
        else:
            first[row.digest] = row.name
        out.append(row)
    return out
