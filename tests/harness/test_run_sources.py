"""A whole suite on folders of NIfTI files and of pictures: the same values as on the npz files they came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.config import FolderData, PhantomData
from harness.data.convert import Form, convert
from harness.data.inspect import make
from tests.harness.test_run import Run, Silent, plan_of, records

SUITE = """\
name: sources
variants:
  dummy:
datasets:
  test: {source}
deployments:
  torch-fp32: {{threads: 1}}
measure:
  accuracy: {{data: [test], deployments: [torch-fp32], metrics: [dsc, nsd, hd95]}}
"""
PHANTOMS = PhantomData(
    seed=4, per_modality=1, volumes=1, size=96, volume_size=48, slices=5, modalities=("CT", "Fundus")
)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources") / "cases"
    make(PHANTOMS, folder)
    return folder


def values(folder: Path, source: dict[str, str]) -> dict[tuple[str | None, ...], float | None]:
    plan, results = plan_of(folder, text=SUITE.format(source=json.dumps(source)))
    assert Run(plan, results, ["bench", "run", "suite.yaml"], []).execute(Silent()) == 0
    found = records(plan, results, "accuracy")
    return {(r.case, r.modality, r.protocol, r.metric, str(r.object)): r.value for r in found}


@pytest.mark.parametrize("form", ["nifti", "png"])
def test_a_suite_gives_the_same_values_whatever_the_cases_are_stored_as(
    cases: Path, form: Form, tmp_path: Path
) -> None:
    convert(FolderData(path=str(cases)), tmp_path / "stored", form)
    places = {name: str(tmp_path / "stored" / folder) for name, folder in
              (("path", "images"), ("truth", "labels"), ("boxes", "boxes"))}  # fmt: skip
    stored = values(tmp_path / form, {"kind": "nifti" if form == "nifti" else "images", **places})
    plain = values(tmp_path / "npz", {"kind": "npz", "path": str(cases)})
    assert stored == plain
    assert {key[3] for key in plain} >= {"dsc", "nsd", "hd95"}
    assert len({key[0] for key in plain}) == 3
