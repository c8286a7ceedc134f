"""A suite of seconds for tests of planning and execution."""

from pathlib import Path

SMALL = """\
name: small
variants:
  dummy:
  litemedsam_tiny:
deployments:
  torch-fp32: {threads: 2, allocator: keep-pages}
datasets:
  train: {kind: phantoms, seed: 1, per_modality: 1, size: 96, modalities: [CT, US]}
  test:
    {kind: phantoms, seed: 2, per_modality: 1, volumes: 1, size: 96, volume_size: 48, slices: 5, modalities: [CT, US]}
recipes:
  quick: {steps: 6, batch: 2, checkpoint_every: 2}
training: {data: train, recipe: quick}
subsets:
  few: {spread: 2}
measure:
  accuracy: {data: [test], deployments: [torch-fp32]}
  complexity:
  runtime: {data: [test], deployments: [torch-fp32], subset: few, sandboxes: [process], memory: 4GiB, timeout: 120}
"""

DUMMY = SMALL.replace("  litemedsam_tiny:\n", "")


def write_suite(folder: Path, text: str = SMALL) -> Path:
    """Write a suite file and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "suite.yaml"
    path.write_text(text)
    return path
