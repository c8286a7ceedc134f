"""A store of embeddings on disk: sharded, memory-mapped float32 arrays of one shape, addressed by text keys.

``v1-256x64x64-64/00000.f32`` is a shard: entries of one size, one after another, 64 of them when it is complete.
``index`` has a line for every entry: a checksum of the line, key, place of the entry, checksum of the entry.  Format,
shape and entries of a shard are in the folder's name, so a store of another kind is never read as this one.

An entry exists from the moment its line is whole.  Places are never used again, neither of an entry that turned out
damaged nor of one whose line was never written, so what a process has read once stays where it is.  CRC-32 finds every
change of up to 32 adjacent bits and misses one in 2**32 others; an entry of 4 MiB takes it 0.6 ms.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.files import replacing, sync_folder
from harness.locks import file_lock

FORMAT = 1
Compute = Callable[[list[int]], NDArray[np.float32]]
_FLOAT = np.dtype("<f4")
_log = logging.getLogger(__name__)


class _Entry(NamedTuple):
    place: int
    checksum: int


class EmbeddingStore:
    """Embeddings that are computed once; see the module for what lies where.

    Several processes may use one folder at a time: they append under a lock and find each other's entries.  What is
    damaged is computed and stored again; where storing fails (the disk is full, say) the store goes on without it.
    An entry is verified when a process first reads it.

    Args:
        folder: made when the first entry is stored.
        shape: of every entry.
        shard: entries of a file.

    Attributes:
        rebuilt: entries that were found damaged and stored anew, and damaged lines of the index that were removed.
        notes: sentences about damage and about storing that failed; they are logged as warnings, too.
    """

    _head: bytes  # first line of the index
    _position: int  # bytes of it that were read
    _torn: bool  # it ends within a line
    _bad_lines: int
    _used: int  # places up to the last one that a line has named
    _entries: dict[str, _Entry]
    _verified: set[int]
    _maps: dict[int, NDArray[np.float32]]

    def __init__(self, folder: Path, shape: tuple[int, ...], shard: int = 64) -> None:
        if not shape or min(shape) < 1 or shard < 1:
            raise ValueError(f"an embedding store needs a shape and shards of at least 1, not {shape} and {shard}")
        self.folder, self.shape, self.shard = folder, shape, shard
        self.rebuilt = 0
        self.notes: list[str] = []
        self._root = folder / f"v{FORMAT}-{'x'.join(map(str, shape))}-{shard}"
        self._index = self._root / "index"
        self._size = prod(shape) * _FLOAT.itemsize
        self._storing = True
        self._damaged: set[str] = set()  # keys whose entry has to be stored anew
        self._forget()

    def get(self, keys: Sequence[str], compute: Compute) -> NDArray[np.float32]:
        """The embeddings of the keys: (len(keys), *shape), in memory of their own.

        Args:
            keys: may repeat.
            compute: places in ``keys`` → (n, *shape); called at most once, with the first place of every key that
                the store does not have.

        Raises:
            ValueError: ``compute`` gives another shape.
        """
        self._look()
        known = len(self._damaged)
        places: dict[str, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)
        out = np.empty((len(keys), *self.shape), np.float32)
        missing = [key for key, where in places.items() if not self._read(key, out[where[0]])]
        if found := len(self._damaged) - known:
            self._note(f"Damaged embeddings in {self._root}: {found}; they are computed again.")
        if missing:
            first = [places[key][0] for key in missing]
            out[first] = made = self._checked(compute(first), len(first))
            self._store(dict(zip(missing, made, strict=True)))
        for where in places.values():
            out[where[1:]] = out[where[0]]
        return out

    def __len__(self) -> int:
        """Entries on disk, those of other processes included."""
        self._look()
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Size of the shards on disk, bytes."""
        return sum(path.stat().st_size for path in self._shards())

    # --- reading

    def _read(self, key: str, out: NDArray[np.float32]) -> bool:
        """Copy an entry to ``out``; whether there is a sound one."""
        entry = self._entries.get(key)
        if entry is None:
            return False
        mapped = self._mapped(entry.place)
        if mapped is not None:
            out[...] = mapped
            if entry.place in self._verified or zlib.crc32(out.data) == entry.checksum:
                self._verified.add(entry.place)
                return True
        del self._entries[key]
        self._damaged.add(key)
        return False

    def _mapped(self, place: int) -> NDArray[np.float32] | None:
        """The memory map of an entry, or nothing where its file is too short: touching such a map ends the process."""
        number, row = divmod(place, self.shard)
        try:
            rows = self._rows(number)
            if row >= rows:
                self._maps.pop(number, None)
                return None
            if number not in self._maps or row >= len(self._maps[number]):
                self._maps[number] = np.memmap(self._shard(number), _FLOAT, "r", shape=(rows, *self.shape))
        except (OSError, ValueError):
            return None
        entry: NDArray[np.float32] = self._maps[number][row]
        return entry

    def _shard(self, number: int) -> Path:
        return self._root / f"{number:05d}.f32"

    def _shards(self) -> list[Path]:
        found = (path for path in self._root.glob("*.f32") if path.stem.isdecimal())
        return sorted(found, key=lambda path: int(path.stem))

    # --- the index

    def _look(self) -> None:
        """Read what was added to the index since the last look."""
        try:
            self._catch_up()
        except OSError as error:
            self._stop(error)

    def _catch_up(self) -> None:
        """Take in the lines after the last one known; all of them if this is another index than last time."""
        try:
            stream = self._index.open("rb")
        except FileNotFoundError:
            self._forget()
            return
        with stream:
            head = stream.readline()
            if head != self._head or os.fstat(stream.fileno()).st_size < self._position:
                self._forget()
                self._head, self._position = head, len(head)
            stream.seek(self._position)
            added = stream.read()
        whole = added[: added.rfind(b"\n") + 1]
        self._torn = len(whole) < len(added) or not head.endswith(b"\n")
        self._position += len(whole)
        bad = sum(not self._take(line) for line in whole.split(b"\n")[:-1])
        if bad:
            self._bad_lines += bad
            self._note(f"Damaged lines in {self._index}: {bad}; what they named is computed again.")

    def _take(self, line: bytes) -> bool:
        """Take in one line; whether it is sound.  The last line of a key holds."""
        checksum, _, body = line.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(body):
            return False
        key, *entry = json.loads(body)
        self._entries[key] = _Entry(*entry)
        self._used = max(self._used, self._entries[key].place + 1)
        return True

    def _forget(self) -> None:
        """Know nothing of what is on disk."""
        self._head, self._position, self._torn, self._bad_lines, self._used = b"", 0, False, 0, 0
        self._entries, self._verified, self._maps = {}, set(), {}

    def _renew_index(self) -> None:
        """Write the index with its sound lines alone; without any, the shards go, too.

        The first line, drawn anew, tells other processes that it is another one.
        """
        if self._torn:
            self._note(f"{self._index} ended within a line: it was cut, or a run was killed while it stored.")
        if not self._entries and (lost := self._shards()):
            self._note(f"The index of {self._root} was lost: what its shards held is computed again.")
            self._used = self._next_place()
            for path in lost:
                path.unlink(missing_ok=True)
        head = f"medsam-bench embeddings {secrets.token_hex(8)}\n".encode()
        content = head + b"".join(_line(key, entry) for key, entry in self._entries.items())
        with replacing(self._index) as stream:
            stream.write(content)
        self.rebuilt += self._bad_lines
        self._head, self._position, self._torn, self._bad_lines = head, len(content), False, 0

    # --- writing

    def _store(self, made: Mapping[str, NDArray[np.float32]]) -> None:
        if not self._storing:
            return
        try:
            with file_lock(self._root / "lock"):
                self._catch_up()
                if not self._head or self._torn or self._bad_lines:
                    self._renew_index()
                new = {key: value for key, value in made.items() if key not in self._entries}
                self._append(new)
                self._catch_up()
        except OSError as error:
            self._stop(error)
            return
        self.rebuilt += len(self._damaged.intersection(new))
        self._damaged.difference_update(made)

    def _append(self, new: Mapping[str, NDArray[np.float32]]) -> None:
        """Write entries, then their lines, shard by shard: a line never stands for an entry that is not on disk."""
        place = self._next_place()
        keys = list(new)
        while keys:
            number, row = divmod(place, self.shard)
            now, keys = keys[: self.shard - row], keys[self.shard - row :]
            values = [np.ascontiguousarray(new[key], _FLOAT) for key in now]
            _write(self._shard(number), row * self._size, [value.data for value in values])
            lines = [_line(key, _Entry(place + i, zlib.crc32(values[i].data))) for i, key in enumerate(now)]
            _write(self._index, self._index.stat().st_size, [b"".join(lines)])
            place += len(now)

    def _next_place(self) -> int:
        """The first place that no line, known or lost, can have named, in a shard that is whole so far.

        A shard that was cut stays short: filled up, the gap would look like entries to a process that has read them.
        """
        shards = self._shards()
        last = int(shards[-1].stem) if shards else 0
        number, row = divmod(max(self._used, last * self.shard + self._rows(last)), self.shard)
        return number * self.shard + row if self._rows(number) >= row else (number + 1) * self.shard

    def _rows(self, number: int) -> int:
        """Whole entries in a shard's file."""
        try:
            return min(self._shard(number).stat().st_size // self._size, self.shard)
        except FileNotFoundError:
            return 0

    def _checked(self, made: NDArray[np.float32], count: int) -> NDArray[np.float32]:
        if made.shape != (count, *self.shape):
            raise ValueError(f"embeddings of shape {made.shape} for a store of {count} of {self.shape}")
        return made

    def _stop(self, error: OSError) -> None:
        if self._storing:
            self._storing = False
            self._note(
                f"Embeddings are no longer stored in {self._root} ({error.strerror or error}): they are computed every "
                "time from now on; free space or make the folder writable, and the next run stores them."
            )

    def _note(self, text: str) -> None:
        self.notes.append(text)
        _log.warning(text)


def _line(key: str, entry: _Entry) -> bytes:
    body = json.dumps([key, *entry], separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _write(path: Path, offset: int, parts: Iterable[memoryview | bytes]) -> None:
    """Write at an offset, durably; what fails leaves the file as long as it was."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    size = os.fstat(descriptor).st_size
    try:
        for part in parts:
            rest = memoryview(part).cast("B")
            while rest:
                written = os.pwrite(descriptor, rest, offset)
                rest, offset = rest[written:], offset + written
        os.fsync(descriptor)
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, size)
        raise
    finally:
        os.close(descriptor)
    if not size:
        sync_folder(path.parent)
