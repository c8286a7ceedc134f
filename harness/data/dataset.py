"""A data set: a named, ordered, hashed collection of cases, whatever it is made from.

``open_dataset`` returns the same kind of object for phantoms, for a folder of npz files, and for NIfTI files and
images, which are converted to npz files in the cache first: a folder on disk, one entry a case, and a digest of
everything that decides the cases' content.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from harness.data.case import Case, read_case
from harness.data.folder import Entry, Folder, Progress, folder_of, open_folder
from harness.errors import BenchError
from harness.schema import MODALITIES

if TYPE_CHECKING:
    from harness.config import DataSetSpec, GeneratedData, StoredData, Subset
    from harness.data.materialise import ManifestEntry


@dataclass(frozen=True)
class CaseInfo:
    """What is known of a case without reading it.

    ``shape`` is that of the stored image, ``objects`` the number of boxes, ``digest`` the SHA-256 of the content.
    """

    name: str
    modality: str
    ndim: int
    shape: tuple[int, ...]
    objects: int
    digest: str
    path: Path

    @property
    def voxels(self) -> int:
        """Pixels or voxels, channels not counted."""
        return prod(self.shape if self.ndim == 3 else self.shape[:2])


@dataclass(frozen=True)
class DataSet:
    """Cases in a folder of challenge npz files.

    Attributes:
        name: ``phantoms``, ``workload`` or the folder's name.
        digest: changes whenever the content of a case could have changed.
        cases: in the order of the data set.
        path: the folder; phantoms are written there first.
        truth: folder of the ground truth if it lies apart.
        notes: remarks, e.g. cases of equal content.
    """

    name: str
    digest: str
    cases: list[CaseInfo]
    path: Path
    truth: Path | None = None
    notes: tuple[str, ...] = ()

    def load(self, name: str) -> Case:
        """Read one case.

        Raises:
            BenchError: no case of that name, or its file cannot be read.
        """
        for info in self.cases:
            if info.name == name:
                return read_case(info.path, self.truth)
        raise BenchError(f"data set {self.name}: no case is called '{name}'{self._suggestion(name)}")

    def select(self, subset: Subset | None) -> list[CaseInfo]:
        """The cases of a subset: all, those matching names and patterns, or a spread over the groups.

        Names and patterns keep the order of the data set.  ``spread`` takes cases in turn from the groups of
        modality × dimension: every modality once before any modality's second dimension; within a group the smallest
        (voxels × objects) first.  It gives all cases where it asks for more than there are.

        Raises:
            BenchError: a name or pattern matches no case.
        """
        if subset is None:
            return list(self.cases)
        if subset.spread is not None:
            return _spread(self.cases, subset.spread)
        chosen: set[str] = set()
        for pattern in subset.names:
            matches = {info.name for info in self.cases if fnmatchcase(info.name, pattern.removesuffix(".npz"))}
            if not matches:
                raise BenchError(
                    f"data set {self.name}: subset pattern '{pattern}' matches none of its {len(self.cases)} cases"
                    f"{self._suggestion(pattern)}"
                )
            chosen |= matches
        return [info for info in self.cases if info.name in chosen]

    def _suggestion(self, name: str) -> str:
        names = [info.name for info in self.cases]
        close = difflib.get_close_matches(name.removesuffix(".npz"), names, n=1, cutoff=0.5)
        hint = close[0] if close else names[0]
        return f"; did you mean '{hint}'?" if close else f"; its cases are called like '{hint}'"


def open_dataset(
    spec: DataSetSpec, cache: Path, progress: Progress | None = None, expected: str | None = None
) -> DataSet:
    """Open a data set; phantoms that are not in the cache yet are generated into it.

    Args:
        spec: what a suite says about the data set.
        cache: folder for derived files.
        progress: called with a fraction 0..1 and a message while files are checked or generated.
        expected: digest the data set had when the job was planned.

    Raises:
        BenchError: the folder is missing or empty, or holds files that cannot be cases; the cache cannot be written;
            parts of a split share an image; the data are not those of the plan.
    """
    found = _found(spec, cache, progress)
    if expected is not None and found.digest != expected:
        raise BenchError(f"{found.path}: the data set has changed since the run was planned; run the suite again")
    return found


def _found(spec: DataSetSpec, cache: Path, progress: Progress | None) -> DataSet:
    if spec.kind == "phantoms" or spec.kind == "workload":
        return _generated(spec, cache, progress)
    folder = _open(spec, cache, progress)
    # Absolute, because cases are also read by processes with another working directory.
    path, truth = folder.path.resolve(), None if folder.truth is None else folder.truth.resolve()
    name = Path(spec.path).expanduser().resolve().name
    return DataSet(name, folder.digest, _infos(folder.entries, path), path, truth, folder.notes)


def _generated(spec: GeneratedData, cache: Path, progress: Progress | None) -> DataSet:
    from harness.data.materialise import materialise, phantoms_digest

    digest = phantoms_digest(spec)
    path = Path(cache).resolve() / f"{spec.kind}-{digest[:16]}"
    manifest = materialise(spec, path, progress)
    return DataSet(spec.kind, digest, _infos(manifest.entries, path), path)


def dataset_digest(spec: DataSetSpec, cache: Path) -> str:
    """The digest ``open_dataset`` would give, cheaply: nothing is generated, unchanged files are not read again.

    Phantoms: the specification, the source of the generator and the major versions of the libraries it computes with.
    Folder: names and contents of the npz files, of those that the others are converted to, and of the part asked for.
    """
    if spec.kind == "phantoms" or spec.kind == "workload":
        from harness.data.materialise import phantoms_digest

        return phantoms_digest(spec)
    return _open(spec, cache, None).digest


def _infos(entries: Iterable[Entry | ManifestEntry], path: Path) -> list[CaseInfo]:
    return [CaseInfo(e.name, e.modality, e.ndim, e.shape, e.objects, e.digest, path / f"{e.name}.npz") for e in entries]


def _open(spec: StoredData, cache: Path, progress: Progress | None) -> Folder:
    if spec.kind == "npz":
        truth = None if spec.truth is None else Path(spec.truth).expanduser()
        folder = open_folder(Path(spec.path).expanduser(), truth, Path(cache), progress)
    else:
        from harness.data.convert import converted

        folder = open_folder(converted(spec, Path(cache), progress), None, Path(cache), progress)
    if spec.split is None:
        return folder
    from harness.data.splits import part_of

    names = set(part_of(folder, spec.split, Path(cache), progress))
    return folder_of(folder.path, folder.truth, tuple(entry for entry in folder.entries if entry.name in names))


def _spread(cases: list[CaseInfo], count: int) -> list[CaseInfo]:
    groups: dict[tuple[str, int], list[CaseInfo]] = {}
    for info in sorted(cases, key=lambda c: (c.voxels * c.objects, c.name)):
        groups.setdefault((info.modality, info.ndim), []).append(info)
    order = {modality: rank for rank, modality in enumerate(MODALITIES)}

    def rank(group: tuple[str, int]) -> tuple[int, int, str]:
        modality, ndim = group
        second = ndim == 3 and (modality, 2) in groups
        return int(second), order.get(modality, len(order)), modality

    queues = [groups[group] for group in sorted(groups, key=rank)]
    longest = max(map(len, queues), default=0)
    turns = [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
    return turns[:count]
