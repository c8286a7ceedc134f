"""The store of embeddings: whole entries or none, and damage is found and mended."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import pytest

from tests.harness.training.storing import (
    ENTRY,
    SEVEN,
    SHARD,
    asked,
    child,
    ended,
    filled,
    flip,
    line_starts,
    only,
    opened,
)

# --- damage


@pytest.mark.parametrize("byte", [0, 1, ENTRY - 1])
def test_a_flipped_bit_is_found_and_only_its_entry_is_computed_again(
    tmp_path: Path, byte: int, caplog: pytest.LogCaptureFixture
) -> None:
    flip(only(filled(tmp_path), "00001.f32"), ENTRY + byte)  # in entry 4
    store = opened(tmp_path)
    assert asked(store, SEVEN) == [4]
    assert store.rebuilt == 1
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [(logging.WARNING, n) for n in store.notes]
    assert len(store.notes) == 1
    assert "Damaged embeddings" in store.notes[0]
    assert asked(store, SEVEN) == []
    mended = opened(tmp_path)
    assert asked(mended, SEVEN) == []
    assert (len(mended), mended.rebuilt, mended.notes) == (7, 0, [])


@pytest.mark.parametrize("size", [0, 1, ENTRY - 1, ENTRY, 2 * ENTRY + 5])
@pytest.mark.parametrize("shard", [0, 1])
def test_a_cut_shard_loses_the_entries_behind_the_cut_and_no_others(tmp_path: Path, shard: int, size: int) -> None:
    os.truncate(only(filled(tmp_path), f"0000{shard}.f32"), size)
    lost = [n for n in SEVEN if n // SHARD == shard and (n % SHARD + 1) * ENTRY > size]
    store = opened(tmp_path)
    assert asked(store, SEVEN) == lost
    assert store.rebuilt == len(lost)
    assert asked(opened(tmp_path), SEVEN) == []


@pytest.mark.parametrize("size", [0, 5, ENTRY])
def test_a_last_shard_that_was_cut_is_not_filled_up_under_a_store_that_has_read_it(tmp_path: Path, size: int) -> None:
    reader = opened(filled(tmp_path))
    assert asked(reader, [*SEVEN, 7]) == [7]
    assert asked(reader, [*SEVEN, 7]) == []
    os.truncate(only(tmp_path, "00002.f32"), size)
    assert asked(opened(tmp_path), [8]) == [8]  # neither at the places of 6 and 7 nor behind a gap
    assert asked(reader, [6, 7, 8]) == [6, 7][size // ENTRY :]


@pytest.mark.parametrize("torn", [0, 9])
def test_places_of_entries_whose_lines_were_lost_are_not_used_again(tmp_path: Path, torn: int) -> None:
    index = only(filled(tmp_path), "index")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.f32")}
    os.truncate(index, line_starts(index)[4] + torn)
    asked(opened(tmp_path), range(20, 25))
    assert all(path.read_bytes().startswith(content) for path, content in before.items())


def test_a_shard_that_is_gone_is_computed_again(tmp_path: Path) -> None:
    only(filled(tmp_path), "00001.f32").unlink()
    store = opened(tmp_path)
    assert asked(store, SEVEN) == [3, 4, 5]
    assert asked(opened(tmp_path), SEVEN) == []


def test_a_shard_cut_under_a_store_that_has_read_it_is_noticed(tmp_path: Path) -> None:
    store = opened(filled(tmp_path))
    assert asked(store, SEVEN) == []
    os.truncate(only(tmp_path, "00001.f32"), ENTRY)
    assert asked(store, SEVEN) == [4, 5]


@pytest.mark.parametrize("byte", [0, 5, 8, 10, 12, -2])
def test_a_damaged_line_of_the_index_loses_its_entry_alone(tmp_path: Path, byte: int) -> None:
    index = only(filled(tmp_path), "index")
    starts = line_starts(index)
    flip(index, (starts[2] if byte >= 0 else starts[3]) + byte)
    store = opened(tmp_path)
    assert asked(store, SEVEN) == [2]
    assert store.rebuilt == 1
    assert "Damaged lines" in store.notes[0]
    mended = opened(tmp_path)
    assert asked(mended, SEVEN) == []
    assert mended.notes == []


@pytest.mark.parametrize("kept", [0, 3, 6])
@pytest.mark.parametrize("beyond", [0, 1, 9, -1])
def test_a_cut_index_loses_what_it_no_longer_names_and_no_others(tmp_path: Path, kept: int, beyond: int) -> None:
    index = only(filled(tmp_path), "index")
    os.truncate(index, line_starts(index)[kept] + beyond)
    kept = max(kept - (beyond < 0), 0)
    store = opened(tmp_path)
    assert asked(store, SEVEN) == [n for n in SEVEN if n >= kept]
    assert any("ended within a line" in note for note in store.notes) == (beyond != 0)
    mended = opened(tmp_path)
    assert asked(mended, SEVEN) == []
    assert mended.notes == []


@pytest.mark.parametrize("content", [None, b"", b"\0" * 500, b"\n\n\n", bytes(range(256)) * 4])
def test_without_a_sound_index_the_shards_go_and_all_is_computed_again(tmp_path: Path, content: bytes | None) -> None:
    index = only(filled(tmp_path), "index")
    before = {path.name for path in tmp_path.rglob("*.f32")}
    index.unlink()
    if content is not None:
        index.write_bytes(content)
    store = opened(tmp_path)
    assert asked(store, SEVEN) == list(SEVEN)
    assert any("was lost" in note for note in store.notes)
    assert store.nbytes == 7 * ENTRY  # the old shards do not stay for good
    assert not {path.name for path in tmp_path.rglob("*.f32")} & before  # nor are their names used again
    assert asked(opened(tmp_path), SEVEN) == []


# --- killed


@pytest.mark.parametrize(
    ("write", "size", "kept"),
    [
        (1, 0, 0),  # nothing of the first entry
        (1, 7, 0),  # part of it
        (2, ENTRY, 0),  # both entries of the first call, no line
        (3, 0, 0),  # the same, as their lines begin
        (3, 30, 1),  # one line and part of the next
        (3, 1000, 2),  # both lines
        (6, 8, 3),  # the second call fills the first shard, with its line, and opens the next with part of an entry
    ],
)
def test_a_killed_process_leaves_whole_entries_or_none(tmp_path: Path, write: int, size: int, kept: int) -> None:
    assert ended(child(tmp_path, 0, 7, write, size)) == -signal.SIGKILL
    store = opened(tmp_path)
    assert len(store) == kept
    assert asked(store, SEVEN) == [n for n in SEVEN if n >= kept]
    assert store.rebuilt == 0  # half an entry is no entry, not a damaged one
    assert asked(opened(tmp_path), SEVEN) == []
