"""`run.json` as typed data: what one execution of a suite says about itself.

Unknown fields are ignored, so that a report made by this version can read a run written by a later one of the same
format; missing provenance is allowed here and judged in `reports.frame`, which withholds the numbers concerned.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.errors import BenchError
from harness.ranking.rules import DEFAULT_RANKING, RankingEntry

RUN_FORMAT = 1
RUN_FILE = "run.json"
_TEACHER = "teacher: "

JobState = Literal["cached", "done", "failed", "skipped", "pending"]
RunStatus = Literal["running", "finished", "interrupted", "failed"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class SuiteInfo(_Model):
    """The suite the run executed."""

    name: str
    title: str = ""
    description: str = ""
    path: str = ""


class Git(_Model):
    """Commit of the working tree and whether it had changes."""

    commit: str
    dirty: bool = False


class Machine(_Model):
    """The machine that measured.  ``memory_bytes`` is the installed memory, ``isa`` its vector extensions."""

    fingerprint: str
    cpu: str = "unknown"
    cores: float | None = None
    memory_bytes: int | None = None
    isa: tuple[str, ...] = ()
    os: str = ""
    kernel: str = ""
    docker: str | None = None


class DataSetInfo(_Model):
    """A data set of the run; without its digest no number measured on it is shown."""

    digest: str | None = None
    kind: str = ""
    cases: int | None = None
    description: str | None = None


class Provenance(_Model):
    """Where the numbers come from."""

    git: Git | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    machine: Machine | None = None
    seeds: tuple[int, ...] = ()
    datasets: dict[str, DataSetInfo] = Field(default_factory=dict)


class GateRule(_Model):
    """One line of the suite's gate: how far a metric may move in its bad direction.

    ``max_drop`` is absolute, in the metric's unit; ``max_ratio`` relative (1.2: a fifth worse is still allowed).
    """

    metric: str
    variants: tuple[str, ...] = ("*",)
    protocol: str | None = None
    max_drop: float | None = Field(None, ge=0)
    max_ratio: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one_limit(self) -> GateRule:
        if (self.max_drop is None) == (self.max_ratio is None):
            raise ValueError("give either `max_drop` or `max_ratio`")
        return self


class VariantInfo(_Model):
    """A row of the suite: a registered variant under the label the suite gives it."""

    name: str
    set: dict[str, Any] = Field(default_factory=dict)
    summary: str = ""
    source: str = ""
    family: str = ""
    tiny: bool = False
    trainable: bool = True
    base: str | None = None
    ablation: str | None = None
    weights: str | None = Field(None, description="file the weights were read from, if they were read from one")


class DeploymentInfo(_Model):
    """How the suite has a variant executed; a field that a run does not state has the value of a plain execution."""

    backend: str = "torch"
    precision: str = "fp32"
    quantisation: str = "dynamic"
    fuse: bool = False
    compile: bool = False
    channels_last: bool = False
    threads: int | None = None
    allocator: str = "system"
    fold_decoder: bool = False
    execution: str = "sweep"
    embedding_cache: int = 1024**3
    delay: float = 0.0

    @property
    def plain(self) -> bool:
        """Eager torch in fp32 as the model is written: what every other deployment is compared with."""
        changed = self.fuse or self.compile or self.channels_last or self.fold_decoder
        return self.backend == "torch" and self.precision == "fp32" and not changed

    @property
    def words(self) -> str:
        """Precision and settings, e.g. ``dynamic int8, fused``; the backend stands apart."""
        scheme = "static" if self.backend == "openvino" else self.quantisation
        precision = f"{scheme} int8" if self.precision == "int8" else self.precision
        named = {"fused": self.fuse, "compiled ahead": self.compile, "channels last": self.channels_last}
        named |= {"decoder folded": self.fold_decoder, "one box at a time": self.execution == "reference"}
        named |= {f"encoding delayed by {self.delay:.0%}": self.delay > 0}
        return ", ".join([precision, *(name for name, on in named.items() if on)])


class Resolved(_Model):
    """What a view needs of the suite as it was resolved."""

    deployments: dict[str, DeploymentInfo] = Field(default_factory=dict)
    ranking: tuple[RankingEntry, ...] = DEFAULT_RANKING


class WeightsInfo(_Model):
    """Where a job's weights come from; nothing given: as initialised."""

    file: str | None = None
    train_job: str | None = None


class JobInfo(_Model):
    """A planned job and what became of it."""

    digest: str
    kind: Literal["train", "deploy", "accuracy", "complexity", "latency", "runtime"]
    stage: str | None = Field(None, description="of a training; one of the row's teacher begins with `teacher: `")
    variant: str
    deployment: str | None = None
    dataset: str | None = None
    sandbox: str | None = None
    seed: int = 0
    needs: tuple[str, ...] = ()
    state: JobState
    reason: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    weights: WeightsInfo | None = None

    @property
    def of_teacher(self) -> bool:
        """Whether it trains the teacher of its row, not the row itself."""
        return (self.stage or "").startswith(_TEACHER)

    @property
    def learns(self) -> str:
        """Kind of a training's stage; a run that states none has whole trainings."""
        return (self.stage or "train").removeprefix(_TEACHER)


class RunFile(_Model):
    """The whole of `run.json`."""

    format: Literal[1]
    id: str
    suite: SuiteInfo
    status: RunStatus
    started: str = ""
    finished: str | None = None
    seconds: float | None = None
    command: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    provenance: Provenance = Provenance()
    gates: tuple[GateRule, ...] = ()
    variants: dict[str, VariantInfo] = Field(default_factory=dict)
    resolved: Resolved = Resolved()
    jobs: tuple[JobInfo, ...] = ()

    @model_validator(mode="after")
    def _jobs_name_variants(self) -> RunFile:
        for job in self.jobs:
            if job.variant not in self.variants:
                raise ValueError(f"job {job.digest[:12]} names the variant {job.variant!r}, which `variants` lacks")
        return self


def read_run(folder: Path) -> RunFile:
    """Read ``folder/run.json``.

    Raises:
        BenchError: no such file, not JSON, or a field that is missing or wrong (the first one is named).
    """
    path = folder / RUN_FILE
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BenchError(f"{path} does not exist: name a folder of a run, see `bench list runs`") from None
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} cannot be read as JSON ({error}): run the suite again to write it anew") from None
    try:
        return RunFile.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        message = first["msg"].removeprefix("Value error, ")
        raise BenchError(
            f"{path}: {field}: {message}; run the suite again with this version to write it anew"
        ) from None
