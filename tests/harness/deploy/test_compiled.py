"""Ahead-of-time compilation: a shared library that runs with torch and without a compiler."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.deploy.support import agreement, deploy, toy

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.slow

RUN = """
import json, sys
from pathlib import Path
import numpy as np
from harness.inference.aot_session import AotSession
folder = Path(sys.argv[1])
session = AotSession(folder, json.loads((folder / "description.json").read_text()), 1)
logits, _ = session.decode(session.encode(np.zeros((2, 3, 64, 64), np.float32)), np.zeros((5, 4), np.float32))
assert logits.shape == (5, 1, 64, 64)
assert not {"torch._inductor.codecache", "torch._inductor.cpp_builder", "variants.sam", "pydantic"} & set(sys.modules)
"""


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        pytest.param({}, 0.9999, id="fp32"),
        pytest.param({"channels_last": True}, 0.9999, id="channels_last", marks=pytest.mark.full),
        pytest.param({"precision": "bf16"}, 0.9, id="bf16", marks=pytest.mark.full),
    ],
)
def test_a_compiled_model_agrees_with_torch_and_takes_any_number(settings, least: float, tmp_path: Path) -> None:
    made = deploy(toy(), tmp_path, compile=True, **settings)
    assert made.made.files == {"encoder": "encoder.so", "decoder": "decoder.so"}
    assert made.made.facts["checked"]["decoder"] == [1, 3, 17]
    assert agreement(made.session(), toy()) >= least
    if not settings:
        (tmp_path / "description.json").write_text(json.dumps(made.description))
        # no compiler on the path, nothing to write: a container
        environment = {"PATH": "/nowhere", "PYTHONPATH": str(ROOT), "TMPDIR": "/nowhere", "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-c", RUN, str(tmp_path)], check=True, env=environment, cwd=ROOT)
