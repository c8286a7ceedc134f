"""The adapter of a folder of npz files: sorted names, a digest a case, all header problems at once.

What a file declares is read once and kept in an index in the cache, addressed by the file's path, size and times, so
that opening the same folder again costs a directory listing.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.data.case import check_truth_headers, inspect_header, ndim_of, write_whole
from harness.data.npz import read_headers
from harness.errors import BenchError

Progress = Callable[[float, str], None]

_INDEX_VERSION = 1
_SPELLED_OUT = 5
_SETTLED_NS = 50_000_000


@dataclass(frozen=True)
class Entry:
    """One case file as the index knows it.

    ``digest`` is the SHA-256 of the file, or, with a truth file beside it, of the two files' digests.  ``stamp`` holds
    size and times (ns) of both files; ``problem`` a sentence if the file cannot be a case.
    """

    name: str
    digest: str
    stamp: tuple[int, ...]
    modality: str = ""
    ndim: int = 2
    shape: tuple[int, ...] = ()
    objects: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class Folder:
    """A folder of cases.

    Attributes:
        path, truth: the folders.
        entries: sorted by name.
        digest: SHA-256 over names and case digests; where the folder lies does not enter.
        notes: remarks such as cases of equal content.
    """

    path: Path
    truth: Path | None
    entries: tuple[Entry, ...]
    digest: str
    notes: tuple[str, ...]


def open_folder(path: Path, truth: Path | None, cache: Path, progress: Progress | None = None) -> Folder:
    """List, check and hash the cases of a folder.

    Raises:
        BenchError: a folder is missing or holds no npz file, or files cannot be cases; all of them are named in one
            message, the first few with their reason.
    """
    entries = index_folder(path, truth, cache, progress)
    problems = [entry.problem for entry in entries if entry.problem]
    if problems:
        raise BenchError(summary(path, problems, len(entries), "files are no usable cases; mend or remove them"))
    return folder_of(path, truth, entries)


def folder_of(path: Path, truth: Path | None, entries: tuple[Entry, ...]) -> Folder:
    """A folder of these entries, with the digest that follows from their names and contents."""
    listing = json.dumps([[entry.name, entry.digest] for entry in entries], separators=(",", ":"))
    return Folder(path, truth, entries, sha256(listing.encode()).hexdigest(), _duplicates(entries))


def index_folder(path: Path, truth: Path | None, cache: Path | None, progress: Progress | None) -> tuple[Entry, ...]:
    """The entries of a folder, with problems as data; read from the index where the files are unchanged."""
    files = case_files(path)
    if truth is not None and not truth.is_dir():
        raise BenchError(f"{truth}: the folder of the ground truth does not exist; check `truth` of the data set")
    index = None if cache is None else _index_path(path, truth, cache)
    known = {} if index is None else _read_index(index)
    entries: list[Entry] = []
    started = time.time_ns()
    for number, file in enumerate(files):
        other = None if truth is None else truth / file.name
        stamp = _stamp(file, other)
        entry = known.get(file.stem)
        if entry is None or entry.stamp != stamp:
            if progress is not None:
                progress(number / len(files), f"checking {file.name}")
            entry = _examine(file, other, stamp)
        entries.append(entry)
    if index is not None and any(known.get(entry.name) is not entry for entry in entries):
        _write_index(index, [entry for entry in entries if _settled(entry, started)])
    return tuple(entries)


def case_files(path: Path) -> list[Path]:
    """The npz files of a folder by name; hidden files are left out.

    Raises:
        BenchError: the folder is missing, is no folder, or holds no npz file.
    """
    if not path.exists():
        raise BenchError(f"{path}: no such folder; check `path` of the data set (relative to the working directory)")
    if not path.is_dir():
        raise BenchError(f"{path}: is not a folder; give the folder that holds the npz files")
    files = sorted((f for f in path.glob("*.npz") if not f.name.startswith(".")), key=lambda f: f.stem)
    if not files:
        raise BenchError(f"{path}: holds no npz file; put the cases there or write some with `bench data make`")
    return files


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's content."""
    digest = sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _examine(file: Path, other: Path | None, stamp: tuple[int, ...]) -> Entry:
    try:
        header = inspect_header(file)
        digest = file_digest(file)
        if other is not None:
            if not other.is_file():
                raise BenchError(
                    f"{other}: the ground truth of case {file.stem} is missing; add it or leave out `truth`"
                )
            check_truth_headers(other, read_headers(other), header.shape[: header.ndim])
            digest = sha256(f"{digest} {file_digest(other)}".encode()).hexdigest()
    except BenchError as error:
        return Entry(file.stem, "", stamp, ndim=ndim_of(file.stem), problem=str(error))
    except OSError as error:
        return Entry(file.stem, "", stamp, problem=f"{file}: cannot be read ({error.strerror}); check its permissions")
    return Entry(file.stem, digest, stamp, header.modality, header.ndim, header.shape, header.objects)


def _stamp(file: Path, other: Path | None) -> tuple[int, ...]:
    # The change time cannot be set back by a program that restores the modification time, so it is part of the stamp.
    stamp: list[int] = []
    for path in (file, other):
        if path is None:
            continue
        try:
            status = path.stat()
        except OSError:
            stamp.append(-1)
            continue
        stamp += [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return tuple(stamp)


def _settled(entry: Entry, started: int) -> bool:
    # A file written within one tick of the clock before it was hashed could change again without a new time.
    return entry.problem is None and max(entry.stamp) < started - _SETTLED_NS


def _index_path(path: Path, truth: Path | None, cache: Path) -> Path:
    key = sha256(f"{path.resolve()}\0{truth.resolve() if truth else ''}".encode()).hexdigest()[:16]
    return cache / f"folder-{key}.json"


def _read_index(index: Path) -> dict[str, Entry]:
    # The index can be made again, so one that cannot be read counts as absent.
    try:
        data: dict[str, Any] = json.loads(index.read_text(encoding="utf-8"))
        if data["version"] != _INDEX_VERSION:
            return {}
        rows = (row | {"stamp": tuple(row["stamp"]), "shape": tuple(row["shape"])} for row in data["entries"])
        return {entry.name: entry for entry in (Entry(**row) for row in rows)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write_index(index: Path, entries: list[Entry]) -> None:
    text = json.dumps({"version": _INDEX_VERSION, "entries": [asdict(entry) for entry in entries]})
    write_whole(index, lambda stream: stream.write(text.encode()))


def summary(path: Path, problems: list[str], total: int, what: str) -> str:
    """One message of several problems: the only one as it is, else the first few and how many more there are."""
    if len(problems) == 1:
        return problems[0]
    listed = "".join(f"\n  {problem}" for problem in problems[:_SPELLED_OUT])
    rest = len(problems) - _SPELLED_OUT
    more = f"\n  and {rest} more; `bench data inspect` lists them all" if rest > 0 else ""
    return f"{path}: {len(problems)} of {total} {what}:{listed}{more}"


def _duplicates(entries: tuple[Entry, ...]) -> tuple[str, ...]:
    counts = Counter(entry.digest for entry in entries)
    notes = []
    for digest, count in counts.items():
        if count > 1:
            names = [entry.name for entry in entries if entry.digest == digest]
            notes.append(f"{', '.join(names)} have the same content")
    return tuple(notes)
