"""The rules of a measurement: plain data that survives JSON and costs the measured process nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import variants
from harness.config import AccuracySettings, RuntimeSettings
from harness.errors import BenchError
from harness.inference import InputRules
from harness.suite import AccuracyMeasure


def test_rules_are_those_of_the_variant_and_the_loop_of_the_measurement() -> None:
    spec = replace(variants.spec("dummy"), prompts=("box", "points"), prompt_rule="code", loop="swin")
    assert InputRules.of(spec) == InputRules("longest-side", ("box", "points"), "code", "litemedsam-2024-05-23")
    assert InputRules.of(spec, "gray").loop == "gray"
    assert InputRules.of(spec, "published").loop == "swin"


def test_rules_survive_json() -> None:
    rules = InputRules("gray-code", ("box", "scribble"), "code", "gray")
    assert InputRules.from_json(json.loads(json.dumps(asdict(rules)))) == rules


@pytest.mark.parametrize("model", [AccuracySettings, RuntimeSettings, AccuracyMeasure])
def test_a_measurement_may_name_a_loop_or_leave_it_to_the_authors(model: type) -> None:
    needed = {"data": ("d",), "deployments": ("x",)} if model is AccuracyMeasure else {}
    assert model(**needed).loop == "litemedsam-2024-05-23"
    assert [model(loop=name, **needed).loop for name in ("gray", "published")] == ["gray", "published"]
    with pytest.raises(ValueError, match="rep-2024-06-19"):
        model(loop="spiral", **needed)


def test_a_variant_with_an_unknown_loop_is_refused() -> None:
    with pytest.raises(BenchError, match="no 3D loop 'spiral'"):
        InputRules.of(replace(variants.spec("dummy"), loop="spiral"), "published")


def test_every_variant_names_a_loop_that_there_is() -> None:
    for name in variants.names():
        assert InputRules.of(variants.spec(name), "published").loop == variants.spec(name).loop


def test_loops_and_protocols_are_read_without_a_heavy_import() -> None:
    code = (
        "import sys, harness.protocols\n"
        "assert not {'torch', 'numpy', 'pydantic', 'cv2', 'variants'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
