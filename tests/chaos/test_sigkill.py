"""A run killed with SIGKILL at any moment and started again ends as an undisturbed run ends."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.results import Results, read_run
from harness.schema import Record
from harness.store import unseal
from tests.harness.small import SMALL, write_suite

pytestmark = pytest.mark.chaos

TIMED = {"wall", "phase", "peak_memory", "peak_anonymous"}
ROUNDS = (  # each in one results folder, in the order in which a run comes by
    ("complexity", "train", "seal", "train", "accuracy", "runtime", "report"),
    ("train", "train", "seal", "runtime", "runtime", "report"),
    ("seal", "train", "seal", "train", "accuracy", "seal", "report"),
)
SUITE = SMALL.replace("steps: 6", "steps: 16")
Key = tuple[object, ...]


@dataclass
class Folder:
    """A results folder that is killed and started again until its run ends."""

    root: Path
    suite: Path
    sealed: set[str] = field(default_factory=set)

    @property
    def results(self) -> Results:
        return Results(self.root)

    def start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "harness.cli", "run", str(self.suite), "--results", str(self.root)]
        with (self.root.parent / f"{self.root.name}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def events(self) -> list[dict[str, str]]:
        lines: list[dict[str, str]] = []
        for path in self.root.glob("runs/*/events.jsonl"):
            for line in path.read_text().splitlines():
                try:
                    lines.append(json.loads(line))
                except ValueError:  # torn by a kill
                    continue
        return lines

    def sealed_now(self) -> set[str]:
        return {Path(k).stem for k in self.results.store.list("records/")}

    def check_nothing_sealed_is_started_again(self, before: int) -> None:
        again = {e["job"] for e in self.events()[before:] if e["event"] == "start"} & self.sealed
        assert not again, f"jobs that were finished ran again: {again}"


def contents(results: Results) -> dict[str, dict[Key, Record]]:
    """Job digest → its records by key; a key that stands twice fails."""
    found: dict[str, dict[Key, Record]] = {}
    for key in results.store.list("records/"):
        rows: dict[Key, Record] = {}
        for r in unseal(results.store.get(key) or b""):
            name = (r.metric, r.case, r.object, r.protocol, r.phase, r.repeat)
            assert name not in rows, f"{name} stands twice"
            rows[name] = r
        found[Path(key).stem] = rows
    return found


def assert_same(undisturbed: Results, killed: Results) -> None:
    expected, got = contents(undisturbed), contents(killed)
    assert got.keys() == expected.keys()
    for digest, rows in expected.items():
        assert got[digest].keys() == rows.keys()
        for name, record in rows.items():
            other = got[digest][name]
            assert other.status == record.status
            if record.metric in TIMED:
                assert other.value is not None
            else:
                assert other == record


def moment(folder: Folder, target: str, process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Wait for a random moment inside the target phase; False if the run ended before it came."""
    seen = len(folder.events())
    while process.poll() is None:
        if target == "seal" and list(folder.root.glob("store/records/.put-*")):
            return True
        fresh = folder.events()[seen:]
        if any(e.get("kind") == target or e["event"] == target for e in fresh):
            time.sleep(random.uniform(0, seconds))
            return process.poll() is None
        time.sleep(0.0005 if target == "seal" else 0.01)
    return False


def fresh_folders(tmp_path: Path, suite: Path) -> Iterator[Folder]:
    number = 0
    while True:
        number += 1
        yield Folder(tmp_path / f"killed-{number}", suite)


def test_twenty_kills_spread_over_all_phases_change_nothing(tmp_path: Path):
    random.seed(20)
    suite = write_suite(tmp_path, SUITE)
    undisturbed = Folder(tmp_path / "undisturbed", suite)
    assert undisturbed.start().wait(timeout=300) == 0, (tmp_path / "undisturbed.log").read_text()
    jobs = read_run(next(undisturbed.results.run_folders()))["jobs"]
    lengths = {kind: max(j["seconds"] for j in jobs if j["kind"] == kind) for kind in {j["kind"] for j in jobs}}

    folders = fresh_folders(tmp_path, suite)
    folder, finished, kills = next(folders), [], 0
    targets = [target for kills_of_round in ROUNDS for target in kills_of_round][::-1]
    while targets:
        before = len(folder.events())
        process = folder.start()
        if moment(folder, targets[-1], process, lengths.get(targets[-1], 0.5)):
            group = kills % 2 == 0  # every other time the worker is left to notice its parent's death
            (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
            process.wait()
            targets.pop()
            kills += 1
        else:  # the run ended before that phase came: compare it, and go on with an empty folder
            assert process.wait() == 0, (tmp_path / f"{folder.root.name}.log").read_text()
        folder.check_nothing_sealed_is_started_again(before)
        folder.sealed = folder.sealed_now()
        if process.returncode == 0:
            finished.append(folder)
            folder = next(folders)
    before = len(folder.events())
    assert folder.start().wait(timeout=300) == 0, (tmp_path / f"{folder.root.name}.log").read_text()
    folder.check_nothing_sealed_is_started_again(before)
    finished.append(folder)

    assert kills == sum(map(len, ROUNDS)) == 20
    for other in finished:
        assert_same(undisturbed.results, other.results)
        assert not list(other.root.glob("work/*")), "scratch folders are left behind"
