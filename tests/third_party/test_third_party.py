"""A package that knows only the registry brings a variant, and everything treats it as one of ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(__file__).parent / "site"
SUITE = """\
name: theirs
variants:
  dummy:
  acme_sam:
  narrow: {name: acme_sam, set: {decoder_mlp_dim: 32}}
deployments:
  torch-fp32: {threads: 1}
datasets:
  test: {kind: phantoms, seed: 2, size: 64, modalities: [US]}
measure:
  accuracy: {data: [test], deployments: [torch-fp32]}
  complexity:
"""


def bench(*arguments: str, site: Path = SITE) -> str:
    """Standard output of the real command line, in a process that has the package on its path."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def installed(tmp_path: Path) -> Path:
    """A copy of the package, to change."""
    return Path(shutil.copytree(SITE, tmp_path / "site", ignore=shutil.ignore_patterns("__pycache__")))


def test_the_package_has_fewer_than_25_lines():
    files = [path for path in SITE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    code = [path for path in files if path.name not in ("METADATA",)]
    assert {path.name for path in code} == {"acme_sam.py", "entry_points.txt"}
    assert sum(len(path.read_text().splitlines()) for path in code) < 25


def test_its_variant_is_listed_after_ours_and_explained():
    names = [row["name"] for row in json.loads(bench("list", "variants", "--json"))]
    assert names[0] == "dummy"
    assert names[-1] == "acme_sam"
    page = bench("show", "acme_sam")
    assert "convolutions before SAM's decoder" in page
    assert "decoder_mlp_dim 64" in page


def test_without_the_package_there_is_no_such_variant(tmp_path: Path):
    rows = json.loads(bench("list", "variants", "--json", site=tmp_path))
    assert "acme_sam" not in [row["name"] for row in rows]


def test_a_change_of_its_code_is_a_change_of_its_jobs_alone(tmp_path: Path):
    (tmp_path / "suite.yaml").write_text(SUITE)
    site = installed(tmp_path)

    def digests() -> dict[tuple[str, str], str]:
        plan = bench("run", str(tmp_path / "suite.yaml"), "--dry-run", "--json", "--results", str(tmp_path), site=site)
        return {(job["kind"], job["row"]): job["digest"] for job in json.loads(plan)["jobs"]}

    before = digests()
    code = (site / "acme_sam.py").read_text()
    (site / "acme_sam.py").write_text(code.replace("nn.GELU()", "nn.ReLU()"))
    after = digests()
    changed = {row for (kind, row), digest in after.items() if digest != before[kind, row]}
    assert changed == {"acme_sam", "narrow"}


@pytest.mark.slow
def test_it_is_run_and_reported_beside_ours(tmp_path: Path):
    (tmp_path / "suite.yaml").write_text(SUITE)
    results = ("--results", str(tmp_path / "results"))
    board = bench("run", str(tmp_path / "suite.yaml"), *results)
    assert "acme_sam" in board
    assert "narrow" in board
    rows = {row["variant"]: row for row in json.loads(bench("leaderboard", "--json", *results))["rows"]}
    assert {"dummy", "acme_sam", "narrow"} <= rows.keys()
    page = Path(bench("report", *results).strip()).read_text()
    assert "acme_sam" in page
    run = json.loads(bench("show", "run", "--json", *results))
    assert {job["state"] for job in run["jobs"]} == {"done"}
