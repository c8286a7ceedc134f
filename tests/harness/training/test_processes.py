"""Several processes are one: started by torchrun as any other program, each with its share of every batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from tests.harness.training.toys import write_toys

CHILD = "tests.harness.training.process_child"


def start(out: Path, processes: int, model: str, fields: str) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", CHILD, str(out), model, fields]
    finished = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]


def trained(folder: Path, processes: int, model: str, fields: str = "{}") -> dict[str, Any]:
    out = folder / f"{processes}.pt"
    start(out, processes, model, fields)
    loaded: dict[str, Any] = torch.load(out, weights_only=True)
    return loaded


def assert_alike(one: dict[str, Any], two: dict[str, Any]) -> None:
    """The first step up to the order of sums; AdamW then makes whole steps of the smallest gradients' signs."""
    assert two["losses"][0] == pytest.approx(one["losses"][0], rel=1e-4)
    assert two["norms"][0] == pytest.approx(one["norms"][0], rel=1e-3), "AdamW would hide a gradient of another scale"
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-3)
    assert two["norms"] == pytest.approx(one["norms"], rel=1e-2)
    assert two["parts"] == pytest.approx(one["parts"], abs=1e-3)


def test_two_processes_train_as_one_with_the_doubled_batch_batch_statistics_included(tmp_path: Path) -> None:
    assert_alike(trained(tmp_path, 1, "toy"), trained(tmp_path, 2, "toy"))


def test_where_several_processes_diverge_each_names_the_cases_of_the_whole_batch(tmp_path: Path) -> None:
    start(tmp_path / "out", 2, "toy", '{"learning_rate": 1e38}')
    named = [(tmp_path / f"out.{rank}").read_text().split() for rank in (0, 1)]
    assert named[0] == named[1]
    assert len(named[0]) == 4


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


@pytest.mark.slow
def test_bench_train_works_unchanged_under_torchrun(tmp_path: Path) -> None:
    """Four stages, of which the second is judged: one run folder, and the records of one process."""
    settings = ("batch=2", "steps=3", "bf16=false", "stages.1.validation={share: 0.4, every: 2}")
    recipe = ["--recipe", "quick", *(word for text in settings for word in ("--set", text))]
    data = write_toys(tmp_path / "data")
    losses = {}
    for processes in (1, 2):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        results = tmp_path / f"results-{processes}"
        command = [sys.executable, *(launcher if processes > 1 else []), "-m", "harness.cli", "train"]
        command += ["medsam_vit_tiny", *recipe, "--data", data.path, "--results", str(results)]
        command += ["-o", str(tmp_path / f"{processes}.safetensors")]
        finished = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
        assert finished.returncode == 0, finished.stderr[-3000:]
        assert finished.stdout.count("Checkpoint:") == 1, "the other processes say nothing"
        table = pd.concat(pd.read_parquet(records) for records in results.glob("store/records/*.parquet"))
        losses[processes] = table[table.metric.str.endswith("_loss")].value.sort_values().tolist()
        assert len(list((results / "runs").iterdir())) == 1
    assert len(losses[1]) == 4 * 3 + 2
    assert losses[2] == pytest.approx(losses[1], rel=1e-4)
