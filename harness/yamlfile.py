"""YAML with positions, includes and overrides: every value remembers the file and line it came from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.errors import BenchError

Location = tuple[str | int, ...]
MAX_DEPTH = 20


@dataclass(frozen=True)
class Place:
    """Where a value was written: a file and a 1-based line, or the command line."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Problem:
    """One mistake: where, which field, what, and how to mend it."""

    place: Place
    field: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f" {self.remedy}" if self.remedy else ""
        return (
            f"{self.place}: {self.field}: {self.message}.{remedy}" if self.field else f"{self.place}: {self.message}."
        )


class InvalidSuite(BenchError):  # noqa: N818  (named for what the user is told)
    """All mistakes of a suite at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = list(problems)


@dataclass
class Document:
    """Plain data with the place of every key and item."""

    data: dict[str, Any]
    places: dict[Location, Place]
    source: str
    includes: list[Path] = field(default_factory=list)

    def place(self, location: Location) -> Place:
        """The place of a location, or of its nearest enclosing one."""
        for end in range(len(location), -1, -1):
            found = self.places.get(location[:end])
            if found:
                return found
        return Place(self.source)


def load(path: Path) -> Document:
    """Read a YAML file and the files it includes (later values win, mappings are merged).

    Raises:
        InvalidSuite: unreadable file, YAML that does not parse, a key written twice, an include that is missing or
            includes itself.
    """
    return _load(path, ())


def _load(path: Path, chain: tuple[Path, ...]) -> Document:
    source = _shown(path)
    resolved = path.resolve()
    if resolved in chain:
        raise InvalidSuite(
            [Problem(Place(source), "include", "the file includes itself", "Remove one of the includes.")]
        )
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        remedy = "`bench list suites` shows those that ship with medsam-bench."
        raise InvalidSuite([Problem(Place(source), "file", f"cannot be read ({error.strerror})", remedy)]) from None
    except UnicodeDecodeError:
        raise InvalidSuite([Problem(Place(source), "file", "is not UTF-8 text", "Save it as UTF-8.")]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        message = f"is not valid YAML ({getattr(error, 'problem', None) or getattr(error, 'reason', error)})"
        raise InvalidSuite([Problem(Place(source, line), "syntax", message, "Check indentation and quotes.")]) from None
    if not isinstance(node, yaml.MappingNode):
        raise InvalidSuite(
            [Problem(Place(source, 1), "file", "must hold `key: value` pairs", "See suites/quickstart.yaml.")]
        )
    reader = _Reader(source)
    own = Document(reader.value(node, ()), reader.places, source, [resolved])
    if reader.problems:
        raise InvalidSuite(reader.problems)
    return _with_includes(own, path, (*chain, resolved))


def _shown(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


class _Reader:
    """Turns YAML nodes into data and notes where each came from."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.places: dict[Location, Place] = {}
        self.problems: list[Problem] = []
        self._loader = yaml.SafeLoader("")

    def value(self, node: yaml.Node, location: Location) -> Any:
        self.places.setdefault(location, Place(self.source, node.start_mark.line + 1))
        if len(location) > MAX_DEPTH:
            if not self.problems:
                place = Place(self.source, node.start_mark.line + 1)
                self.problems.append(Problem(place, str(location[0]), "is nested too deeply", "An alias holds itself?"))
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*location, i)) for i, child in enumerate(node.value)]
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            place = Place(self.source, node.start_mark.line + 1)
            name = ".".join(map(str, location))
            said = getattr(error, "problem", None) or str(error)
            self.problems.append(Problem(place, name, f"cannot be understood ({said})", "Quote the value."))
            return None

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            place = Place(self.source, key_node.start_mark.line + 1)
            if key in data:
                self.problems.append(Problem(place, key, "is written twice", "Keep one of the two."))
            self.places[(*location, key)] = place
            data[key] = self.value(value_node, (*location, key))
        return data


def _with_includes(own: Document, path: Path, chain: tuple[Path, ...]) -> Document:
    names = own.data.pop("include", [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise InvalidSuite([Problem(own.place(("include",)), "include", "must be a list of files")])
    merged = Document({}, {}, own.source)
    for i, name in enumerate(names):
        target = path.parent / name
        if not target.is_file():
            place = own.place(("include", i))
            near = suggest(name, [p.name for p in target.parent.glob("*.yaml")] if target.parent.is_dir() else [])
            raise InvalidSuite([Problem(place, "include", f"{name!r} does not exist beside {own.source}", near)])
        _merge(merged, _load(target, chain))
    _merge(merged, own)
    return merged


def _merge(base: Document, over: Document) -> None:
    base.data = _merged(base.data, over.data)
    base.places |= over.places
    base.includes += over.includes


def _merged(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        return base | {k: _merged(base[k], v) if k in base else v for k, v in over.items()}
    return over


def apply_override(document: Document, text: str) -> None:
    """Set ``a.b.c=value`` in the document; the value is YAML, mappings on the way are made as needed.

    Raises:
        InvalidSuite: no ``=``, a value that is not YAML, or a path through something that is no mapping.
    """
    path, equals, raw = text.partition("=")
    place = Place(f"command line: {text}")
    if not equals or not path.strip():
        raise InvalidSuite([Problem(place, "", "an override is written key=value", "")])
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError:
        raise InvalidSuite([Problem(place, path, "the value is not valid YAML", "Quote it.")]) from None
    location: Location = tuple(int(k) if k.isdigit() else k for k in path.strip().split("."))
    _set(document.data, location, value, place)
    document.places = {k: v for k, v in document.places.items() if k[: len(location)] != location}
    document.places[location] = place


def _set(data: Any, location: Location, value: Any, place: Place) -> None:
    """Set a value inside nested mappings and lists; an entry written without fields counts as an empty mapping."""
    for depth, key in enumerate(location):
        known = isinstance(data, dict) or (isinstance(data, list) and isinstance(key, int) and key < len(data))
        if not known:
            name = ".".join(map(str, location[:depth]))
            raise InvalidSuite([Problem(place, name, f"holds no field or item {key!r}")])
        key = str(key) if isinstance(data, dict) else key
        if depth + 1 == len(location):
            data[key] = value
        elif isinstance(data, dict) and data.get(key) is None:
            data[key] = {}
        data = data[key]


def suggest(word: str, known: Iterable[str]) -> str:
    """``Did you mean …?``, or the list of what is known."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {near[0]!r}?"
    return f"Known: {', '.join(names)}." if names else ""
