"""Several processes are one: started by torchrun as any other program, each with its share of every batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

CHILD = "tests.harness.training.process_child"


def trained(folder: Path, processes: int, model: str, fields: str = "{}") -> dict[str, Any]:
    out = folder / f"{processes}.pt"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", CHILD, str(out), model, fields]
    finished = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]
    loaded: dict[str, Any] = torch.load(out, weights_only=True)
    return loaded


def assert_alike(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert two["losses"] == pytest.approx(one["losses"], rel=2e-4)
    assert two["parts"] == pytest.approx(one["parts"], rel=2e-3)
    for name, tensor in one["model"].items():
        assert torch.allclose(two["model"][name].float(), tensor.float(), atol=2e-3), name


def test_two_processes_train_as_one_with_the_doubled_batch_batch_statistics_included(tmp_path: Path) -> None:
    assert_alike(trained(tmp_path, 1, "toy"), trained(tmp_path, 2, "toy"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("litemedsam_tiny", "{}"),
        ("rep_medsam_tiny", "{}"),
        ("medsam_vit_tiny", '{"micro_batch": 1, "clip": 0.5}'),  # pieces: has no batch statistics
    ],
)
def test_two_processes_train_a_variant_as_one_does(tmp_path: Path, model: str, fields: str) -> None:
    assert_alike(trained(tmp_path, 1, model, fields), trained(tmp_path, 2, model, fields))
