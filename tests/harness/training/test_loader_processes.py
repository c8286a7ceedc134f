"""Worker processes that are interrupted, killed or orphaned; their batches stay the same."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from harness.errors import BenchError
from harness.training.loader import Loader
from tests.harness.training.test_loader import gone, same, samples_of, workers

pytestmark = pytest.mark.slow


def test_only_the_time_after_the_start_counts_as_waiting() -> None:
    with Loader(samples_of(), 1, workers=1) as loader:
        loader(0)
        assert loader.waited == 0
        loader(1)
        first = loader.waited
        time.sleep(0.5)
        loader(2)
        assert 0 < loader.waited - first < 0.25, "prepared meanwhile"


def test_four_workers_and_one_give_the_same_batches() -> None:
    expected = [samples_of().batch(index, 3) for index in range(12)]
    for count in (1, 4):
        with Loader(samples_of(), 3, workers=count) as loader:
            assert all(same(loader(index), batch) for index, batch in enumerate(expected))


def test_no_worker_is_left_after_an_exception_or_an_interrupt() -> None:
    for kind in (ValueError, KeyboardInterrupt):
        loader = Loader(samples_of(), 1, workers=2)
        with pytest.raises(kind), loader:  # noqa: PT012  # the exception comes from the body
            loader(0)
            found = workers()
            raise kind
        assert len(found) == 2
        assert gone(found)
        loader.close()


def test_a_killed_worker_is_said_in_a_sentence_and_a_new_call_starts_new_ones() -> None:
    with Loader(samples_of(), 1, workers=2) as loader:
        loader(0)
        for worker in (first := workers()):
            worker.kill()
        assert gone(first)
        with pytest.raises(BenchError, match=r"ended unexpectedly .*give `workers` a smaller number"):
            list(map(loader, range(1, 10)))  # the first may lie ready
        assert not multiprocessing.active_children()
        assert same(loader(3), samples_of().batch(3, 1))


PARENT = """
import time
from tests.harness.training.test_loader import samples_of, workers
from harness.training.loader import Loader

if __name__ == "__main__":
    loader = Loader(samples_of(), 1, workers=2)
    loader(0)
    print(*(worker.pid for worker in workers()), flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_a_parent_that_is_killed(deadly: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    root = Path(__file__).resolve().parents[3]
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as parent:
        assert parent.stdout is not None
        found = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(found) == 2
        parent.send_signal(deadly)
        parent.wait(timeout=30)
        assert gone(found)
