"""The store keeps what it was given first; the journal keeps what was finished, whatever happens afterwards."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.files import write_atomic
from harness.schema import Record
from harness.store import FolderStore, Journal, seal, unseal

RECORDS = [
    Record("dsc", 0.5, case="2DBox_CT_0001", object=1, modality="CT", ndim=2, protocol="strict"),
    Record("wall", None, case="2DBox_CT_0001", repeat=0, status="oom", reason="128 MiB were not enough"),
    Record("nsd", 1 / 3, case="2DBox_CT_0001", object=2, detail=json.dumps({"why": "é"})),
]


def test_a_value_is_read_back_and_an_absent_key_is_none(tmp_path: Path):
    store = FolderStore(tmp_path)
    assert store.get("records/a.parquet") is None
    assert store.put_if_absent("records/a.parquet", b"one")
    assert store.get("records/a.parquet") == b"one"


def test_a_value_is_never_replaced(tmp_path: Path):
    store = FolderStore(tmp_path)
    store.put_if_absent("k/v", b"first")
    assert not store.put_if_absent("k/v", b"second")
    assert store.get("k/v") == b"first"


def test_files_are_stored_like_bytes(tmp_path: Path):
    source = tmp_path / "model"
    source.write_bytes(b"weights")
    store = FolderStore(tmp_path / "store")
    assert store.put_if_absent("artifacts/x/model", source)
    assert store.get("artifacts/x/model") == b"weights"
    assert source.exists()


def test_keys_are_listed_by_prefix_in_order(tmp_path: Path):
    store = FolderStore(tmp_path)
    for key in ("records/b", "records/a", "artifacts/a/x"):
        store.put_if_absent(key, b"")
    assert list(store.list("records/")) == ["records/a", "records/b"]
    assert list(store.list("records/b")) == ["records/b"]
    assert list(store.list("nothing/")) == []


@pytest.mark.parametrize("key", ["", "/etc/x", "../x", "a/../../x"])
def test_a_key_cannot_leave_the_folder(tmp_path: Path, key: str):
    with pytest.raises(ValueError, match="not a store key"):
        FolderStore(tmp_path).put_if_absent(key, b"")


def _put(root: Path, text: bytes, start: "multiprocessing.synchronize.Event", wins: "multiprocessing.Queue[bool]"):
    start.wait()
    wins.put(FolderStore(root).put_if_absent("k", text * 100_000))


def test_of_two_writers_exactly_one_wins_and_its_value_is_whole(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    start, wins = context.Event(), context.Queue()
    writers = [context.Process(target=_put, args=(tmp_path, text, start, wins)) for text in (b"a", b"b", b"c")]
    for writer in writers:
        writer.start()
    start.set()
    won = [wins.get(timeout=30) for _ in writers]
    for writer in writers:
        writer.join()
    assert sorted(won) == [False, False, True]
    value = FolderStore(tmp_path).get("k")
    assert value is not None
    assert len(set(value)) == 1
    assert len(value) == 100_000


def test_sealed_records_are_read_back_exactly_and_sealing_is_deterministic():
    assert unseal(seal(RECORDS)) == RECORDS
    assert seal(RECORDS) == seal(list(RECORDS))


def test_sealed_rows_carry_unit_and_direction():
    import io

    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(seal(RECORDS))).to_pylist()
    assert [(row["unit"], row["direction"]) for row in table] == [("1", "higher"), ("s", "lower"), ("1", "higher")]


def test_a_job_without_records_can_be_sealed():
    assert unseal(seal([])) == []


def test_a_record_that_is_not_ok_must_say_why():
    with pytest.raises(ValueError, match="needs a reason"):
        Record("dsc", status="crashed")


def test_the_journal_keeps_finished_units_over_processes(tmp_path: Path):
    first = Journal(tmp_path / "j")
    first.append("case 1", RECORDS[:1])
    first.close()
    again = Journal(tmp_path / "j")
    assert again.done("case 1")
    assert not again.done("case 2")
    again.append("case 2", RECORDS[1:])
    assert again.records() == RECORDS
    again.close()


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_forgotten_and_the_rest_kept(tmp_path: Path, cut: int):
    journal = Journal(tmp_path / "j")
    journal.append("a", RECORDS[:1])
    journal.append("b", RECORDS[1:2])
    journal.close()
    data = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(data[:-cut])
    again = Journal(tmp_path / "j")
    assert list(again.entries) == ["a"]
    again.append("b", RECORDS[1:2])
    again.close()
    final = Journal(tmp_path / "j")
    assert final.records() == RECORDS[:2]
    final.close()


def test_a_unit_of_work_is_journaled_once(tmp_path: Path):
    journal = Journal(tmp_path / "j")
    journal.append("a", [])
    with pytest.raises(ValueError, match="already holds"):
        journal.append("a", [])
    journal.close()


def test_a_journal_survives_sigkill(tmp_path: Path):
    code = (
        "import sys, pathlib, os, signal; from harness.store import Journal; from harness.schema import Record\n"
        "j = Journal(pathlib.Path(sys.argv[1]))\n"
        "for i in range(3): j.append(str(i), [Record('dsc', i / 3)])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "j")], check=False)
    assert done.returncode == -signal.SIGKILL
    journal = Journal(tmp_path / "j")
    assert [r.value for r in journal.records()] == [0.0, 1 / 3, 2 / 3]
    journal.close()


def test_an_atomic_write_leaves_the_old_file_if_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "run.json"
    write_atomic(target, "old")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomic(target, "new")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]
