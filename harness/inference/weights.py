"""Where the weights of a job's variant and the files of its deployment lie."""

from __future__ import annotations

import json
from hashlib import file_digest
from pathlib import Path
from typing import Any

from harness.config import Weights
from harness.errors import BenchError
from harness.jobs import JobContext, JobSpec
from harness.results import DEPLOYMENT, MODEL


def locate(spec: JobSpec, context: JobContext) -> Path | None:
    """The weights file of a job: its checkpoint file, or the artifact of its training job.

    Returns:
        The path, or ``None`` if the variant runs as initialised from the seed.

    Raises:
        BenchError: the file or the artifact is missing, or the file's content has changed since the run was planned.
    """
    return locate_weights(spec.weights, context)


def locate_weights(weights: Weights, context: JobContext) -> Path | None:
    """The file of weights, or the artifact of the training job that made them; as ``locate`` for a job's own."""
    if weights.train_job is not None:
        found = context.artifact(f"{weights.train_job}/{MODEL}")
        if found is None:
            raise BenchError(
                f"the trained weights {weights.train_job[:12]}/{MODEL} are not in the store; run the suite again"
            )
        return found
    return None if weights.file is None else _checked(Path(weights.file), weights.sha256)


def prepared(spec: JobSpec, context: JobContext) -> Path | None:
    """The folder with the files of a job's deployment; ``None`` for the reference, which needs none.

    Raises:
        BenchError: the files are not in the store.
    """
    if spec.deploy_job is None:
        return None
    found = context.artifact(f"{spec.deploy_job}/{DEPLOYMENT}")
    if found is None:
        raise BenchError(f"the deployment {spec.deploy_job[:12]} is not in the store; run the suite again")
    return found.parent


def why_unsupported(spec: JobSpec, context: JobContext) -> str | None:
    """Why a job's deployment does not apply to its variant, as its preparation found, or ``None``."""
    folder = prepared(spec, context)
    if folder is None:
        return None
    description: dict[str, Any] = json.loads((folder / DEPLOYMENT).read_text(encoding="utf-8"))
    reason: str | None = description["unsupported"]
    return reason


def _checked(path: Path, sha256: str | None) -> Path:
    if not path.is_file():
        raise BenchError(f"{path}: the checkpoint is missing; correct `weights` in the suite")
    if sha256 is not None:
        with path.open("rb") as stream:
            found = file_digest(stream, "sha256").hexdigest()
        if found != sha256:
            raise BenchError(f"{path}: the checkpoint has changed since the run was planned; start the run again")
    return path
