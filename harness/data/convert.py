"""Data sets from one format to another: challenge npz, NIfTI, PNG and TIFF, without loss; whole files, resumable.

The target holds ``conversion.json``: for every source the digest of what it was made from and of what was made.  A
second conversion skips what is there and equal, so one that was stopped goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from harness.config import canonical
from harness.data.case import Case, read_case, save_case, write_whole
from harness.data.folder import Progress, case_files, file_digest, summary
from harness.data.materialise import alone
from harness.data.sources import list_sources, read_source
from harness.errors import BenchError

if TYPE_CHECKING:
    from harness.config import AdaptedData, StoredData

Form = Literal["npz", "nifti", "png", "tiff"]
FORMS: Final[tuple[Form, ...]] = ("npz", "nifti", "png", "tiff")
MANIFEST: Final = "conversion.json"
_VERSION: Final = 1
_EVERY_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Item:
    """One case to be: its files, and how it is read."""

    stem: str
    files: tuple[Path, ...]
    load: Callable[[], Case]


@dataclass
class Conversion:
    """What a conversion did: cases written and cases found equal."""

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def items_of(spec: StoredData, *, complete: bool = True) -> list[Item]:
    """The cases of a data set, sorted by stem, nothing read yet.

    Raises:
        BenchError: a folder is missing or empty; ``complete``: an image has neither label map nor boxes.
    """
    if spec.kind == "npz":
        truth = None if spec.truth is None else Path(spec.truth).expanduser()
        files = case_files(Path(spec.path).expanduser())
        return [_npz_item(path, truth) for path in files]
    sources = list_sources(spec, complete=complete)
    return [Item(source.stem, tuple(source.files), partial(read_source, source, spec)) for source in sources]


def convert(
    spec: StoredData, target: Path, form: Form, progress: Progress | None = None, *, replace: bool = False
) -> Conversion:
    """Write the cases of a data set in another format into a folder.

    ``npz``: NAME.npz.  Others: ``images`` and ``labels`` with NAME.nii.gz, NAME.png or NAME.tiff (a volume as PNG is a
    folder of slices), and ``boxes`` with NAME.json.  Files appear whole; equal ones are kept.

    Args:
        replace: overwrite files that another program or conversion left in the target.

    Raises:
        BenchError: the sources cannot be listed; or some cannot be read, named together when all others are done; or
            the target holds something else.
    """
    items = items_of(spec)
    target = Path(target).expanduser()
    with alone(target):
        return _Run(spec, target, form, replace).all(items, progress)


def converted(spec: AdaptedData, cache: Path, progress: Progress | None = None) -> Path:
    """The folder of challenge npz files made from a data set, in the cache; made if it is not there.

    Its name follows from the content of the files and the settings, so it is never out of date.

    Raises:
        BenchError: as ``convert``.
    """
    items = items_of(spec)
    digests = FileDigests(Path(cache), Path(spec.path))
    listing = [[item.stem, _source_digest(item, digests)] for item in items]
    digests.save()
    key = sha256(json.dumps([listing, _settings(spec, "npz")], sort_keys=True).encode()).hexdigest()
    folder = Path(cache).resolve() / f"{spec.kind}-{key[:16]}"
    done = folder / ".complete"
    if not done.is_file():
        convert(spec, folder, "npz", progress)
        write_whole(done, lambda stream: stream.write(key.encode()))
    return folder


class FileDigests:
    """SHA-256 of files, remembered by path, size and times, so that unchanged files are read once."""

    def __init__(self, cache: Path, of: Path) -> None:
        self._path = cache / f"digests-{sha256(str(of.resolve()).encode()).hexdigest()[:16]}.json"
        self._started = time.time_ns()
        self._known: dict[str, list[Any]] = {}
        self._seen: dict[str, list[Any]] = {}
        try:
            self._known = dict(json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            self._known = {}  # it can be made again

    def of(self, path: Path) -> str:
        """SHA-256 (hex) of a file's content."""
        try:
            status = path.stat()
            stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
            known = self._known.get(str(path.resolve()))
            digest = str(known[3]) if known and known[:3] == stamp else file_digest(path)
        except OSError as error:
            raise BenchError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
        # A file written within one tick of the clock could change again without a new time.
        if max(stamp) < self._started - 50_000_000:
            self._seen[str(path.resolve())] = [*stamp, digest]
        return digest

    def save(self) -> None:
        """Write what is known, if anything is new."""
        if self._seen != self._known:
            text = json.dumps(self._seen)
            write_whole(self._path, lambda stream: stream.write(text.encode()))


def encoded(case: Case, form: Form) -> dict[str, bytes]:
    """The files of a case by their path below the target; equal cases give equal bytes."""
    if form == "npz":
        stream = BytesIO()
        save_case(case, stream)
        return {f"{case.name}.npz": stream.getvalue()}
    stated: dict[str, Any] = {"boxes": case.boxes.tolist()}
    if form != "nifti" or case.spacing_xyz is None:
        stated["spacing"] = case.spacing_xyz
    files = {f"boxes/{case.name}.json": (json.dumps(stated) + "\n").encode()}
    grey = case.ndim == 3 or bool((case.image == case.image[..., :1]).all())
    image = case.image if case.ndim == 3 or not grey else case.image[..., 0]
    files |= _picture(f"images/{case.name}", image, case, form, colour=not grey)
    if case.truth is not None:
        labels = case.truth.astype(np.uint8) if int(case.truth.max()) <= 255 else case.truth
        files |= _picture(f"labels/{case.name}", labels, case, form, colour=False)
    return files


def _picture(path: str, values: Any, case: Case, form: Form, *, colour: bool) -> dict[str, bytes]:
    from harness.data import images, nifti

    if form == "nifti":
        return {f"{path}.nii.gz": nifti.nifti_bytes(values, case.spacing_xyz, colour=colour)}
    if form == "tiff":
        return {f"{path}.tiff": images.tiff_bytes(values, volume=case.ndim == 3)}
    if case.ndim == 2:
        return {f"{path}.png": images.png_bytes(values)}
    return {f"{path}/{z:04d}.png": images.png_bytes(layer) for z, layer in enumerate(values)}


def _npz_item(path: Path, truth: Path | None) -> Item:
    files = (path,) if truth is None else (path, truth / path.name)
    return Item(path.stem, files, lambda: read_case(path, truth))


def _source_digest(item: Item, digests: FileDigests | None = None) -> str:
    each = [[file.name, digests.of(file) if digests else _digest_of(file)] for file in item.files]
    return sha256(json.dumps(each).encode()).hexdigest()


def _digest_of(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise BenchError(f"{path}: cannot be read ({error.strerror}); check its name and permissions") from error


def _settings(spec: StoredData, form: Form) -> str:
    """Digest of what decides the result besides the files: fields, format, and the source of the adapters."""
    data = {k: v for k, v in canonical(spec).items() if k not in ("path", "truth", "boxes", "split")}
    here = Path(__file__).parent
    names = ("case", "convert", "images", "intensity", "nifti", "objects", "sources")
    code = [sha256((here / f"{name}.py").read_bytes()).hexdigest() for name in names]
    return sha256(json.dumps([data, form, code], sort_keys=True).encode()).hexdigest()


class _Run:
    """One conversion: what is known of the target, and what has been done."""

    def __init__(self, spec: StoredData, target: Path, form: Form, replace: bool) -> None:
        self.target, self.form, self.replace = target, form, replace
        self.settings = _settings(spec, form)
        self.known = self._read()
        self.made: dict[str, str] = {}
        self.saved = time.monotonic()
        self.result = Conversion()

    def all(self, items: list[Item], progress: Progress | None) -> Conversion:
        problems = []
        for number, item in enumerate(items):
            if progress is not None:
                progress(number / len(items), item.stem)
            try:
                self._one(item)
            except BenchError as error:
                problems.append(str(error))
        self._save()
        if problems:
            raise BenchError(summary(self.target, problems, len(items), "cases could not be written"))
        return self.result

    def _one(self, item: Item) -> None:
        source = sha256(f"{_source_digest(item)} {self.settings}".encode()).hexdigest()
        entry = self.known.get(item.stem)
        if entry and entry["source"] == source and self._intact(entry["files"]):
            self.made |= dict.fromkeys(entry["files"], item.stem)
            self.result.kept.append(item.stem)
            return
        before = entry["files"] if entry else {}
        files = encoded(item.load(), self.form)
        changed = [self._put(path, data, before, item.stem) for path, data in files.items()]
        digests = {path: sha256(data).hexdigest() for path, data in files.items()}
        self.known[item.stem] = {"source": source, "files": digests}
        (self.result.written if any(changed) else self.result.kept).append(item.stem)
        if time.monotonic() - self.saved > _EVERY_SECONDS:
            self._save()

    def _put(self, name: str, data: bytes, before: dict[str, str], stem: str) -> bool:
        path = self.target / name
        if self.made.setdefault(name, stem) != stem:
            raise BenchError(f"{path}: would be made of both {self.made[name]} and {stem}; rename one of the two")
        if path.is_file():
            there = file_digest(path)
            if there == sha256(data).hexdigest():
                return False
            if there != before.get(name) and not self.replace:
                raise BenchError(f"{path}: holds something else; choose an empty folder, or give --replace")
        write_whole(path, lambda stream: stream.write(data))
        return True

    def _intact(self, files: dict[str, str]) -> bool:
        try:
            return all(file_digest(self.target / name) == digest for name, digest in files.items())
        except OSError:
            return False

    def _read(self) -> dict[str, dict[str, Any]]:
        # A manifest that cannot be read costs time, not correctness: files are compared with what would be written.
        try:
            data = json.loads((self.target / MANIFEST).read_text(encoding="utf-8"))
            return dict(data["cases"]) if data["version"] == _VERSION else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _save(self) -> None:
        text = json.dumps({"version": _VERSION, "cases": self.known}, indent=1)
        write_whole(self.target / MANIFEST, lambda stream: stream.write(text.encode()))
        self.saved = time.monotonic()
