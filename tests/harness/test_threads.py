"""Pools of threads are as large as they were told to be, and idle ones leave the processors to others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from harness.config import Deployment
from harness.execute import LocalExecutor
from harness.measure.runtime.bundle import environment_of
from harness.results import Results
from harness.threads import RESTING, environment, one_thread_each

IDLE = """
import time, numpy
square = numpy.ones((400, 400))
square @ square
began = time.process_time()
time.sleep(0.1)
print(time.process_time() - began)
"""


def idle_seconds(**changes: str) -> float:
    """Processor time of a process that waits 0.1 s after a product."""
    env = {**os.environ, **environment(2), **changes}
    out = subprocess.run([sys.executable, "-c", IDLE], check=True, capture_output=True, text=True, env=env).stdout
    return float(out)


def test_threads_of_a_product_rest_after_it() -> None:
    assert idle_seconds() < 0.01


def test_jobs_and_measured_processes_start_so(tmp_path: Path) -> None:
    assert environment_of(Deployment(threads=3)).items() >= environment(3).items()
    with LocalExecutor(Results(tmp_path), tmp_path / "log.txt") as executor:
        started = psutil.Process(executor._started().pid).environ()
    assert started.items() >= RESTING.items()


def test_one_thread_each_ends_with_its_block() -> None:
    before = dict(os.environ)
    with one_thread_each():
        assert {os.environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")} == {"1"}
    assert os.environ == before
