"""`bench list` and `bench show`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

import variants
from harness import checkpoints
from harness.commands.explain import print_variant, variant_data
from harness.commands.recipes import print_recipe, recipe_data, recipe_list, recipe_table, shipped_recipe
from harness.config import Deployment, canonical
from harness.errors import BenchError
from harness.protocols import PROTOCOLS, loop_rows
from harness.results import Results, open_results, read_run
from harness.suite import Suite
from harness.suitefile import SUITES, find_suite, read_suite, shipped_recipes
from harness.yamlfile import load, suggest

Row = dict[str, Any]


def print_listing(what: str, as_json: bool, folder: str | None) -> None:
    """Print what there is of a kind, as a table or as JSON with everything that is known."""
    rows = STORED[what](open_results(folder)) if what in STORED else LISTINGS[what]()
    if as_json:
        print(json.dumps(rows, indent=1))  # noqa: T201
        return
    if not rows:
        Console().print(f"No {what} yet.", highlight=False)
        return
    for title, part in TABLES[what](rows).items() if what in TABLES else [(what.capitalize(), rows)]:
        table = Table(title=title, title_justify="left")
        for column in part[0]:
            table.add_column(column.replace("_", " ").capitalize(), overflow="fold", no_wrap=column == "name")
        for row in part:
            table.add_row(*(_cell(v) for v in row.values()))
        Console().print(table)


def _cell(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "–" if value is None else str(value)


def _variants() -> list[Row]:
    return [variant_data(variants.spec(name)) for name in variants.names()]


def _few_columns(rows: list[Row]) -> dict[str, list[Row]]:
    columns = ("name", "parameters", "input_size", "summary")
    return {"Variants": [{c: row[c] for c in columns} for row in rows]}


def _deployments() -> list[Row]:
    entries = load(SUITES / "parts" / "deployments.yaml").data["deployments"]
    return [{"name": name, **canonical(Deployment.model_validate(fields))} for name, fields in entries.items()]


def _switches(rows: list[Row]) -> dict[str, list[Row]]:
    """What differs from the usual in one column."""
    shown = []
    for row in rows:
        on = [key.replace("_", " ") for key in ("channels_last", "fuse", "compile", "fold_decoder") if row[key]]
        on += [row["quantisation"]] if row["precision"] == "int8" and row["backend"] != "torch" else []
        on += ["one box at a time"] if row["execution"] == "reference" else []
        on += [f"encodings delayed by {row['delay']:.0%}"] if row["delay"] else []
        on += ["system malloc"] if row["allocator"] == "system" else []
        columns = {key: row[key] for key in ("name", "backend", "precision", "threads")}
        shown.append({**columns, "with": ", ".join(on) or None})
    return {"Deployments": shown}


def _datasets() -> list[Row]:
    entries = load(SUITES / "parts" / "datasets.yaml").data["datasets"]
    return [{"name": n, "kind": e["kind"], "fields": _fields(e)} for n, e in entries.items()]


def _fields(entry: Row) -> str:
    return ", ".join(f"{k}={v}" for k, v in entry.items() if k != "kind")


def _protocols() -> list[Row]:
    rules = [{"kind": "protocol", "name": name, "rules": text} for name, text in PROTOCOLS.items()]
    return rules + [{"kind": "loop", **row} for row in loop_rows()]


def _by_kind(rows: list[Row]) -> dict[str, list[Row]]:
    def of(kind: str) -> list[Row]:
        left_out = ("kind", "script encodes")  # masks are the same, and the columns fit a terminal
        return [{k: v for k, v in row.items() if k not in left_out} for row in rows if row["kind"] == kind]

    return {"Protocols": of("protocol"), "3D loops of the authors' scripts (`loop`)": of("loop")}


def _suites() -> list[Row]:
    documents = [load(path) for path in sorted(SUITES.glob("*.yaml"))]
    return [
        {"name": d.data["name"], "title": d.data.get("title", ""), "takes": d.data.get("takes", "")} for d in documents
    ]


def _runs(results: Results) -> list[Row]:
    rows = []
    for path in results.run_folders():
        data = read_run(path)
        states = [job["state"] for job in data["jobs"]]
        counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
        rows.append({"id": data["id"], "status": data["status"], "started": data["started"], "jobs": counts})
    return rows


def _checkpoints(results: Results) -> list[Row]:
    return [asdict(checkpoints.read(results, name)) for name in checkpoints.names(results)]


def _origins(rows: list[Row]) -> dict[str, list[Row]]:
    def short(row: Row) -> Row:
        shown = {key: row[key] for key in ("name", "variant")} | {"with": checkpoints.settings(row["set"]) or None}
        return {**shown, "parameters": row["parameters"], "from": row["source"], "imported": row["imported"][:10]}

    return {"Checkpoints": [short(row) for row in rows]}


LISTINGS: dict[str, Callable[[], list[Row]]] = {
    "variants": _variants,
    "deployments": _deployments,
    "datasets": _datasets,
    "recipes": recipe_list,
    "protocols": _protocols,
    "suites": _suites,
}
TABLES: dict[str, Callable[[list[Row]], dict[str, list[Row]]]] = {
    "variants": _few_columns,
    "deployments": _switches,
    "recipes": recipe_table,
    "protocols": _by_kind,
    "checkpoints": _origins,
}
"""Title → rows of the tables for people, where they differ from the JSON."""
STORED: dict[str, Callable[[Results], list[Row]]] = {"runs": _runs, "checkpoints": _checkpoints}
KINDS = ("variant", "suite", "recipe", "checkpoint", "run")
"""What a bare name may mean; the first that has it is shown."""


def print_one(what: str, name: str | None, overrides: Sequence[str], as_json: bool, folder: str | None) -> None:
    """Print one thing: a variant or a recipe as a page, others in full as YAML; anything as JSON.

    Args:
        what: one of `KINDS`, `schema`, or the name of something.
        name: of it; where `what` is a name already, the first override.

    Raises:
        BenchError: nothing of that name.
    """
    if what == "schema":
        print(json.dumps(suite_schema(), indent=1))  # noqa: T201
        return
    results = open_results(folder)
    if what not in KINDS:
        overrides = [*([name] if name is not None else []), *overrides]
        what, name = _kind(what, results), what
    if name is None and what != "run":
        raise BenchError(f"`bench show {what}` needs a name; `bench list {what}s` shows them.")
    if overrides and what != "suite":
        raise BenchError(f"`bench show {what} {name}` takes nothing more; {overrides[0]!r} is an override of suites.")
    if what == "variant" and not as_json:
        print_variant(variants.spec(str(name)), results)
        return
    if what == "recipe" and not as_json:
        print_recipe(str(name), shipped_recipe(str(name)))
        return
    data = _one(what, name or "latest", overrides, results)
    print(json.dumps(data, indent=1) if as_json else yaml.safe_dump(data, sort_keys=False, width=100).rstrip())  # noqa: T201


def _kind(name: str, results: Results) -> str:
    """What kind of thing has the name; where several kinds have it, the others are said on stderr."""
    known = {
        "variant": variants.names(),
        "suite": [path.stem for path in SUITES.glob("*.yaml")],
        "recipe": list(shipped_recipes()),
        "checkpoint": checkpoints.names(results),
        "run": [path.name for path in results.run_folders()],
    }
    found = [kind for kind in KINDS if name in known[kind]]
    if not found and find_suite(name).is_file():
        found = ["suite"]
    if not found and any(run.startswith(name) for run in known["run"]):
        found = ["run"]
    if not found:
        near = suggest(name, [other for names in known.values() for other in names])
        raise BenchError(f"nothing is called {name!r}: no {', '.join(KINDS[:-1])} or run. {near}")
    for other in found[1:]:
        print(f"bench: {name} is also a {other}: `bench show {other} {name}`", file=sys.stderr)  # noqa: T201
    return found[0]


def _one(what: str, name: str, overrides: Sequence[str], results: Results) -> Any:
    if what == "variant":
        return variant_data(variants.spec(name))
    if what == "checkpoint":
        return asdict(checkpoints.read(results, name))
    if what == "suite":
        return canonical(read_suite(find_suite(name), overrides, results)[0])
    if what == "run":
        return read_run(results.find_run(name))
    return recipe_data(shipped_recipe(name))


def suite_schema() -> dict[str, Any]:
    """JSON schema of suite files, for editors; ``suites/suite.schema.json`` is this."""
    schema = Suite.model_json_schema()
    schema["properties"]["include"] = {
        "description": "files merged before this one, later values win",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    schema.pop("required", None)  # an included file may hold any part
    return schema | {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "medsam-bench suite"}
