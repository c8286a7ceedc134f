"""The results folder: the store beside what is local to this machine (journals, caches, run folders)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import BenchError
from harness.store import FolderStore, records_key

MODEL = "model.safetensors"
"""Artifact of a training job."""
DEPLOYMENT = "deployment.json"
"""Artifact of a deploy job; names its other files."""


@dataclass(frozen=True)
class Results:
    """Paths of a results folder.

    ``store/`` is content-addressed and may be shared; ``journals/``, ``work/`` and ``cache/`` belong to this machine;
    ``runs/<id>/`` holds one execution of a suite each: provenance, job states, log, report.
    """

    root: Path

    @cached_property
    def store(self) -> FolderStore:
        return FolderStore(self.root / "store")

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def durations(self) -> Path:
        """Seconds that finished jobs took on this machine: what estimates are made from."""
        return self.root / "journals" / "durations.jsonl"

    def journal(self, digest: str) -> Path:
        return self.root / "journals" / f"{digest}.jsonl"

    def lock(self, digest: str) -> Path:
        return self.root / "journals" / f"{digest}.lock"

    def work(self, digest: str) -> Path:
        return self.root / "work" / digest

    def sealed(self, digest: str) -> bool:
        return self.store.local(records_key(digest)) is not None

    def tidy(self, digest: str) -> None:
        """Remove what only an unfinished job needs: its journal and its scratch folder."""
        self.journal(digest).unlink(missing_ok=True)
        shutil.rmtree(self.work(digest), ignore_errors=True)

    def sweep(self) -> None:
        """Tidy every sealed job: a kill between its seal and its end leaves its journal and scratch folder behind."""
        left = {p.name for p in self.root.glob("work/*")} | {p.stem for p in self.root.glob("journals/*.jsonl")}
        for digest in sorted(left):
            if self.sealed(digest):
                self.tidy(digest)

    def run_folders(self) -> Iterator[Path]:
        """Folders of runs, newest first."""
        found = [p.parent for p in self.runs.glob("*/run.json")]
        yield from sorted(found, key=lambda p: (read_run(p).get("started", ""), p.name), reverse=True)

    def find_run(self, name: str | None = None) -> Path:
        """The folder of a run by id (a unique beginning will do), or of the latest one.

        Raises:
            BenchError: no run yet, or none or several that begin so.
        """
        folders = list(self.run_folders())
        if not folders:
            raise BenchError(f"{self.root} holds no run yet; `bench run suites/quickstart.yaml` makes one.")
        if name in (None, "latest"):
            return folders[0]
        as_path = Path(str(name))
        if (as_path / "run.json").is_file():
            return as_path
        hits = [f for f in folders if f.name == name] or [f for f in folders if f.name.startswith(str(name))]
        if len(hits) != 1:
            what = "no run is" if not hits else f"{len(hits)} runs are"
            raise BenchError(f"{what} called {name!r} in {self.root}; `bench list runs` names them.")
        return hits[0]


def open_results(folder: str | Path | None = None) -> Results:
    """The results folder: as given, else ``$MEDSAM_BENCH_RESULTS``, else ``results`` in the working directory."""
    return Results(Path(folder or os.environ.get("MEDSAM_BENCH_RESULTS") or "results").resolve())


def read_run(folder: Path) -> dict[str, Any]:
    """The ``run.json`` of a run folder."""
    try:
        data: dict[str, Any] = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise BenchError(f"{folder / 'run.json'} cannot be read ({error}); run the suite again.") from None
    return data
