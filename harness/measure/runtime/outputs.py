"""The files that go into a sandbox and come out of it: the challenge's contract, checked."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.data.case import inspect_header, ndim_of
from harness.data.npz import read_arrays, read_headers
from harness.errors import BenchError

PROMPT_FIELDS: Final = ("imgs", "boxes", "spacing")
"""What a measured program may see of a case: everything but the ground truth."""

OUTPUT_LIMIT: Final = 2 * 1024**3
"""Bytes an output file may declare."""

KEPT_BYTES: Final = 2 * 1024**3
"""Bytes of prepared cases that a process keeps on the disk."""

LISTED: Final = 20
"""Files left behind that are named one by one."""
_LITTLE_SPACE = 1 << 16


def stage(case_file: Path, folder: Path) -> Path:
    """Put a case alone into the empty ``folder``, readable by everyone and without its ground truth.

    Returns:
        The staged file, of the same name: always a copy, warm in the page cache; the program may write to it.

    Raises:
        BenchError: the case file is not a case (see ``harness.data.case.inspect_header``).
    """
    source = _PREPARED.file(case_file)
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / case_file.name
    shutil.copyfile(source, staged)
    staged.chmod(0o644)
    folder.chmod(0o755)
    return staged


class _Prepared:
    """Cases of this process made ready to be staged: checked, and those with other fields rewritten without them.

    A case is told by its path, size and time of change.  The files lie in a private folder that is removed when the
    process ends, ``KEPT_BYTES`` of them at most.
    """

    def __init__(self) -> None:
        self._files: dict[tuple[str, int, int], Path] = {}
        self._folder: Path | None = None
        self._owner = 0

    def file(self, case_file: Path) -> Path:
        """What to stage of a case: a file without other fields, which is the case itself if it has none.

        Raises:
            BenchError: see ``stage``.
        """
        if self._owner != os.getpid():  # a child of fork must not remove its parent's files
            self._files, self._folder, self._owner = {}, None, os.getpid()
        key = (str(case_file), *_state(case_file))
        found = self._files.get(key)
        if found is None or not found.exists():
            inspect_header(case_file)
            self._make_room(case_file)
            found = self._files[key] = self._without_others(case_file)
        return found

    def _without_others(self, case_file: Path) -> Path:
        with zipfile.ZipFile(case_file) as source:
            wanted = [info for info in source.infolist() if info.filename.removesuffix(".npy") in PROMPT_FIELDS]
            if len(wanted) == len(source.infolist()):
                return case_file
            descriptor, name = tempfile.mkstemp(suffix=".npz", dir=self._place())
            with os.fdopen(descriptor, "wb") as stream, zipfile.ZipFile(stream, "w") as target:
                for info in wanted:
                    with source.open(info) as reading, target.open(_like(info), "w") as writing:
                        shutil.copyfileobj(reading, writing, 1 << 20)
        return Path(name)

    def _place(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="bench-staged-"))
            atexit.register(_remove_folder, self._folder, os.getpid())
        return self._folder

    def _make_room(self, case_file: Path) -> None:
        """Forget this case as it was, and the oldest ones where there are too many."""
        for key in [key for key in self._files if key[0] == str(case_file)]:
            self._forget(key)
        sizes = {key: _state(path)[0] for key, path in self._files.items() if path.parent == self._folder}
        for key, size in list(sizes.items()):
            if sum(sizes.values()) <= KEPT_BYTES:
                return
            self._forget(key)
            sizes[key] -= size

    def _forget(self, key: tuple[str, int, int]) -> None:
        path = self._files.pop(key)
        if path.parent == self._folder:
            path.unlink(missing_ok=True)


def _remove_folder(folder: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


_PREPARED = _Prepared()


def _like(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(info.filename)
    member.compress_type = info.compress_type
    member.file_size = info.file_size  # tells zipfile whether the 64-bit layout is needed
    return member


@dataclass(frozen=True)
class Staged:
    """A staged case as it was before the run: to tell whether a program that may write to it did."""

    file: Path
    state: tuple[int, int]

    @classmethod
    def of(cls, file: Path) -> Staged:
        """The file as it is now."""
        return cls(file, _state(file))

    @property
    def changed(self) -> bool:
        """Whether the program wrote to it or took it away."""
        return _state(self.file) != self.state


def _state(file: Path) -> tuple[int, int]:
    try:
        found = file.lstat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def left_behind(staged: Staged, output_folder: Path, asked_for: str | None = None) -> list[dict[str, Any]]:
    """What a run left in its mounted folders besides its output: ``name`` and ``bytes`` of every file, largest first.

    The notes of our own worker (``.bench``) are asked for: where it ran, pass them as ``asked_for``.
    Links are named, not followed.  Beyond ``LISTED`` files the last entry stands for the rest.
    """
    inputs = staged.file.parent
    found = [(f"inputs/{name}", size) for name, size in _files(inputs) if name != staged.file.name]
    if staged.changed:
        found.append((f"inputs/{staged.file.name} (changed)", max(0, _state(staged.file)[0])))
    written = [entry for entry in _files(output_folder) if entry[0] != staged.file.name]
    found += [(f"outputs/{name}", size) for name, size in written if name.partition("/")[0] != asked_for]
    found.sort(key=lambda entry: (-entry[1], entry[0]))
    rows = [{"name": name, "bytes": size} for name, size in found[:LISTED]]
    rest = found[LISTED:]
    return rows + ([{"name": f"and {len(rest)} more", "bytes": sum(size for _, size in rest)}] if rest else [])


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    """Path below the folder and bytes of everything in it but folders that hold something."""
    for place, folders, files in os.walk(folder):
        for name in [*files, *(f for f in folders if _alone(Path(place, f)))]:
            path = Path(place, name)
            yield path.relative_to(folder).as_posix(), max(0, _state(path)[0]) if name in files else 0


def _alone(folder: Path) -> bool:
    """Whether it is a link or an empty folder: nothing below it will be named."""
    try:
        return folder.is_symlink() or not any(folder.iterdir())
    except OSError:
        return True


def output_problem(case_file: Path, output_folder: Path) -> str | None:
    """What is wrong with the output of a case, or ``None``.

    The output is an npz of the case's name with ``segs``: a label map (H,W) or (D,H,W) of whole numbers between 0 and
    the number of boxes.
    """
    problem = _problem(case_file, output_folder / case_file.name)
    if problem and _full(output_folder):
        return f"{problem}; No space left on device: the disk of the output folder is full"
    return problem


def _full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _LITTLE_SPACE
    except OSError:
        return False


def _problem(case_file: Path, output: Path) -> str | None:
    if output.is_symlink():
        return f"{output.name}: is a link, the contract asks for a file"
    if not output.is_file():
        return f"no output: {case_file.name} is missing in the output folder"
    try:
        case = inspect_header(case_file)
        headers = read_headers(output, limit=OUTPUT_LIMIT)
        if "segs" not in headers:
            return f"{output.name}: field 'segs' is missing, the file has {', '.join(headers) or 'nothing'}"
        shape, dtype = headers["segs"].shape, headers["segs"].dtype
        expected = case.shape[: ndim_of(case.name)]
        if shape != expected:
            return f"{output.name}: 'segs' has shape {shape}, the case needs {expected}"
        if dtype.kind not in "ui":
            return (
                f"{output.name}: 'segs' has dtype {dtype}, the contract asks for whole numbers such as uint8 or uint16"
            )
        segs = read_arrays(output, ("segs",), limit=OUTPUT_LIMIT)["segs"]
    except BenchError as error:
        return str(error).replace(f"{output}", output.name)
    low, high = int(segs.min()), int(segs.max())
    if low < 0 or high > case.objects:
        return f"{output.name}: 'segs' holds labels {low}..{high}, the case has {case.objects} boxes"
    return None
