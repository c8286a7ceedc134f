"""A job: one unit of work, addressed by the digest of everything that can change its result."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import Field

from harness.config import STORED_KINDS, DataSetSpec, Deployment, ImageRef, JobKind, Model, VariantRef, Weights

if TYPE_CHECKING:
    from harness.schema import Record


WITHOUT_EFFECT = ("workers", "checkpoint_every", "source", "data", "teacher")
"""Fields of a training stage that decide nothing, or whose meaning is in another part of the job."""


class TeacherSpec(Model):
    """The model whose embeddings a training job imitates; ``model`` and ``code`` as in a job."""

    variant: VariantRef
    model: dict[str, Any]
    code: str
    weights: Weights = Weights()

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the teacher's embeddings, as JSON data: neither name nor path."""
        data = self.model_dump(mode="json")
        data.pop("variant")
        data["weights"].pop("file")
        return data


class JobSpec(Model):
    """Everything a job needs; picklable, and hashed as JSON.

    ``model`` is what the variant resolves to (hyperparameters, input size, rules): it decides the digest, not the name.
    ``inputs`` holds the digests of what the job reads (data set, checkpoint), ``libraries`` the versions of the
    libraries it computes with, ``code`` the hash of the modules declared for its kind, ``machine`` the fingerprint for
    timings.  ``settings`` is the JSON of the settings model of its kind.
    """

    kind: JobKind
    variant: VariantRef
    model: dict[str, Any] = Field(default_factory=dict)
    image: ImageRef | None = Field(None, description="somebody else's image instead of a variant of ours")
    deployment: Deployment | None = None
    dataset: DataSetSpec | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    weights: Weights = Weights()
    teacher: TeacherSpec | None = Field(None, description="of a training job that distils")
    deploy_job: str | None = Field(None, description="digest of the job that prepared the deployment, if one had to")
    seed: int = 0
    generation: int = Field(0, description="raised by `--fresh`: an asked-for repetition of the same job")
    inputs: dict[str, str] = Field(default_factory=dict)
    libraries: dict[str, str] = Field(default_factory=dict)
    code: str = ""
    machine: str | None = None

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON of the specification.

        Paths are left out (contents are in ``inputs``), and so is the variant's name if it is resolved.
        """
        data = self.model_dump(mode="json")
        if self.model:
            data.pop("variant")
        data["weights"].pop("file")
        if self.kind == "train":
            data["settings"] = {k: v for k, v in data["settings"].items() if k not in WITHOUT_EFFECT}
        if data.pop("teacher") and self.teacher:
            data["teacher"] = self.teacher.identity
        image = data.pop("image")
        if image:
            data["image"] = {name: value for name, value in image.items() if name != "source"}
        if data["dataset"] and data["dataset"]["kind"] in STORED_KINDS:
            data["dataset"] = {"kind": "npz"}
        return sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def exclusive(self) -> bool:
        """Timing jobs run alone on the machine from beginning to end."""
        return self.kind in ("runtime", "latency")


class JobContext(Protocol):
    """What a running job may use.  Implemented by the executor; tests use a plain one."""

    @property
    def work(self) -> Path:
        """Local scratch folder of this job's digest; survives a kill, removed after sealing."""

    @property
    def cache(self) -> Path:
        """Local folder for materialised data sets and other derived files that can be made again."""

    def alone(self) -> AbstractContextManager[None]:
        """Hold other work of this machine off while the block runs, for a timing inside a job that shares it."""

    def done(self, key: str) -> bool:
        """Whether the journal already holds the unit of work ``key`` (a case name, a step)."""

    def records(self) -> list[Record]:
        """Everything the journal holds so far."""

    def append(self, key: str, records: Iterable[Record]) -> None:
        """Write one finished unit of work to the journal, durably, before returning."""

    def progress(self, fraction: float, message: str) -> None:
        """Tell the user how far the job is (0..1)."""

    def artifact(self, name: str) -> Path | None:
        """Local path of a stored artifact such as ``<train digest>/model.safetensors``, or ``None``."""

    def put_artifact(self, name: str, path: Path) -> None:
        """Store a file under ``<this job's digest>/<name>`` for good (put-if-absent)."""
