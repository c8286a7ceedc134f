"""`bench train`: one training job without writing a suite."""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.console import Console

import variants
from harness.commands.run import execute
from harness.errors import BenchError
from harness.plan import make_plan
from harness.results import MODEL, open_results
from harness.run import Run
from harness.store import artifact_key
from harness.suite import Suite
from harness.suitefile import SUITES, shipped_recipes
from harness.yamlfile import load, suggest


def train_variant(name: str, recipe: str, seed: int, data: str | None, output: str | None, folder: str | None) -> int:
    """Train one variant with a shipped recipe on phantoms or a folder; 0 if the checkpoint stands."""
    if not variants.spec(name).needs_torch:
        raise BenchError(f"{name} has no parameters to train; `bench list variants` shows those that have.")
    if output and not Path(output).resolve().parent.is_dir():
        raise BenchError(f"--output {output}: there is no such folder; make it first.")
    recipes = shipped_recipes()
    if recipe not in recipes:
        raise BenchError(f"there is no recipe {recipe!r}. {suggest(recipe, recipes)}")
    datasets = load(SUITES / "parts" / "datasets.yaml").data["datasets"]
    suite = Suite.model_validate(
        {
            "name": f"train-{name}".lower(),
            "title": f"Training of {name}",
            "variants": {name: {}},
            "recipes": recipes,
            "datasets": {"train": data or datasets["train"]},
            "training": {"data": "train", "recipe": recipe, "seeds": [seed]},
            "measure": {},
        }
    )
    results = open_results(folder)
    plan = make_plan(suite, results)
    code = execute(Run(plan, results, ["bench", "train", name]), plan, results)
    checkpoint = results.store.local(artifact_key(plan.jobs[-1].digest, MODEL)) if plan.jobs else None
    if checkpoint is None:
        return code or 1
    if output:
        shutil.copyfile(checkpoint, output)
    Console().print(f"Checkpoint: {output or checkpoint}", highlight=False, soft_wrap=True)
    return code
