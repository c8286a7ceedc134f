"""Reading npz files that nobody vouches for."""

from __future__ import annotations

import contextlib
import io
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy

from harness.data import read_case
from harness.data.npz import read_arrays, read_headers
from harness.errors import BenchError, OutOfMemoryError
from harness.failure import status_of

from .conftest import Write


def header_bytes(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def refused(path: Path) -> str:
    """The one sentence with which a file is refused."""
    with pytest.raises(BenchError) as caught:
        read_case(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(path, "w", compression) as out:
            for name, content in members.items():
                out.writestr(name, content)
    return path


def test_headers_are_told_without_loading(npz: Write) -> None:
    headers = read_headers(npz(imgs=np.zeros((4, 5, 3), np.uint8), spacing=np.ones(3)))
    assert headers["imgs"].shape == (4, 5, 3)
    assert headers["imgs"].nbytes == 60
    assert headers["spacing"].dtype == np.float64


def test_every_truncation_of_a_file_is_refused(npz: Write, image: np.ndarray, tmp_path: Path) -> None:
    whole = npz(imgs=image, boxes=[[0, 0, 5, 5]]).read_bytes()
    path = tmp_path / "2DBox_CT_0002.npz"
    for length in range(0, len(whole), 29):
        path.write_bytes(whole[:length])
        assert "truncated or damaged" in refused(path) or length < 4


def test_a_text_file_and_an_empty_file_are_no_archives(tmp_path: Path) -> None:
    path = tmp_path / "2DBox_CT_0001.npz"
    path.write_text("hello")
    assert "is not an npz archive" in refused(path)
    path.write_bytes(b"")
    assert "is empty" in refused(path)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "2DBox_CT_0001.npz")


def test_a_pickle_inside_is_refused_unread(npz: Write) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("the pickle was loaded",))

    boxes = np.array([Trap()], dtype=object)
    assert "field 'boxes' holds Python objects (a pickle)" in refused(npz(imgs=np.zeros((4, 4), np.uint8), boxes=boxes))


def test_a_bare_pickle_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "2DBox_CT_0001.npz"
    path.write_bytes(b"\x80\x04N.")
    assert "is not an npz archive" in refused(path)


def test_a_header_that_declares_100_gb_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    path = archive(tmp_path / "3DBox_CT_0001.npz", {"imgs.npy": header_bytes((1000, 10000, 10000)) + b"0" * 100})
    tracemalloc.start()
    message = refused(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "field 'imgs' declares 93.1 GiB, above the limit of 8.0 GiB" in message
    assert peak < 4 * 1024**2


def test_a_zip_directory_that_declares_100_gb_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "2DBox_CT_0001.npz", {"imgs.npy": header_bytes((4, 4)) + b"0" * 16})
    raw = bytearray(path.read_bytes())
    entry = raw.index(b"PK\x01\x02")
    raw[entry + 24 : entry + 28] = struct.pack("<I", 0xFFFFFFF0)
    path.write_bytes(raw)
    with pytest.raises(BenchError, match=r"the file declares 4\.0 GiB, above the limit of 1\.0 GiB"):
        read_headers(path, limit=1024**3)
    assert "cannot expand to that" in refused(path)


def test_a_bomb_inflates_no_further_than_declared(tmp_path: Path) -> None:
    content = header_bytes((64, 64)) + bytes(64 * 1024**2)
    path = archive(tmp_path / "2DBox_CT_0001.npz", {"imgs.npy": content})
    raw = bytearray(path.read_bytes())
    entry = raw.index(b"PK\x01\x02")
    declared = struct.pack("<I", len(header_bytes((64, 64))) + 64 * 64)
    raw[entry + 24 : entry + 28] = declared
    raw[22:26] = declared
    path.write_bytes(raw)
    tracemalloc.start()
    with pytest.raises(BenchError):
        read_arrays(path, ["imgs"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 1024**2


def test_the_limit_counts_all_arrays_together(npz: Write) -> None:
    path = npz(a=np.zeros(1000, np.uint8), b=np.zeros(1000, np.uint8))
    assert set(read_headers(path, limit=2600)) == {"a", "b"}
    with pytest.raises(BenchError, match="the file declares"):
        read_headers(path, limit=1500)


def test_a_member_of_another_size_than_its_header_says_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "2DBox_CT_0001.npz", {"imgs.npy": header_bytes((10, 10)) + b"0" * 99})
    assert "field 'imgs' declares 100 bytes (shape (10, 10), uint8) but the archive holds 99" in refused(path)


def test_a_field_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "2DBox_CT_0001.npz"
    content = header_bytes((2, 2)) + b"0000"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("imgs.npy", content)
        with pytest.warns(UserWarning, match="Duplicate"):
            out.writestr("imgs.npy", content)
    assert "field 'imgs' is there twice" in refused(path)


def test_other_compressions_and_other_members_are_refused(tmp_path: Path) -> None:
    content = header_bytes((2, 2)) + b"0000"
    path = archive(tmp_path / "2DBox_CT_0001.npz", {"imgs.npy": content}, zipfile.ZIP_LZMA)
    assert "compressed by other means than deflate" in refused(path)
    path = archive(tmp_path / "2DBox_CT_0002.npz", {"readme.txt": b"hello"})
    assert "member 'readme.txt' is no npy array" in refused(path)


def test_an_archive_of_thousands_of_members_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "2DBox_CT_0001.npz", {f"{n}.npy": b"" for n in range(100)})
    assert "holds 100 members" in refused(path)


def test_garbage_in_a_header_is_refused(tmp_path: Path) -> None:
    for number, content in enumerate(
        (b"", b"\x93NUMPY", b"\x93NUMPY\x09\x00aa", b"\x93NUMPY\x01\x00\x10\x00" + b"{(((((((((((((((", b"x" * 200)
    ):
        path = archive(tmp_path / f"2DBox_CT_{number:04d}.npz", {"imgs.npy": content})
        refused(path)


def test_a_structured_array_is_refused(npz: Write) -> None:
    boxes = np.zeros(2, dtype=[("x", "i4"), ("y", "i4")])
    assert "store a plain numeric array" in refused(npz(imgs=np.zeros((4, 4), np.uint8), boxes=boxes))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
def test_whatever_bytes_are_changed_the_file_is_read_or_refused(
    changes: list[tuple[int, int]], npz: Write, image: np.ndarray, tmp_path: Path
) -> None:
    raw = bytearray(npz(imgs=image[:5, :6], boxes=[[0, 0, 5, 4]]).read_bytes())
    for place, value in changes:
        raw[place % len(raw)] = value
    path = tmp_path / "2DBox_CT_0009.npz"
    path.write_bytes(raw)
    with contextlib.suppress(BenchError):
        read_case(path)


def test_too_little_memory_for_a_sound_file_is_no_fault_of_the_file(
    npz: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise MemoryError

    path = npz(imgs=np.zeros((4, 4), np.uint8), boxes=[[0, 0, 3, 3]])
    monkeypatch.setattr(np, "load", load)
    with pytest.raises(OutOfMemoryError, match="more memory than is free") as caught:
        read_case(path)
    assert status_of(caught.value) == "oom"
