"""Folders of images and label maps: which file belongs to which, what they hold by digest, and the case they make.

Files belong together by their stem.  A box file ``NAME.json`` holds ``boxes`` as the challenge's, and ``spacing``
(x, y, z in mm, or null) where the image's format cannot state it; with a box file the labels keep their numbers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.data import nifti, objects
from harness.data.case import Case, boxes_from, ndim_of, spacing_from, truth_from
from harness.data.intensity import WINDOWS, by_percentiles, stretched, windowed
from harness.errors import BenchError
from harness.schema import UNKNOWN_MODALITY, modality_of

if TYPE_CHECKING:
    from harness.config import AdaptedData, ImagesData, NiftiData

CHANNEL: Final = "_0000"
"""Ending of an image's name that its label map does not have, in nnU-Net's layout."""
Spacing = tuple[float, float, float] | None


@dataclass(frozen=True)
class Source:
    """The files of one case; ``image`` and ``label`` are several files where a folder of slices is a volume."""

    stem: str
    image: tuple[Path, ...]
    label: tuple[Path, ...] | None
    boxes: Path | None

    @property
    def files(self) -> list[Path]:
        return [*self.image, *(self.label or ()), *([self.boxes] if self.boxes else [])]


def list_sources(spec: AdaptedData, *, complete: bool = True) -> list[Source]:
    """The sources of a data set, sorted by stem; unless ``complete``, also those without label map and boxes.

    Raises:
        BenchError: a folder is missing or holds nothing; two files have one stem; an image has neither label nor boxes.
    """
    images = _by_stem(_folder(spec.path, "path"), spec)
    if not images:
        what = "NIfTI file (.nii, .nii.gz)" if spec.kind == "nifti" else "PNG, TIFF or JPEG file"
        raise BenchError(f"{spec.path}: holds no {what}; check `path` of the data set and its kind")
    labels = _by_stem(_folder(spec.truth, "truth"), spec) if spec.truth else None
    boxes = _folder(spec.boxes, "boxes") if spec.boxes else None
    found = []
    for stem, files in sorted(images.items()):
        short = stem.removesuffix(CHANNEL)
        name = short if labels is not None and stem not in labels and short in labels else stem
        box = boxes / f"{name}.json" if boxes else None
        box = box if box is not None and box.is_file() else None
        found.append(Source(name, files, labels.get(name) if labels else None, box))
    missing = [source for source in found if _incomplete(source, spec)]
    if missing and complete:
        raise BenchError(_missing(missing, spec, len(found)))
    return found


def read_source(source: Source, spec: AdaptedData) -> Case:
    """Read the files of one case and make it a challenge case.

    Raises:
        UnavailableError: the library for the format is not installed.
        BenchError: a file cannot be read, shapes differ, labels are no whole numbers, there is no object, a volume has
            no spacing, or the modality that decides about the grey values is not known.
    """
    if _incomplete(source, spec):
        raise BenchError(_missing([source], spec, 1))
    stated = _box_file(source.boxes)
    raw = _read_nifti(source, spec) if spec.kind == "nifti" else _read_images(source, spec)
    name = case_name(source.stem, raw.volume, spec.modality)
    size = raw.values.shape[: ndim_of(name)]
    if raw.labels is not None and raw.labels.shape != size:
        raise BenchError(
            f"{_first(source.label)}: the label map is {raw.labels.shape} but the image {source.image[0].name} is "
            f"{size}; give one label per pixel"
        )
    spacing = stated.spacing if stated.says_spacing else raw.spacing
    if raw.volume and spacing is None and not stated.says_spacing:
        raise BenchError(
            f"{source.image[0]}: the spacing of the volume is missing; set `spacing` (x,y,z in mm), or state it in a "
            f"box file {source.stem}.json"
        )
    image = _grey_values(source.image[0], raw, modality_of(name), spec)
    truth = None if raw.labels is None else _labels(source, raw.labels, spec)
    boxes: NDArray[np.int64]
    if stated.boxes is not None and source.boxes is not None:
        label_map = None if truth is None else truth_from(_first(source.label), truth, size)
        boxes, notes = boxes_from(source.boxes, stated.boxes, size)
    else:
        label_map, boxes, notes = _objects(source, truth, spec), np.empty(0, np.int64), []
        if spec.clean and raw.volume:
            kept = label_map.any(axis=(1, 2))
            image, label_map = image[kept], label_map[kept]
        boxes = objects.boxes_of(label_map, spec.margin)
    if not raw.volume and image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    return Case(name, modality_of(name), np.ascontiguousarray(image), boxes, spacing, label_map, tuple(notes))


def case_name(stem: str, volume: bool, modality: str | None) -> str:
    """A name that says dimension and modality: the stem if it does already, else ``2DBox_MODALITY_STEM``."""
    right_dimension = stem.startswith("3D" if volume else "2D")
    if right_dimension and (modality is None or modality_of(stem) == modality):
        return stem
    words = ["3DBox" if volume else "2DBox", *([modality] if modality else []), stem]
    return "_".join(words)


@dataclass(frozen=True, eq=False)
class _Raw:
    """Pixels as stored: (H,W), (H,W,3) or, ``volume``, (D,H,W); the label map likewise."""

    values: NDArray[Any]
    volume: bool
    labels: NDArray[Any] | None
    spacing: Spacing


@dataclass(frozen=True, eq=False)
class _Stated:
    """What a box file says."""

    boxes: NDArray[Any] | None = None
    says_spacing: bool = False
    spacing: Spacing = None


def _read_nifti(source: Source, spec: NiftiData) -> _Raw:
    grid = nifti.read_nifti(source.image[0], spec.orientation)
    label = nifti.read_nifti(source.label[0], spec.orientation) if source.label else None
    if label and label.values.shape == grid.values.shape[:3] and not nifti.same_place(grid, label):
        raise BenchError(
            f"{_first(source.label)}: lies elsewhere than {source.image[0].name} (another origin, spacing or "
            "orientation in its header); resample it onto the image"
        )
    colour = grid.values.ndim == 4
    volume = not colour and (len(grid.values) > 1 or source.stem.startswith("3D"))
    labels = None if label is None else label.values
    if volume:
        return _Raw(grid.values, True, labels, grid.spacing_xyz)
    flat = labels[0] if labels is not None and len(labels) == 1 else labels
    return _Raw(grid.values[0], False, flat, grid.spacing_xyz if grid.unit_known else None)


def _read_images(source: Source, spec: ImagesData) -> _Raw:
    from harness.data import images

    values, volume = images.read_image(source.image)
    labels = images.read_mask(source.label) if source.label else None
    if not volume and source.stem.startswith("3D") and values.ndim == 2:
        values, volume = values[None], True
        labels = labels[None] if labels is not None and labels.ndim == 2 else labels
    return _Raw(values, volume, labels, spec.spacing if volume else None)


def _grey_values(path: Path, raw: _Raw, modality: str, spec: AdaptedData) -> NDArray[np.uint8]:
    values = raw.values
    if spec.kind == "images" and spec.cutoff and values.ndim == (3 if raw.volume else 2):
        return by_percentiles(values)
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise BenchError(
            f"{path}: the image holds NaN, infinity or no numbers ({values.dtype}); store finite grey values"
        )
    if spec.kind == "images" and not raw.volume:
        plain = values.min() >= 0 and values.max() <= 255 and values.dtype.kind in "biu"
        return values.astype(np.uint8) if plain else stretched(values)
    if modality == UNKNOWN_MODALITY:
        raise BenchError(
            f"{path}: grey values of {values.dtype} are prepared by modality, which the name does not say; "
            "set `modality`"
        )
    if modality == "CT":
        level, width = WINDOWS[spec.window] if isinstance(spec.window, str) else spec.window
        return windowed(values, level, width)
    return by_percentiles(values)


def _labels(source: Source, raw: NDArray[Any], spec: AdaptedData) -> NDArray[np.int64]:
    labels = objects.whole_labels(raw, str(_first(source.label)))
    if spec.drop_labels:
        labels = np.where(np.isin(labels, spec.drop_labels), 0, labels)
    return objects.cleaned(labels) if spec.clean else labels


def _objects(source: Source, labels: NDArray[np.int64] | None, spec: AdaptedData) -> NDArray[np.uint16]:
    if labels is None:
        raise BenchError(f"{source.image[0]}: has neither a label map nor boxes; add {source.stem}.json to `boxes`")
    numbered = objects.numbered(labels, spec.objects, str(_first(source.label)))
    if not numbered.any():
        rest = " after `drop_labels` and `clean`" if spec.drop_labels or spec.clean else ""
        raise BenchError(f"{_first(source.label)}: the label map holds no object{rest}; leave the case out")
    return numbered


def _box_file(path: Path | None) -> _Stated:
    if path is None:
        return _Stated()
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or not set(data) <= {"boxes", "spacing"}:
            raise ValueError("it must hold `boxes`, `spacing` or both")
        boxes = np.asarray(data["boxes"]) if "boxes" in data else None
        if boxes is not None and (boxes.dtype.kind not in "iuf" or boxes.ndim != 2 or boxes.shape[1] not in (4, 6)):
            raise ValueError("`boxes` must be rows of 4 or 6 numbers")
        stated = data.get("spacing")
        spacing = None if stated is None else spacing_from(path, np.asarray(stated, dtype=np.float64))
    except (OSError, ValueError, TypeError) as error:
        raise BenchError(f"{path}: is no box file ({error}); see `bench data convert --help`") from error
    return _Stated(boxes, "spacing" in data, spacing)


def _first(files: tuple[Path, ...] | None) -> Path:
    return files[0] if files else Path()


def _folder(text: str | None, field: str) -> Path:
    folder = Path(text or "").expanduser()
    if not folder.is_dir():
        raise BenchError(
            f"{folder}: no such folder; check `{field}` of the data set (relative to the working directory)"
        )
    return folder


def _by_stem(folder: Path, spec: AdaptedData) -> dict[str, tuple[Path, ...]]:
    found: dict[str, tuple[Path, ...]] = {}
    for path in sorted(folder.iterdir()):
        stem, files = _nifti_file(path) if spec.kind == "nifti" else _image_files(path)
        if not files or path.name.startswith("."):
            continue
        if stem in found:
            raise BenchError(f"{path}: {found[stem][0].name} has the same name but for its ending; keep one of the two")
        found[stem] = files
    return found


def _nifti_file(path: Path) -> tuple[str, tuple[Path, ...]]:
    suffix = next((s for s in nifti.SUFFIXES if path.name.lower().endswith(s)), None)
    return (path.name[: -len(suffix)], (path,)) if suffix and path.is_file() else ("", ())


def _image_files(path: Path) -> tuple[str, tuple[Path, ...]]:
    from harness.data import images

    if path.is_dir():
        return path.name, tuple(images.slices_of(path))
    return (path.stem, (path,)) if path.suffix.lower() in images.SUFFIXES else ("", ())


def _incomplete(source: Source, spec: AdaptedData) -> bool:
    return source.label is None and (spec.truth is not None or source.boxes is None)


def _missing(sources: list[Source], spec: AdaptedData, total: int) -> str:
    first = sources[0]
    rest = f" (and those of {len(sources) - 1} more of {total} images)" if len(sources) > 1 else ""
    if spec.truth is None:
        return (
            f"{first.image[0]}: has neither a label map nor boxes{rest}; set `truth`, or `boxes` with {first.stem}.json"
        )
    return (
        f"{first.image[0]}: its label map is missing in {spec.truth}{rest}; name it like the image, or remove the image"
    )
