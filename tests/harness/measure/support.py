"""A plain job context in memory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.config import VariantRef
from harness.jobs import JobSpec
from harness.measure import complexity
from harness.schema import Record


class PlainContext:
    """Keeps the journal in a dictionary and artifacts in a folder."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.cache = folder / "cache"
        self.artifacts = folder / "artifacts"
        self.units: dict[str, list[Record]] = {}
        self.messages: list[tuple[float, str]] = []
        for path in (self.work, self.cache):
            path.mkdir(parents=True, exist_ok=True)

    @property
    def records(self) -> list[Record]:
        return [record for unit in self.units.values() for record in unit]

    def done(self, key: str) -> bool:
        return key in self.units

    def append(self, key: str, records: Iterable[Record]) -> None:
        assert key not in self.units
        self.units[key] = list(records)

    def progress(self, fraction: float, message: str) -> None:
        assert 0 <= fraction <= 1
        self.messages.append((fraction, message))

    def artifact(self, name: str) -> Path | None:
        path = self.artifacts / name
        return path if path.is_file() else None

    def put_artifact(self, name: str, path: Path) -> None:
        raise AssertionError("measuring stores no artifact")


def complexity_of(
    name: str, folder: Path, published: bool = False, **overrides: object
) -> dict[tuple[str, str | None], Record]:
    """The records of a complexity job by metric and phase; the job is run twice and counts once."""
    context = PlainContext(folder)
    settings = {"published": published}
    spec = JobSpec(kind="complexity", variant=VariantRef(name=name, set=overrides), settings=settings)
    complexity.run(spec, context)
    complexity.run(spec, context)
    assert list(context.units) == ["complexity", "published"][: 1 + published]
    return {(record.metric, record.phase): record for record in context.records}
