"""Where the weights of a job's variant lie."""

from __future__ import annotations

from hashlib import file_digest
from pathlib import Path

from harness.errors import BenchError
from harness.jobs import JobContext, JobSpec

TRAINED = "model.safetensors"
"""Name of the artifact a training job stores."""


def locate(spec: JobSpec, context: JobContext) -> Path | None:
    """The weights file of a job: its checkpoint file, or the artifact of its training job.

    Returns:
        The path, or ``None`` if the variant runs as initialised from the seed.

    Raises:
        BenchError: the file or the artifact is missing, or the file's content has changed since the run was planned.
    """
    weights = spec.weights
    if weights.train_job is not None:
        found = context.artifact(f"{weights.train_job}/{TRAINED}")
        if found is None:
            raise BenchError(
                f"the trained weights {weights.train_job[:12]}/{TRAINED} are not in the store; run the suite again"
            )
        return found
    return None if weights.file is None else _checked(Path(weights.file), weights.sha256)


def _checked(path: Path, sha256: str | None) -> Path:
    if not path.is_file():
        raise BenchError(f"{path}: the checkpoint is missing; correct `checkpoint` in the suite")
    if sha256 is not None:
        with path.open("rb") as stream:
            found = file_digest(stream, "sha256").hexdigest()
        if found != sha256:
            raise BenchError(f"{path}: the checkpoint has changed since the run was planned; start the run again")
    return path
