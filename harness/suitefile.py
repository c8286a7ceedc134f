"""From a YAML file and overrides to a checked suite; every mistake is found before anything runs."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

import variants
from harness.checkpoints import find_for
from harness.config import VariantRef
from harness.errors import BenchError
from harness.recipe import Recipe, Stage, Teacher
from harness.results import Results, open_results
from harness.suite import Row, Suite, expand
from harness.yamlfile import Document, InvalidSuite, Location, Problem, apply_override, load, suggest

SUITES = Path(__file__).resolve().parent.parent / "suites"


def find_suite(text: str) -> Path:
    """The suite file of a path or of the name of a suite that ships with medsam-bench."""
    path = Path(text)
    shipped = SUITES / (Path(text).name if text.endswith(".yaml") else f"{text}.yaml")
    if not path.exists() and shipped.is_file() and Path(text).parent.name in ("", "suites"):
        return shipped
    return path


def shipped_recipes() -> dict[str, dict[str, object]]:
    """Recipes of ``suites/recipes``: name → fields."""
    found: dict[str, dict[str, object]] = {}
    for path in sorted((SUITES / "recipes").glob("*.yaml")):
        found |= load(path).data["recipes"]
    return found


def read_suite(path: Path, overrides: Sequence[str] = (), results: Results | None = None) -> tuple[Suite, Document]:
    """Load, merge, override and check a suite.

    Args:
        results: where imported checkpoints are looked for; the usual results folder if left out.

    Raises:
        InvalidSuite: with all mistakes, each naming file, line and field, and how to mend it.
    """
    return read_document(load(path), overrides, results)


def read_document(
    document: Document, overrides: Sequence[str] = (), results: Results | None = None
) -> tuple[Suite, Document]:
    """As ``read_suite``, from what was loaded already."""
    for text in overrides:
        apply_override(document, text)
    problems: list[Problem] = []
    suite = _validated(document, problems)
    if suite is not None:
        problems += check(suite, document, results)
    if problems or suite is None:
        raise InvalidSuite(sorted(problems, key=lambda p: (p.place.source, p.place.line or 0)))
    return suite, document


def _validated(document: Document, problems: list[Problem]) -> Suite | None:
    """The suite, its schema errors noted and left out, so that the remaining checks still run."""
    data = document.data
    dropped: list[Location] = []
    for _ in range(50):
        try:
            return Suite.model_validate(data)
        except ValidationError as error:
            told = [e for e in error.errors() if not _made_here(e, dropped)]
            fresh = [_problem(e, document) for e in told]
            problems += [p for p in fresh if p not in problems]
            locations = [_in_data(data, e["loc"]) for e in error.errors()]
            if any(not location for location in locations):
                return None
            for location in locations:
                data = _without(data, location)
            dropped += locations
    return None


def _made_here(error: Any, dropped: Sequence[Location]) -> bool:
    """Whether the error is about what was left out for another mistake, not about what the user wrote."""
    at = tuple(error["loc"])
    about = [d for d in dropped if d[: len(at)] == at and f"`{d[-1]}`" in error["msg"]]
    return bool(about or (dropped and error["type"] == "missing"))


def _in_data(data: Any, loc: Location) -> Location:
    """The part of an error's location that exists in the data, i.e. without the tags of unions."""
    out: list[str | int] = []
    for key in loc:
        if not isinstance(data, dict | list):
            break
        if key in data if isinstance(data, dict) else isinstance(key, int):
            out.append(key)
            data = data[key]  # type: ignore[index]
    return tuple(out)


def _without(data: Any, location: Location) -> Any:
    if isinstance(data, dict):
        if len(location) == 1:
            return {k: v for k, v in data.items() if k != location[0]}
        return {k: _without(v, location[1:]) if k == location[0] else v for k, v in data.items()}
    if isinstance(data, list) and isinstance(location[0], int):
        at = location[0]
        if at >= len(data):
            return data  # left out already, for another mistake in it
        kept: list[Any] = [v for i, v in enumerate(data) if i != at]
        if len(location) > 1:
            kept.insert(at, _without(data[at], location[1:]))
        return kept
    return data


def _problem(error: Any, document: Document) -> Problem:
    location = _in_data(document.data, error["loc"])
    missing = error["type"] == "missing"
    name = ".".join(map(str, (*location, error["loc"][-1]) if missing else location))
    message, remedy = error["msg"].removeprefix("Value error, "), ""
    if error["type"] == "extra_forbidden":
        message = "is not a field that is known here"
        remedy = suggest(str(error["loc"][-1]), fields_at(Suite, error["loc"][:-1]))
    elif missing:
        message, remedy = "is missing", f"Add `{error['loc'][-1]}:` here."
    elif error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        message, remedy = (
            "needs `kind`",
            "Known kinds: phantoms, workload, npz, nifti, images; or write the folder's path alone.",
        )
    elif not error["type"].startswith("value_error"):
        message = f"{message[0].lower()}{message[1:]} (got {error['input']!r:.60})"
    return Problem(document.place(location), name, message.rstrip("."), remedy)


def fields_at(model: Any, location: Location) -> list[str]:
    """Field names a suite may have at a location (through mappings, lists and unions)."""
    options = [model]
    for key in location:
        options = [child for option in options for child in _children(option, key)]
    models = [m for option in options for m in _models(option)]
    return sorted({name for m in models for name in m.model_fields})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for arg in typing.get_args(annotation) for m in _models(arg)]


def _children(annotation: Any, key: str | int) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        found = annotation.model_fields.get(str(key))
        return [found.annotation] if found else [annotation]  # a union's tag stays where it is
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is dict:
        return [args[1]]
    if origin in (list, tuple):
        return [args[0]]
    return [child for arg in args for child in _children(arg, key)]


def check(suite: Suite, document: Document, results: Results | None = None) -> list[Problem]:
    """Mistakes that the schema cannot see: names that nothing has, files that are not there."""
    return [*_Check(suite, document, results or open_results()).run()]


class _Check:
    def __init__(self, suite: Suite, document: Document, results: Results) -> None:
        self.suite, self.document, self.results = suite, document, results
        self.problems: list[Problem] = []

    def run(self) -> list[Problem]:
        rows = expand(self.suite)
        self._rows(rows)
        self._ablations()
        self._gates(list(rows))
        self._training(rows)
        self._recipes(self._used_recipes(rows))
        for kind in ("fidelity", "accuracy", "latency", "runtime"):
            self._measure(kind)
        self._data()
        return self.problems

    def say(self, location: Location, message: str, remedy: str = "") -> None:
        self.problems.append(Problem(self.document.place(location), ".".join(map(str, location)), message, remedy))

    def known(self, location: Location, name: str | None, section: str, what: str) -> None:
        """The name must stand in a section as written, also where that entry has mistakes of its own."""
        written = self.document.data.get(section)
        names = list(written) if isinstance(written, dict) else []
        if name is not None and name not in names:
            self.say(location, f"there is no {what} {name!r}", suggest(name, names))

    def _rows(self, rows: dict[str, Row]) -> None:
        for label, row in rows.items():
            location: Location = ("variants", label)
            if row.ablation:
                location = ("ablations", row.ablation)
            else:
                for field in ("recipe", "fine_tune"):
                    self.known((*location, field), getattr(row, field), "recipes", "recipe")
                for name in row.deployments or ():
                    self.known((*location, "deployments"), name, "deployments", "deployment")
            if row.image:
                self._image(label, row.image.source)
                continue
            try:
                variants.resolve(row.ref.name, row.ref.set)
            except variants.VariantError as error:
                if not (row.ablation and row.base and self._broken(rows[row.base])):
                    self.say(location, str(error).rstrip("."))
            if row.weights and not row.ablation and not self._broken(row):
                try:
                    find_for(self.results, row.weights, row.ref)
                except BenchError as error:
                    self.say((*location, "weights"), str(error).rstrip("."))

    def _image(self, label: str, source: str) -> None:
        location: Location = ("variants", label, "image")
        from harness.measure.runtime.foreign import is_archive  # listings need no sandbox

        if is_archive(source) and not Path(source).is_file():
            self.say(location, f"the file {source} does not exist", "Give an image's name or a tar of `docker save`.")
        if self.suite.measure.runtime is None:
            self.say(location, "an image has a runtime and nothing else to measure", "Add `runtime` under `measure`.")

    def _broken(self, row: Row) -> bool:
        try:
            variants.resolve(row.ref.name, row.ref.set)
        except variants.VariantError:
            return True
        return False

    def _ablations(self) -> None:
        taken: dict[str, str] = {}
        for name, ablation in self.suite.ablations.items():
            self.known(("ablations", name, "base"), ablation.base, "variants", "variant")
            base = self.suite.variants.get(ablation.base)
            if base and base.image:
                self.say(("ablations", name, "base"), f"{ablation.base!r} is an image, it has nothing to vary")
                continue
            for label in ablation.expand():
                if taken.setdefault(label, name) != name:
                    message = f"{label!r} is a row of ablation {taken[label]!r} too"
                    self.say(("ablations", name), message, "Give one of the rows another name.")

    def _gates(self, labels: typing.Collection[str]) -> None:
        for name, rule in self.suite.gates.items():
            for pattern in rule.variants:
                self._matches(("gates", name, "variants"), pattern, labels)

    def _matches(self, location: Location, pattern: str, names: typing.Collection[str]) -> None:
        if not any(fnmatchcase(name, pattern) for name in names):
            self.say(location, f"no variant is called {pattern!r}", suggest(pattern, names))

    def _training(self, rows: dict[str, Row]) -> None:
        training = self.suite.training
        if training:
            self.known(("training", "data"), training.data, "datasets", "data set")
            self.known(("training", "recipe"), training.recipe, "recipes", "recipe")
        elif any(row.recipe or row.fine_tune for row in rows.values()):
            self.say(
                ("training",), "is missing, but variants name a recipe", "Add `training:` with `data` and `recipe`."
            )

    def _used_recipes(self, rows: dict[str, Row]) -> set[str]:
        """Recipes that train a row, or the teacher of one that does."""
        training = self.suite.training
        if training is None:
            return set()
        trained = [row for row in rows.values() if not row.image and (row.fine_tune or not row.weights)]
        names = {row.fine_tune or row.recipe or training.recipe for row in trained if self._has_parameters(row)}
        return self._needed(names)

    def _has_parameters(self, row: Row) -> bool:
        return not self._broken(row) and variants.spec(row.ref.name).needs_torch

    def _needed(self, names: typing.Iterable[str]) -> set[str]:
        """The recipes, what may replace them, and those of their teachers, of their teachers' teachers and so on."""
        found, todo = set[str](), list(names)
        while todo:
            name = todo.pop()
            if name in self.suite.recipes and name not in found:
                found.add(name)
                todo += self.suite.recipes[name].instead.values()
                todo += [t.recipe for _, t in _teachers(name, self.suite.recipes[name]) if t.recipe]
        return found

    def _recipes(self, used: typing.Collection[str]) -> None:
        for name, recipe in self.suite.recipes.items():
            for pattern, other in recipe.instead.items():
                self._replacement(("recipes", name, "instead", pattern), pattern, other)
            for location, stage in _written(name, recipe):
                self.known((*location, "data"), stage.data, "datasets", "data set")
            for location, teacher in _teachers(name, recipe):
                self._teacher(location, teacher, name in used)
                if teacher.recipe and name in self._needed([teacher.recipe]):
                    message = f"trains the teacher of {name!r}, which is what it needs itself"
                    self.say((*location, "recipe"), message, "Name a recipe without this one, or give `weights`.")

    def _replacement(self, location: Location, pattern: str, other: str) -> None:
        self._matches(location, pattern, variants.names())
        self.known(location, other, "recipes", "recipe")
        if other in self.suite.recipes and self.suite.recipes[other].instead:
            self.say(
                location, f"recipe {other!r} is itself replaced for some variants", "Name a recipe without `instead`."
            )

    def _teacher(self, location: Location, teacher: Teacher, used: bool) -> None:
        self.known((*location, "recipe"), teacher.recipe, "recipes", "recipe")
        try:
            spec = variants.resolve(teacher.name, teacher.set)
        except variants.VariantError as error:
            field = "set" if teacher.name in variants.names() else "name"
            self.say((*location, field), str(error).rstrip("."))
            return
        if not spec.needs_torch:
            remedy = "Name a model; `bench list variants` shows them."
            self.say((*location, "name"), f"{teacher.name} has no embedding to imitate", remedy)
        elif teacher.weights and used:  # a recipe that ships may name weights that only its users need
            try:
                find_for(self.results, teacher.weights, VariantRef(name=teacher.name, set=teacher.set))
            except BenchError as error:
                self.say((*location, "weights"), str(error).rstrip("."))

    def _measure(self, kind: str) -> None:
        measure: Any = getattr(self.suite.measure, kind)
        if measure is None:
            return
        for name in measure.deployments:
            self.known(("measure", kind, "deployments"), name, "deployments", "deployment")
        if kind in ("fidelity", "latency"):
            return
        for name in measure.data:
            self.known(("measure", kind, "data"), name, "datasets", "data set")
        self.known(("measure", kind, "subset"), measure.subset, "subsets", "subset")

    def _data(self) -> None:
        for name, spec in self.suite.datasets.items():
            for field in ("path", "truth", "boxes"):
                value = getattr(spec, field, None)
                if value and not Path(value).expanduser().is_dir():
                    location: Location = ("datasets", name, field)
                    what = "challenge npz files" if spec.kind == "npz" else f"{spec.kind} files"
                    self.say(location, f"the folder {value} does not exist", f"Give a folder of {what}.")
            split = getattr(spec, "split", None)
            for field in ("file", "table"):
                value = getattr(split, field, None)
                if value and not Path(value).expanduser().is_file():
                    remedy = "Write one with `bench data split`." if field == "file" else "Give a CSV file."
                    self.say(("datasets", name, "split", field), f"the file {value} does not exist", remedy)


def _written(name: str, recipe: Recipe) -> Iterator[tuple[Location, Stage]]:
    """The recipe's own fields and each stage's, as they were written, with their places."""
    yield ("recipes", name), recipe
    for place, stage in enumerate(recipe.stages):
        yield ("recipes", name, "stages", place), stage


def _teachers(name: str, recipe: Recipe) -> list[tuple[Location, Teacher]]:
    return [((*location, "teacher"), stage.teacher) for location, stage in _written(name, recipe) if stage.teacher]


def load_suite(text: str, overrides: Sequence[str] = ()) -> Suite:
    """The suite of a path or shipped name; raises ``InvalidSuite``."""
    return read_suite(find_suite(text), overrides)[0]


__all__ = ["InvalidSuite", "fields_at", "find_suite", "load_suite", "read_document", "read_suite", "shipped_recipes"]
