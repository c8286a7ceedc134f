"""`bench list` and `bench show`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

import variants
from harness.commands.train import shipped_recipes
from harness.config import Recipe, canonical
from harness.errors import BenchError
from harness.protocols import PROTOCOLS
from harness.results import open_results, read_run
from harness.suite import Suite
from harness.suitefile import SUITES, find_suite, read_suite
from harness.yamlfile import load, suggest

Row = dict[str, Any]


def print_listing(what: str, as_json: bool, folder: str | None) -> None:
    """Print what there is of a kind, as a table or as JSON."""
    rows = _runs(folder) if what == "runs" else LISTINGS[what]()
    if as_json:
        print(json.dumps(rows, indent=1))  # noqa: T201
        return
    if not rows:
        Console().print(f"No {what} yet.", highlight=False)
        return
    table = Table(title=what.capitalize(), title_justify="left")
    for column in rows[0]:
        table.add_column(column.replace("_", " ").capitalize(), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(v) for v in row.values()))
    Console().print(table)


def _cell(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "–" if value is None else str(value)


def _variants() -> list[Row]:
    specs = [variants.spec(name) for name in variants.names()]
    return [
        {"name": s.name, "family": s.family, "parameters": s.params, "input_size": s.input_size, "summary": s.summary}
        for s in specs
    ]


def _parts(section: str) -> list[Row]:
    entries = load(SUITES / "parts" / f"{section}.yaml").data[section]
    return [{"name": name, **{k: str(v) for k, v in fields.items()}} for name, fields in entries.items()]


def _deployments() -> list[Row]:
    rows = _parts("deployments")
    columns = list(dict.fromkeys(k for row in rows for k in row))
    return [{c: row.get(c) for c in columns} for row in rows]


def _datasets() -> list[Row]:
    entries = load(SUITES / "parts" / "datasets.yaml").data["datasets"]
    return [{"name": n, "kind": e["kind"], "fields": _fields(e)} for n, e in entries.items()]


def _recipes() -> list[Row]:
    return [{"name": n, "fields": _fields(e), "source": e.get("source", "")} for n, e in shipped_recipes().items()]


def _fields(entry: Row) -> str:
    return ", ".join(f"{k}={v}" for k, v in entry.items() if k not in ("kind", "source"))


def _protocols() -> list[Row]:
    return [{"name": name, "rules": text} for name, text in PROTOCOLS.items()]


def _suites() -> list[Row]:
    documents = [load(path) for path in sorted(SUITES.glob("*.yaml"))]
    return [
        {"name": d.data["name"], "title": d.data.get("title", ""), "takes": d.data.get("takes", "")} for d in documents
    ]


def _runs(folder: str | None) -> list[Row]:
    rows = []
    for path in open_results(folder).run_folders():
        data = read_run(path)
        states = [job["state"] for job in data["jobs"]]
        counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
        rows.append({"id": data["id"], "status": data["status"], "started": data["started"], "jobs": counts})
    return rows


LISTINGS: dict[str, Callable[[], list[Row]]] = {
    "variants": _variants,
    "deployments": _deployments,
    "datasets": _datasets,
    "recipes": _recipes,
    "protocols": _protocols,
    "suites": _suites,
}


def print_one(what: str, name: str | None, overrides: Sequence[str], as_json: bool, folder: str | None) -> None:
    """Print one thing in full, as YAML or JSON.

    Raises:
        BenchError: nothing of that name.
    """
    if what == "schema":
        print(json.dumps(suite_schema(), indent=1))  # noqa: T201
        return
    if name is None and what != "run":
        raise BenchError(f"`bench show {what}` needs a name; `bench list {what}s` shows them.")
    data = _one(what, name or "latest", overrides, folder)
    print(json.dumps(data, indent=1) if as_json else yaml.safe_dump(data, sort_keys=False, width=100).rstrip())  # noqa: T201


def _one(what: str, name: str, overrides: Sequence[str], folder: str | None) -> Any:
    if what == "variant":
        spec = variants.spec(name)
        fields = ("name", "family", "summary", "params", "input_size", "preprocess", "source")
        hyperparameters = {k: _plain(v) for k, v in spec.hyperparameters.items()}
        return {k: getattr(spec, k) for k in fields} | {
            "prompts": list(spec.prompts),
            "hyperparameters": hyperparameters,
        }
    if what == "suite":
        return canonical(read_suite(find_suite(name), overrides)[0])
    if what == "run":
        return read_run(open_results(folder).find_run(name))
    recipes = shipped_recipes()
    if name not in recipes:
        raise BenchError(f"there is no recipe {name!r}. {suggest(name, recipes)}")
    return canonical(Recipe.model_validate(recipes[name]))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def suite_schema() -> dict[str, Any]:
    """JSON schema of suite files, for editors; ``suites/suite.schema.json`` is this."""
    schema = Suite.model_json_schema()
    schema["properties"]["include"] = {
        "description": "files merged before this one, later values win",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    schema.pop("required", None)  # an included file may hold any part
    return schema | {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "medsam-bench suite"}
