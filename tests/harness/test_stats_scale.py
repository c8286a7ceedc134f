"""Intervals of 100,000 cases, ten variants and two metrics: time and memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import json, re, time
from pathlib import Path
import numpy as np
from harness.stats import macro_intervals, mean_intervals
source = np.random.default_rng(0)
values = source.beta(5.0, 1.2, (100_000, 20))
values[source.random(values.shape) < 0.001] = np.nan
modalities = source.integers(0, 11, 100_000)
begun = time.perf_counter()
micro = mean_intervals(values, samples=1000)
macro = macro_intervals(values, modalities, samples=1000)
seconds = time.perf_counter() - begun
held = all(a.low < a.mean < a.high for a in [*micro, *macro.macro])
# Of this program alone: a process begins with its parent's ru_maxrss.
peak = 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
print(json.dumps({"seconds": seconds, "held": held, "intervals": len(micro) + len(macro.macro),
                  "bytes": peak}))
"""


@pytest.mark.full
def test_macro_and_micro_intervals_of_two_million_values_take_seconds_and_half_a_gigabyte():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, cwd=ROOT)
    found = json.loads(done.stdout)
    assert found["held"]
    assert found["intervals"] == 40
    assert found["seconds"] < 15
    assert found["bytes"] < 500e6
