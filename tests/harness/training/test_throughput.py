"""What layout, autocast, fused optimiser and allocator gain over the plain loop, measured in turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from harness.allocator import environment
from harness.data import open_dataset
from tests.harness.training.speed_child import DATA

PLAIN = {"channels_last": False, "bf16": False}
HAS_BF16 = "avx512_bf16" in Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else False


def trained(cache: Path, steps: int, fields: dict[str, Any], allocator: str) -> dict[str, list[float]]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    command = [sys.executable, "-m", "tests.harness.training.speed_child", str(cache), str(steps), json.dumps(fields)]
    env = clean | environment(allocator)
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout
    measured: dict[str, list[float]] = json.loads(out.splitlines()[-1])
    return measured


@pytest.mark.full
@pytest.mark.slow
def test_the_recipes_way_is_faster_than_the_plain_loop_and_learns_the_same(tmp_path: Path) -> None:
    open_dataset(DATA, tmp_path)
    fast: dict[str, Any] = {"channels_last": True, "bf16": HAS_BF16}
    rounds = [
        (trained(tmp_path, 6, PLAIN, "system"), trained(tmp_path, 6, fast, "keep-pages")) for _ in range(3)
    ]  # the first steps of a process fill caches
    plain, quick = (median(s for pair in rounds for s in pair[which]["seconds"][2:]) for which in (0, 1))
    print(f"plain {4 / plain:.2f} images/s, recipe {4 / quick:.2f} images/s: {plain / quick:.2f}x; bf16 {HAS_BF16}")  # noqa: T201
    assert plain / quick >= (2.5 if HAS_BF16 else 1.9)


@pytest.mark.full
@pytest.mark.slow
def test_after_twenty_steps_the_loss_is_the_same_within_the_noise_of_bf16(tmp_path: Path) -> None:
    open_dataset(DATA, tmp_path)
    plain = trained(tmp_path, 20, PLAIN, "system")["losses"]
    quick = trained(tmp_path, 20, {"channels_last": True, "bf16": True}, "keep-pages")["losses"]
    print(f"step 20: {plain[-1]:.4f} plain, {quick[-1]:.4f} in bf16")  # noqa: T201
    assert quick[-1] == pytest.approx(plain[-1], rel=0.05)
    assert torch.tensor(plain).sub(torch.tensor(quick)).abs().max() < 0.1
