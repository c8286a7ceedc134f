"""The store of embeddings: computed once, for several processes, with or without room on the disk."""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from harness.training import embeddings
from harness.training.embeddings import EmbeddingStore
from tests.harness.training.storing import (
    ENTRY,
    SEVEN,
    SHAPE,
    SHARD,
    Source,
    asked,
    child,
    ended,
    entries,
    filled,
    flip,
    line_starts,
    only,
    opened,
)

# --- what it is for


def test_what_is_stored_is_not_computed_again_neither_here_nor_by_the_next_process(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert asked(store, [3, 1]) == [3, 1]
    assert asked(store, [1, 2, 3]) == [2]
    assert asked(opened(tmp_path), [3, 2, 1]) == []
    assert (len(store), store.nbytes, store.rebuilt, store.notes) == (3, 3 * ENTRY, 0, [])


def test_a_shard_is_complete_after_its_number_of_entries(tmp_path: Path) -> None:
    filled(tmp_path)
    shards = sorted(tmp_path.rglob("*.f32"))
    assert [(s.name, s.stat().st_size // ENTRY) for s in shards] == [
        ("00000.f32", 3),
        ("00001.f32", 3),
        ("00002.f32", 1),
    ]
    assert np.array_equal(np.fromfile(shards[1], "<f4").reshape(3, *SHAPE), entries([3, 4, 5]))


def test_missing_ones_are_computed_in_one_call_and_a_repeated_key_once(tmp_path: Path) -> None:
    store, calls = opened(tmp_path), []

    def compute(places: list[int]) -> np.ndarray:
        calls.append(places)
        return entries([[7, 8, 7, 9][p] for p in places])

    got = store.get(["7", "8", "7", "9"], compute)
    assert calls == [[0, 1, 3]]
    assert np.array_equal(got, entries([7, 8, 7, 9]))


def test_what_is_given_may_be_changed_without_changing_the_store(tmp_path: Path) -> None:
    store = opened(filled(tmp_path))
    Source().ask(store, [0, 1])[...] = -1
    assert asked(store, [0, 1]) == []


def test_any_text_is_a_key(tmp_path: Path) -> None:
    keys = ["2DBox US/0001 é 0", 'a"b\\c', "line\nbreak", ""]
    opened(tmp_path).get(keys, lambda places: entries(places))
    assert np.array_equal(opened(tmp_path).get(keys, lambda _: pytest.fail("computed again")), entries(range(4)))


def test_stored_bits_come_back_whatever_they_mean(tmp_path: Path) -> None:
    odd = np.array([[np.nan, -0.0, np.inf], [1e-45, -np.inf, 3.4e38]], np.float32)[None]
    opened(tmp_path).get(["odd"], lambda _: odd)
    assert opened(tmp_path).get(["odd"], lambda _: pytest.fail("computed again")).tobytes() == odd.tobytes()


def test_a_computation_of_another_shape_is_a_mistake_and_stores_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with pytest.raises(ValueError, match=r"\(1, 3, 2\)"):
        store.get(["0"], lambda _: np.zeros((1, 3, 2), np.float32))
    assert len(store) == 0


def test_stores_of_several_shapes_in_one_folder_are_kept_apart(tmp_path: Path) -> None:
    filled(tmp_path)
    other = EmbeddingStore(tmp_path, (3, 2), SHARD)
    assert len(other) == 0
    got = other.get(["0"], lambda _: np.ones((1, 3, 2), np.float32))
    assert np.array_equal(got, np.ones((1, 3, 2)))
    assert asked(opened(tmp_path), SEVEN) == []


@pytest.mark.parametrize("change", ["format", "shard"])
def test_a_store_of_another_format_or_division_is_not_read(
    tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    if change == "format":
        monkeypatch.setattr(embeddings, "FORMAT", embeddings.FORMAT + 1)
    assert len(EmbeddingStore(tmp_path, SHAPE, SHARD + (change == "shard"))) == 0


def test_an_entry_is_verified_when_a_process_first_reads_it_and_not_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, checksum = opened(filled(tmp_path)), Mock(wraps=zlib.crc32)
    assert len(store) == 7  # the lines are read and verified
    monkeypatch.setattr(zlib, "crc32", checksum)
    assert asked(store, [0, 1]) == []
    assert checksum.call_count == 2
    assert asked(store, [0, 1, 2]) == []
    assert checksum.call_count == 3


def test_entries_are_on_disk_before_their_lines_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(opened(tmp_path), [0]) == [0]
    disk = Mock()
    for name in ("pwrite", "fsync"):
        disk.attach_mock(Mock(wraps=getattr(os, name)), name)
        monkeypatch.setattr(os, name, getattr(disk, name))
    assert asked(opened(tmp_path), [1, 2]) == [1, 2]
    assert [name for name, _, _ in disk.mock_calls] == ["pwrite", "pwrite", "fsync", "pwrite", "fsync"]


# --- several at once


def test_two_stores_on_one_folder_find_each_others_entries(tmp_path: Path) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    assert asked(one, [0, 1]) == [0, 1]
    assert asked(two, [1, 2]) == [2]
    assert asked(one, [0, 1, 2]) == []
    assert len(one) == len(two) == 3


def test_what_another_has_stored_meanwhile_is_not_stored_twice(tmp_path: Path) -> None:
    def slowly(places: list[int]) -> np.ndarray:
        assert asked(opened(tmp_path), [0, 1]) == [0, 1]
        return entries(places)

    store = opened(tmp_path)
    assert np.array_equal(store.get(["0", "1", "2"], slowly), entries([0, 1, 2]))
    assert store.nbytes == 3 * ENTRY


def test_processes_that_store_at_once_disturb_neither_each_other_nor_a_reader(tmp_path: Path) -> None:
    writers = [child(tmp_path, first, first + 60) for first in (0, 30, 60)]
    store = opened(tmp_path)
    while any(writer.poll() is None for writer in writers):
        asked(store, [0, 45, 119])
    assert [ended(writer) for writer in writers] == [0, 0, 0]
    everything = opened(tmp_path)
    assert asked(everything, range(120)) == []
    assert (len(everything), everything.nbytes, everything.notes) == (120, 120 * ENTRY, [])


@pytest.mark.parametrize("damage", ["line", "torn", "cut", "gone", "all gone"])
def test_a_store_goes_on_when_another_renews_the_index(tmp_path: Path, damage: str) -> None:
    store = opened(filled(tmp_path))
    assert asked(store, SEVEN) == []
    index = only(tmp_path, "index")
    if damage == "line":
        flip(index, line_starts(index)[2] + 3)
    elif damage in ("torn", "cut"):
        os.truncate(index, line_starts(index)[2] + 3 * (damage == "torn"))
        assert len(store) == 2
    else:
        for path in [index] if damage == "gone" else [*index.parent.iterdir()]:
            path.unlink()
    asked(opened(tmp_path), [20, 21, 22, 23, 24])
    for numbers in (SEVEN, range(20, 25)):
        asked(store, numbers)  # right, whatever has to be computed
    assert asked(opened(tmp_path), [*SEVEN, *range(20, 25)]) == []


# --- where storing fails


def full_disk(room: int) -> Callable[[int, memoryview, int], int]:
    """``os.pwrite`` on a disk with room for so many bytes."""
    real = os.pwrite

    def pwrite(descriptor: int, data: memoryview, offset: int) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(descriptor, data[:room], offset)
        room -= written
        return written

    return pwrite


@pytest.mark.parametrize("room", [0, 1, ENTRY, 3 * ENTRY, 3 * ENTRY + 40, 200])
def test_a_full_disk_ends_the_storing_not_the_run(tmp_path: Path, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(opened(tmp_path), [90])
    store = opened(tmp_path)
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", full_disk(room))
        assert asked(store, SEVEN) == list(SEVEN)
        kept = len(opened(tmp_path))
    assert kept < 8
    (note,) = store.notes
    assert "no longer stored" in note
    assert "No space left on device" in note
    assert asked(store, [90, 91, 92]) == [91, 92]  # does not try again, but reads what there is
    assert len(store.notes) == 1
    fresh = opened(tmp_path)
    assert len(fresh) == kept
    assert len(asked(fresh, [*SEVEN, 90])) == 8 - kept
    assert (fresh.rebuilt, fresh.notes) == (0, [])  # nothing was left half-written
    assert asked(opened(tmp_path), [*SEVEN, 90]) == []


def test_damage_on_a_full_disk_is_told_once_and_gives_the_right_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(only(filled(tmp_path), "00000.f32"), 0)
    monkeypatch.setattr(os, "pwrite", full_disk(0))
    store = opened(tmp_path)
    assert asked(store, SEVEN) == [0]
    assert asked(store, SEVEN) == [0]
    assert len(store.notes) == 2  # the damage, the disk
    assert store.rebuilt == 0


@pytest.mark.parametrize("obstacle", ["folder", "index"])
def test_a_folder_that_cannot_be_used_is_told_and_done_without(tmp_path: Path, obstacle: str) -> None:
    if obstacle == "folder":
        (tmp_path / "store").write_text("a file")
    else:
        only(filled(tmp_path / "store"), "index").unlink()
        (only(tmp_path / "store", "00000.f32").parent / "index").mkdir()
    store = opened(tmp_path / "store")
    assert asked(store, SEVEN) == list(SEVEN)
    assert asked(store, SEVEN) == list(SEVEN)
    (note,) = store.notes
    assert "make the folder writable" in note
