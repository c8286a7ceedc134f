"""TensorBoard, for whoever asks: scalars of every training job, written while it trains.

It watches and is no part of the job: neither its code nor its folder is in a digest, and where it cannot write,
training goes on without it.  The command line asks by an environment variable, which the worker process inherits.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from harness import torchrun
from harness.errors import BenchError
from harness.store import records_key, unseal

if TYPE_CHECKING:
    from harness.jobs import JobSpec
    from harness.results import Results
    from harness.schema import Record

VARIABLE = "MEDSAM_BENCH_TENSORBOARD"
"""Environment variable that names the folder of the event files; unset: nobody asked."""
INSTALL = "pip install -c constraints.txt -e '.[tensorboard]'"
TAGS: Mapping[str, str] = {
    "train_loss": "loss/train",
    "validation_loss": "loss/validation",
    "validation_dsc": "dsc/validation",
    "learning_rate": "learning_rate",
}
"""Metrics of a training's records, and the tags they are shown under."""


class Watcher:
    """Is told what a training does.  This one does nothing with it."""

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """What is known after a step.

        Args:
            step: 1-based.
            values: by metric (`TAGS`), or by the name of a term of the loss.
        """

    def close(self) -> None:
        """Nothing more will come."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class EventFiles(Watcher):
    """Writes to a folder of event files, and of every tag only steps after the last one that the folder holds.

    So a training that was killed and takes its last steps again writes none of them twice.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last = last_steps(folder)
        self._writer: Any = None  # made with the first value: a training that is stored whole adds no file
        self._lost = False

    def step(self, step: int, values: Mapping[str, float]) -> None:
        named = {TAGS.get(name, f"terms/{name}"): value for name, value in values.items()}
        news = {tag: value for tag, value in named.items() if step > self._last.get(tag, 0)}
        if not news or self._lost:
            return
        try:
            self._write(step, news)
        except (OSError, ValueError) as error:
            self._lose(error)

    def close(self) -> None:
        writer, self._writer = self._writer, None
        try:
            if writer is not None and not self._lost:
                writer.close()
        except (OSError, ValueError) as error:
            self._lose(error)

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder))
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)
            self._last[tag] = step
        self._writer.flush()  # what is told is on the disk: it is seen live, and a kill leaves no hole

    def _lose(self, error: Exception) -> None:
        self._lost = True
        print(f"no more values for TensorBoard in {self._folder}: {error}", file=sys.stderr)  # noqa: T201


def watcher(spec: JobSpec, records: Iterable[Record] = ()) -> Watcher:
    """Who is told of a training job: event files if they were asked for, else nobody.

    Args:
        spec: of the job.
        records: what its journal holds already; what the folder lacks of it is written first.
    """
    root = os.environ.get(VARIABLE)
    if not root or torchrun.rank():  # of several processes the first one tells
        return Watcher()
    if find_spec("tensorboard") is None:
        print(f"nothing is written for TensorBoard: the package is missing; `{INSTALL}`", file=sys.stderr)  # noqa: T201
        return Watcher()
    files = EventFiles(Path(root) / folder_of(spec))
    for record in records:
        if record.metric in TAGS and record.repeat is not None and record.value is not None:
            files.step(record.repeat, {record.metric: record.value})
    return files


def folder_of(spec: JobSpec) -> Path:
    """Where a job writes, below the folder that was asked for: the same for the same job, another for any other."""
    words = [spec.variant.name, *(f"{name}={value}" for name, value in sorted(spec.variant.set.items()))]
    variant = re.sub(r"[^\w.,=+-]+", "_", ",".join(words))[:80]
    stage = spec.settings.get("stage", "train")
    return Path(variant) / f"{stage}-seed{spec.seed}-{spec.digest[:8]}"


def last_steps(folder: Path) -> dict[str, int]:
    """Tag → last step that the event files of a folder hold; one that ends in the middle counts as far as it goes."""
    if not any(folder.glob("*tfevents*")):
        return {}
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    held = EventAccumulator(str(folder), size_guidance={SCALARS: 1})  # the last of each tag is enough
    held.Reload()
    return {tag: held.Scalars(tag)[-1].step for tag in held.Tags()["scalars"]}


@contextmanager
def asked(folder: str | None) -> Iterator[None]:
    """Trainings of this process and of those it starts write to a folder, for as long as the block runs.

    Raises:
        BenchError: the package is missing, or the folder is a file.
    """
    if folder is None:
        yield
        return
    if find_spec("tensorboard") is None:
        raise BenchError(f"--tensorboard {folder}: the package tensorboard is not installed; `{INSTALL}`")
    path = Path(folder).resolve()
    if path.exists() and not path.is_dir():
        raise BenchError(f"--tensorboard {folder}: this is a file; name a folder for the event files.")
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(path)
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def write_stored(specs: Iterable[JobSpec], results: Results) -> None:
    """Write what the folder lacks of trainings that are stored: those of earlier runs, which were not done again."""
    if not os.environ.get(VARIABLE):
        return
    for spec in specs:
        sealed = results.store.get(records_key(spec.digest)) if spec.kind == "train" else None
        if sealed is not None:
            watcher(spec, unseal(sealed)).close()
