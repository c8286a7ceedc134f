"""`bench train`: one variant, one recipe, without writing a suite."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

import variants
from harness import torchrun
from harness.commands.recipes import shipped_recipe
from harness.commands.run import execute, follow
from harness.errors import BenchError
from harness.plan import make_plan
from harness.results import MODEL, open_results
from harness.run import Run
from harness.store import artifact_key
from harness.suitefile import SUITES, read_document, shipped_recipes
from harness.yamlfile import Document, Location, Place, apply_override, load

LENGTHS = ("steps", "epochs")
"""Fields of which a stage has one."""


@dataclass(frozen=True)
class Asked:
    """What is trained and how.

    Attributes:
        variant: name in the registry.
        recipe: name of a recipe that ships.
        sets: ``KEY=VALUE`` of the recipe; a key without ``stages.N.`` holds for every stage.
        teacher: checkpoint file or imported checkpoint of the teacher.
        weights: checkpoint file or imported checkpoint to start from; as initialised if left out.
        data: folder of challenge npz files; generated phantoms if left out.
        seed: of initialisation, order and augmentation.
    """

    variant: str
    recipe: str = "quick"
    sets: tuple[str, ...] = ()
    teacher: str | None = None
    weights: str | None = None
    data: str | None = None
    seed: int = 0

    @property
    def command(self) -> list[str]:
        """What was typed, for the report."""
        options = {"recipe": self.recipe, "teacher": self.teacher, "weights": self.weights, "data": self.data}
        words = [word for name, value in options.items() if value for word in (f"--{name}", value)]
        sets = [word for text in self.sets for word in ("--set", text)]
        return ["bench", "train", self.variant, *words, *sets, *(["--seed", str(self.seed)] if self.seed else [])]


def train_variant(asked: Asked, output: str | None, folder: str | None) -> int:
    """Train one variant with a shipped recipe on phantoms or a folder; 0 if the checkpoint stands.

    Raises:
        BenchError: a name that nothing has, a file or folder that is not there, or a recipe that takes no step.
        InvalidSuite: a mistake in ``sets``.
    """
    if not variants.spec(asked.variant).needs_torch:
        raise BenchError(f"{asked.variant} has no parameters to train; `bench list variants` shows those that have.")
    if output and not Path(output).resolve().parent.is_dir():
        raise BenchError(f"--output {output}: there is no such folder; make it first.")
    results = open_results(folder)
    plan = make_plan(read_document(training_document(asked), results=results)[0], results)
    if not plan.jobs:
        raise BenchError(f"recipe {asked.recipe!r} takes no step; give it some, e.g. --set steps=100.")
    if torchrun.rank():
        return follow(plan, results)
    if plan.suite.training and plan.suite.training.recipe != asked.recipe:
        Console().print(f"{asked.variant}: {plan.suite.training.recipe} in place of {asked.recipe}", highlight=False)
    code = execute(Run(plan, results, asked.command), plan, results)
    checkpoint = results.store.local(artifact_key(plan.jobs[-1].digest, MODEL))
    if checkpoint is None:
        return code or 1
    if output:
        shutil.copyfile(checkpoint, output)
    Console().print(f"Checkpoint: {output or checkpoint}", highlight=False, soft_wrap=True)
    return code


def training_document(asked: Asked) -> Document:
    """The suite that `bench train` stands for; a mistake in it is told with the option it came from."""
    recipes: dict[str, Any] = shipped_recipes()
    asked = replace(asked, recipe=shipped_recipe(asked.recipe).replaced_by(asked.variant) or asked.recipe)
    datasets = load(SUITES / "parts" / "datasets.yaml").data["datasets"]
    row = {"weights": asked.weights, "fine_tune": asked.recipe} if asked.weights else {}
    data = {
        "name": f"train-{asked.variant}".lower(),
        "title": f"Training of {asked.variant}",
        "variants": {asked.variant: row},
        "recipes": recipes,
        "datasets": {"train": asked.data or datasets["many"]},
        "training": {"data": "train", "recipe": asked.recipe, "seeds": [asked.seed]},
        "measure": {},
    }
    places: dict[Location, Place] = {
        ("variants", asked.variant): Place(f"--weights {asked.weights}"),
        ("datasets", "train"): Place(f"--data {asked.data}"),
    }
    document = Document(data, places, f"bench train {asked.variant}")
    if asked.teacher:
        _give_teacher(document, asked.recipe, asked.teacher)
    for text in asked.sets:
        for override in _override(text, asked.recipe, document):
            apply_override(document, override)
    _name_folders(document, asked.recipe)
    return document


def _give_teacher(document: Document, recipe: str, weights: str) -> None:
    """Every teacher of the recipe has these weights."""
    taught = [(place, fields) for place, fields in _parts(document, recipe) if "teacher" in fields]
    if not taught:
        raise BenchError(
            f"--teacher {weights}: recipe {recipe!r} has no teacher; `bench show recipe {recipe}` shows it."
        )
    for place, fields in taught:
        fields["teacher"] = {k: v for k, v in fields["teacher"].items() if k != "recipe"} | {"weights": weights}
        document.places[*place, "teacher"] = Place(f"--teacher {weights}")


def _parts(document: Document, recipe: str) -> Iterator[tuple[Location, dict[str, Any]]]:
    """The recipe's own fields and those of each stage, with their places."""
    own = document.data["recipes"][recipe]
    yield ("recipes", recipe), own
    stages = own.get("stages")
    for place, stage in enumerate(stages if isinstance(stages, list) else ()):
        if isinstance(stage, dict):
            yield ("recipes", recipe, "stages", place), stage


def _override(text: str, recipe: str, document: Document) -> Iterator[str]:
    """``--set`` as overrides of the suite; a field before which no stage stands is set for all of them."""
    key, equals, _ = text.partition("=")
    if not equals or not key.strip():
        raise BenchError(f"--set {text}: a field of the recipe is written key=value, e.g. --set steps=100.")
    path = key.strip().split(".")
    parts = dict(_parts(document, recipe))
    base: Location = ("recipes", recipe)
    if path[0] == "stages" and len(path) > 1 and len(parts) == 1:
        raise BenchError(f"--set {text}: recipe {recipe!r} is one stage; leave {'.'.join(path[:2])!r} out of the key.")
    if path[0] == "stages":
        _make_way(path[-1], *(fields for place, fields in parts.items() if [str(p) for p in place[2:]] == path[:-1]))
        targets = [base]
    else:
        _make_way(path[0], *parts.values())
        targets = [place for place, fields in parts.items() if path[0] in fields]
        # a part of a field is set where the field is; a whole one everywhere, but a teacher only where one teaches
        if base not in targets and not (targets and (len(path) > 1 or path[0] == "teacher")):
            targets = [base, *targets]
    yield from (".".join(map(str, (*target, text.strip()))) for target in targets)


def _make_way(name: str, *parts: dict[str, Any]) -> None:
    """Of `steps` and `epochs` the one that is set replaces the other."""
    if name in LENGTHS:
        for fields in parts:
            fields.pop(LENGTHS[1 - LENGTHS.index(name)], None)


def _name_folders(document: Document, recipe: str) -> None:
    """A stage's `data` that is no data set is a folder."""
    for place, fields in _parts(document, recipe):
        label = fields.get("data")
        if isinstance(label, str) and label not in document.data["datasets"]:
            document.data["datasets"][label] = label
            document.places["datasets", label] = document.place((*place, "data"))
