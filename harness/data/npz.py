"""Reading npz files that nobody vouches for.

A challenge case is a zip archive of npy members.  Both layers say beforehand how large they will become, and both can
lie, so everything they declare is checked before a single array is allocated: the zip directory, then the npy header of
every member, then the agreement of the two.  Object arrays (pickles) are never loaded.

Sources: the npy format, versions 1.0 to 3.0 (numpy ``lib.format``); the zip format, PKWARE APPNOTE 6.3.10; the largest
ratio of deflate, 1032:1, follows from RFC 1951 (258 bytes a match, 2 bits a match).
"""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from harness.errors import BenchError, OutOfMemoryError

DECLARED_LIMIT = 8 * 1024**3
"""Bytes that all arrays of one file together may declare, unless the caller says otherwise."""

MEMBER_LIMIT = 64
_DEFLATE_RATIO = 1032
_HEADER_BYTES = 10_000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_KINDS = "biuf"
_MALFORMED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
    EOFError,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    SyntaxError,
    RecursionError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    UserWarning,
)


@dataclass(frozen=True)
class ArrayHeader:
    """What a member declares: ``shape``, ``dtype`` and the bytes of its data."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_headers(path: Path, *, limit: int = DECLARED_LIMIT) -> dict[str, ArrayHeader]:
    """Shapes and dtypes of all arrays of an npz file, without allocating any of them.

    Raises:
        BenchError: the file is missing, truncated or no npz; declares more than ``limit`` bytes; holds a pickle, a
            duplicate, encrypted or oddly compressed member; or a member's header disagrees with the zip directory.
    """
    with _open(path) as stream:
        return _headers(stream, path, limit)


def read_arrays(
    path: Path,
    keys: Iterable[str],
    *,
    limit: int = DECLARED_LIMIT,
    check: Callable[[Path, dict[str, ArrayHeader]], None] | None = None,
) -> dict[str, NDArray[Any]]:
    """The arrays named in ``keys`` as far as the file holds them.

    ``check`` may refuse the headers of the file (by raising) before anything is allocated.

    Raises:
        OutOfMemoryError: there is less memory free than the arrays need.
        BenchError: as ``read_headers``, or the data are shorter than declared or fail their checksum.
    """
    with _open(path) as stream:
        headers = _headers(stream, path, limit)
        if check is not None:
            check(path, headers)
        stream.seek(0)
        arrays: dict[str, NDArray[Any]] = {}
        try:
            with np.load(stream, allow_pickle=False) as members:
                for key in keys:
                    if key in headers:
                        arrays[key] = members[key]
        except _MALFORMED as error:
            raise _damaged(path, error) from error
        except MemoryError as error:
            raise OutOfMemoryError(
                f"{path}: its arrays need {human(sum(h.nbytes for h in headers.values()))}, more memory than is "
                "free; use a machine with more memory or crop the case"
            ) from error
    return arrays


def human(count: int) -> str:
    """A number of bytes for people: ``human(3 * 1024**3) == '3.0 GiB'``."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise BenchError(f"{path}: no such file; check the name of the case and of its folder") from error
    except OSError as error:
        raise BenchError(f"{path}: cannot be opened ({error.strerror}); check its permissions") from error


def _damaged(path: Path, error: BaseException) -> BenchError:
    text = str(error).strip().splitlines()
    reason = f" ({text[0].rstrip('.')})" if text else ""
    return BenchError(f"{path}: the file is truncated or damaged{reason}; copy or download it again")


def _headers(stream: IO[bytes], path: Path, limit: int) -> dict[str, ArrayHeader]:
    magic = stream.read(4)
    stream.seek(0)
    if not magic.startswith(b"PK"):
        what = "is empty" if not magic else "is not an npz archive"
        raise BenchError(f"{path}: the file {what}; write it with numpy.savez_compressed")
    try:
        with zipfile.ZipFile(stream) as archive:
            members = _directory(archive, path, limit)
            headers = {key: _header(archive, info, path, limit) for key, info in members.items()}
    except _MALFORMED as error:
        raise _damaged(path, error) from error
    return headers


def _directory(archive: zipfile.ZipFile, path: Path, limit: int) -> Mapping[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > MEMBER_LIMIT:
        raise BenchError(f"{path}: holds {len(infos)} members, more than {MEMBER_LIMIT}; keep one case per file")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        key = info.filename.removesuffix(".npy")
        if key in members:
            raise BenchError(f"{path}: field '{key}' is there twice; write the file again with one array per field")
        if info.flag_bits & 0x1 or info.compress_type not in _METHODS:
            raise BenchError(
                f"{path}: field '{key}' is encrypted or compressed by other means than deflate; "
                "write the file again with numpy.savez_compressed"
            )
        if info.file_size > _DEFLATE_RATIO * info.compress_size + 64 and info.file_size <= limit:
            raise BenchError(
                f"{path}: field '{key}' declares {human(info.file_size)} but holds {human(info.compress_size)} of "
                "compressed data, which cannot expand to that; copy or download the file again"
            )
        members[key] = info
    declared = sum(info.file_size for info in infos)
    if declared > limit:
        raise _too_large(path, "the file", declared, limit)
    return members


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, limit: int) -> ArrayHeader:
    key = info.filename.removesuffix(".npy")
    if not info.filename.endswith(".npy"):
        raise BenchError(f"{path}: member '{info.filename}' is no npy array; a case holds imgs, boxes, gts and spacing")
    with archive.open(info) as member:
        version = npy.read_magic(member)
        if version == (1, 0):
            shape, _, dtype = npy.read_array_header_1_0(member, max_header_size=_HEADER_BYTES)
        elif version in ((2, 0), (3, 0)):
            shape, _, dtype = npy.read_array_header_2_0(member, max_header_size=_HEADER_BYTES)
        else:
            raise BenchError(
                f"{path}: field '{key}' has npy version {version}, unknown here; write it with numpy 1 or 2"
            )
        data_bytes = info.file_size - member.tell()
    if dtype.hasobject:
        raise BenchError(
            f"{path}: field '{key}' holds Python objects (a pickle), never loaded here; store a plain numeric array"
        )
    if dtype.kind not in _KINDS:
        raise BenchError(f"{path}: field '{key}' has dtype {dtype}; store a plain numeric array")
    header = ArrayHeader(tuple(int(n) for n in shape), dtype)
    if any(n < 0 for n in header.shape):
        raise BenchError(f"{path}: field '{key}' declares the shape {header.shape}; write the file again")
    if header.nbytes > limit:
        raise _too_large(path, f"field '{key}'", header.nbytes, limit)
    if header.nbytes != data_bytes:
        raise BenchError(
            f"{path}: field '{key}' declares {header.nbytes} bytes (shape {header.shape}, {dtype}) but the archive "
            f"holds {data_bytes}; write the file again"
        )
    return header


def _too_large(path: Path, what: str, declared: int, limit: int) -> BenchError:
    return BenchError(
        f"{path}: {what} declares {human(declared)}, above the limit of {human(limit)}, so nothing of it was read; "
        "crop or split the case"
    )
