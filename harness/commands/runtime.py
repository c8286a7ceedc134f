"""`bench runtime`: somebody else's submission beside ours, without writing a suite."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import variants
from harness.commands.run import execute, finish
from harness.data.npz import human
from harness.errors import BenchError
from harness.measure.runtime.foreign import short_name
from harness.plan import make_plan
from harness.results import Results, open_results
from harness.run import Run, require_sandboxes
from harness.schema import Record
from harness.store import records_key, unseal
from harness.suite import Suite
from harness.suitefile import SUITES
from harness.yamlfile import load, suggest

NOBODY = "none"
"""Instead of a variant: measure the image alone."""


@dataclass(frozen=True)
class Asked:
    """What is measured: an image, cases, variants of ours beside it, and the rules (fields of `measure.runtime`)."""

    image: str
    cases: str
    beside: Sequence[str]
    deployments: Sequence[str]
    rules: dict[str, Any]
    init: bool = False
    writable_root: bool = False


def measure_image(asked: Asked, output: str | None, as_json: bool, folder: str | None) -> int:
    """Measure an image and variants of ours, case by case, and write the report.

    Returns:
        0, or 1 if a job failed or the image left no usable output for any case, or 130 after Ctrl-C.

    Raises:
        BenchError: no such image, cases, variant or deployment; no engine.
    """
    if output and not Path(output).resolve().parent.is_dir():
        raise BenchError(f"--output {output}: there is no such folder; make it first.")
    results = open_results(folder)
    suite = suite_of(asked)
    plan = make_plan(suite, results)
    require_sandboxes(plan, "`bench doctor` says what is there")
    run = Run(plan, results, ["bench", *sys.argv[1:]])
    code = execute(run, plan, results, quiet=as_json)
    if code == 130:
        return code
    finish(run, results, as_json)
    if output:
        from harness.commands.views import write_report

        write_report(str(run.folder), output, folder)
    label = next(label for label, row in plan.rows.items() if row.image)
    digests = [job.digest for job in plan.jobs if job.row == label]
    lines, usable = remarks(_records(digests, results))
    for line in lines:
        print(f"{label}: {line}", file=sys.stderr)  # noqa: T201
    return code or (0 if usable else 1)


def suite_of(asked: Asked) -> Suite:
    """The suite that ``bench runtime`` stands for.

    Raises:
        BenchError: a name that nothing has, or a folder that is not there.
    """
    if not Path(asked.cases).is_dir():
        raise BenchError(f"--cases {asked.cases}: there is no such folder; give a folder of challenge npz files.")
    known = load(SUITES / "parts" / "deployments.yaml").data["deployments"]
    for name in asked.deployments:
        if name not in known:
            raise BenchError(f"--deployment {name}: there is no such deployment. {suggest(name, known)}")
    beside = [] if list(asked.beside) == [NOBODY] else list(dict.fromkeys(asked.beside))
    for name in beside:
        if name not in variants.names():
            raise BenchError(f"--beside {name}: there is no such variant. {suggest(name, variants.names())}")
    label = short_name(asked.image)
    label = f"{label} (image)" if label in beside else label
    image = {"source": asked.image, "init": asked.init, "writable_root": asked.writable_root}
    shown = f" beside {', '.join(beside)}" if beside else ""
    return _checked(
        {
            "name": "runtime",
            "title": f"Runtime of {label}{shown}",
            "description": "An image that is not ours, measured as it is; only its time, memory and outputs are known.",
            "variants": {label: {"image": image}, **{name: {} for name in beside}},
            "deployments": {name: known[name] for name in asked.deployments},
            "datasets": {"cases": asked.cases},
            "measure": {
                "runtime": {
                    "data": ["cases"],
                    "deployments": list(dict.fromkeys(asked.deployments)),
                    "sandboxes": ["docker"],
                    **asked.rules,
                }
            },
        }
    )


def _checked(data: dict[str, Any]) -> Suite:
    try:
        return Suite.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise BenchError(
            f"--{first['loc'][-1]} {first['input']}: {first['msg']}; see `bench runtime --help`."
        ) from None


def _records(digests: Iterable[str], results: Results) -> list[Record]:
    sealed = (results.store.get(records_key(digest)) for digest in digests)
    return [record for data in sealed if data for record in unseal(data)]


def remarks(records: Sequence[Record]) -> tuple[list[str], bool]:
    """What is to be said about the runs of an image, and whether any of them was ok.

    What was left behind is summed up by file: in how many runs, and its largest size.
    """
    walls = [record for record in records if record.metric == "wall"]
    failed: dict[str, list[Record]] = {}
    left: dict[str, list[int]] = {}
    for record in walls:
        if record.status != "ok":
            failed.setdefault(f"{record.status}: {record.reason}", []).append(record)
        for entry in json.loads(record.detail or "{}").get("left_behind", []):
            left.setdefault(entry["name"], []).append(entry["bytes"])
    lines = [f"{_of(len(runs), len(walls))} {said}" for said, runs in failed.items()]
    if left:
        files = [f"{name} ({human(max(sizes))}, {_of(len(sizes), len(walls))})" for name, sizes in left.items()]
        lines.append(
            f"left behind in the mounted folders, and removed before the next run: {', '.join(files)}; in the "
            "challenge's shared folders a cache would serve the cases that follow"
        )
    return lines, any(record.status == "ok" for record in walls)


def _of(count: int, total: int) -> str:
    return f"{count} of {total} runs"
