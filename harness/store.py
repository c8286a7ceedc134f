"""Content-addressed results: three verbs over a folder today and an object store tomorrow, and a local journal.

Keys are relative POSIX paths.  Sealed records of a job live under ``records/<digest>.parquet``, its artifacts under
``artifacts/<digest>/<name>``.  Nothing is ever overwritten: ``put_if_absent`` is the only way in.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path, PurePosixPath
from typing import Protocol

from harness.files import sync_folder
from harness.schema import Record


class Store(Protocol):
    """What results need from storage.  No rename, lock or directory is assumed."""

    def get(self, key: str) -> bytes | None:
        """The value, or ``None`` if the key was never put."""

    def put_if_absent(self, key: str, data: bytes | Path) -> bool:
        """Store the bytes (or the file's) unless the key exists; says whether it stored."""

    def list(self, prefix: str) -> Iterator[str]:
        """All keys that begin with the prefix, sorted."""


def records_key(digest: str) -> str:
    """Key of a job's sealed records."""
    return f"records/{digest}.parquet"


def artifact_key(digest: str, name: str) -> str:
    """Key of a file that a job made."""
    return f"artifacts/{digest}/{name}"


class FolderStore:
    """A store in a local folder.

    A value becomes visible under its key in one step (a hard link of a finished, fsynced temporary file), so that a
    reader never sees half a value and of two writers exactly one wins.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        """Where the value of a key lies; the key must stay inside the folder."""
        parts = PurePosixPath(key).parts
        if not parts or key.startswith("/") or ".." in parts:
            raise ValueError(f"not a store key: {key!r}")
        return self.root.joinpath(*parts)

    def local(self, key: str) -> Path | None:
        """A path to read a large value from in place, or ``None`` if absent."""
        path = self.path(key)
        return path if path.exists() else None

    def get(self, key: str) -> bytes | None:
        try:
            return self.path(key).read_bytes()
        except FileNotFoundError:
            return None

    def put_if_absent(self, key: str, data: bytes | Path) -> bool:
        target = self.path(key)
        if target.exists():
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".put-", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as out:
                if isinstance(data, Path):
                    with data.open("rb") as source:
                        shutil.copyfileobj(source, out)
                else:
                    out.write(data)
                out.flush()
                os.fsync(out.fileno())
            try:
                os.link(name, target)
            except FileExistsError:
                return False
            sync_folder(target.parent)
            return True
        finally:
            Path(name).unlink(missing_ok=True)

    def list(self, prefix: str) -> Iterator[str]:
        base = self.root / PurePosixPath(prefix).parent if not prefix.endswith("/") else self.root / prefix
        keys = (p.relative_to(self.root).as_posix() for p in base.rglob("*") if p.is_file())
        yield from sorted(k for k in keys if k.startswith(prefix) and not PurePosixPath(k).name.startswith(".put-"))


class Journal:
    """Finished units of work of one running job: a line each, checksummed, on disk before ``append`` returns.

    A line torn by a kill or a crash is cut off when the journal is opened again.  Only the process that holds the
    job's lock may open it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, list[Record]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        good = self._read()
        if good < path.stat().st_size:
            os.truncate(path, good)
        self._out = path.open("ab")

    def _read(self) -> int:
        """Load the whole lines; returns how many bytes of the file are good."""
        good = 0
        with self.path.open("rb") as lines:
            for line in lines:
                entry = _parse_line(line)
                if entry is None:
                    break
                self.entries[entry[0]] = entry[1]
                good += len(line)
        return good

    def done(self, key: str) -> bool:
        return key in self.entries

    def append(self, key: str, records: Iterable[Record]) -> None:
        """Raises ``ValueError`` if the key is there already: a unit of work happens once."""
        if key in self.entries:
            raise ValueError(f"{self.path.name} already holds {key!r}")
        rows = list(records)
        body = json.dumps([key, [_compact(r) for r in rows]], separators=(",", ":"), allow_nan=False)
        self._out.write(f"{zlib.crc32(body.encode()):08x} {body}\n".encode())
        self._out.flush()
        os.fsync(self._out.fileno())
        self.entries[key] = rows

    def records(self) -> list[Record]:
        """All records in the order they were finished."""
        return [record for rows in self.entries.values() for record in rows]

    def close(self) -> None:
        self._out.close()


def _parse_line(line: bytes) -> tuple[str, list[Record]] | None:
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or f"{zlib.crc32(body):08x}".encode() != checksum:
        return None
    key, rows = json.loads(body)
    return key, [Record(**row) for row in rows]


def _compact(record: Record) -> dict[str, object]:
    return {k: v for k, v in asdict(record).items() if v is not None}


def seal(records: Sequence[Record]) -> bytes:
    """The records as one Parquet file with unit and direction written out; the same records give the same bytes."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    types: dict[str, pa.DataType] = {name: pa.string() for name in RECORD_COLUMNS}
    types |= {"value": pa.float64(), "object": pa.int64(), "ndim": pa.int64(), "repeat": pa.int64()}
    columns = {name: [getattr(r, name) for r in records] for name in RECORD_COLUMNS}
    table = pa.table({n: pa.array(columns[n], types[n]) for n in RECORD_COLUMNS})
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


def unseal(data: bytes) -> list[Record]:
    """Records of a sealed Parquet file."""
    import io

    import pyarrow.parquet as pq

    names = [f.name for f in fields(Record)]
    # Without arrow's thread pools: a process that ends while they start is aborted.
    rows = pq.ParquetFile(io.BytesIO(data)).read(columns=names, use_threads=False).to_pylist()
    return [Record(**row) for row in rows]


RECORD_COLUMNS: tuple[str, ...] = (
    "metric",
    "value",
    "unit",
    "direction",
    "case",
    "object",
    "modality",
    "ndim",
    "protocol",
    "phase",
    "repeat",
    "status",
    "reason",
    "detail",
)
