"""A bundle: a folder that any sandbox can run, with everything a measured process loads.

``bundle.json`` says what to run, ``model.safetensors`` holds the weights in the published layout (absent for variants
without weights and for deployments whose prepared files hold them), ``environment`` has its environment variables as
shell lines, ``prepared/`` the files of a deployment that was prepared ahead.  Weights are always a file, also those
that are only initialised from a seed, so that every measured process loads one.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tempfile
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import allocator, threads
from harness.config import Deployment
from harness.measure.runtime import foreign
from harness.protocols import DEFAULT_LOOP

if TYPE_CHECKING:
    from harness.jobs import JobContext, JobSpec

FORMAT = 1
DESCRIPTION = "bundle.json"
WEIGHTS = "model.safetensors"
PREPARED = "prepared"
ENVIRONMENT = "environment"
_NO_FILES = {"weights": None, "prepared": None}


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk.  ``digest`` covers every file of it."""

    folder: Path
    description: dict[str, Any]
    digest: str

    @property
    def target(self) -> str:
        """The image it runs in: ``numpy``, or the backend of its deployment."""
        return str(self.description["target"])

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables the measured process starts with."""
        return dict(self.description["environment"])


def environment_of(deployment: Deployment) -> dict[str, str]:
    """Threads and allocator of a deployment as environment variables, the same for every variant."""
    return {**threads.environment(deployment.threads), **allocator.environment(deployment.allocator)}


def make_bundle(spec: JobSpec, context: JobContext) -> Bundle:
    """The bundle of a runtime job under ``context.work``, made once; a killed attempt leaves nothing that counts.

    Raises:
        BenchError, VariantError: the variant or its weights cannot be had.
    """
    folder = context.work / "bundle"
    if not (folder / DESCRIPTION).is_file():
        context.work.mkdir(parents=True, exist_ok=True)
        attempt = Path(tempfile.mkdtemp(prefix=".bundle-", dir=context.work))
        try:
            _fill(attempt, spec, context)
            attempt.chmod(0o755)
            attempt.rename(folder)
        finally:
            shutil.rmtree(attempt, ignore_errors=True)
    return load_bundle(folder)


def load_bundle(folder: Path) -> Bundle:
    """The bundle in ``folder``."""
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    digest = sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        digest.update(path.relative_to(folder).as_posix().encode())
    return Bundle(folder, description, digest.hexdigest())


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Write ``bundle.json`` and the shell lines; ``description`` as made by ``describe``."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in description["environment"].items()]
    (folder / ENVIRONMENT).write_text("\n".join([*lines, ""]), encoding="utf-8")
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1, sort_keys=True), encoding="utf-8")
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def describe(spec: JobSpec) -> dict[str, Any]:
    """The content of ``bundle.json`` for a job."""
    if spec.image:
        image = foreign.describe(spec.image, spec.inputs["image"])
        return {"format": FORMAT, "target": foreign.TARGET, "image": image, "environment": {}, **_NO_FILES}
    import variants
    from harness.inference import InputRules

    deployment = spec.deployment or Deployment()
    variant = variants.resolve(spec.variant.name, spec.variant.set)
    loop = spec.settings.get("loop", DEFAULT_LOOP)
    eager = variant.needs_torch and deployment.backend == "torch" and not deployment.compile
    return {
        "format": FORMAT,
        "variant": {"name": spec.variant.name, "set": dict(spec.variant.set)},
        "deployment": deployment.model_dump(mode="json"),
        "rules": asdict(InputRules.of(variant, loop)),
        "seed": spec.weights.seed,
        "target": deployment.backend if variant.needs_torch else "numpy",
        "weights": WEIGHTS if eager and not deployment.fuse else None,
        "prepared": PREPARED if spec.deploy_job else None,
        "environment": environment_of(deployment),
    }


def _fill(folder: Path, spec: JobSpec, context: JobContext) -> None:
    description = describe(spec)
    if description["weights"]:
        from harness.inference.weights import locate

        _write_weights(folder / WEIGHTS, spec, locate(spec, context))
    if description["prepared"]:
        from harness.inference.weights import prepared

        source = prepared(spec, context)
        assert source is not None  # the runtime job looked before it made a bundle
        shutil.copytree(source, folder / PREPARED)
    write_description(folder, description)


def _write_weights(target: Path, spec: JobSpec, source: Path | None) -> None:
    if source is not None and source.suffix == ".safetensors":
        shutil.copyfile(source, target)
    else:
        from safetensors.torch import save_file

        import variants

        overrides: dict[str, Any] = dict(spec.variant.set)
        model = variants.create(spec.variant.name, checkpoint=source, seed=spec.weights.seed, **overrides)
        save_file({name: tensor.contiguous() for name, tensor in variants.to_published(model).items()}, target)
    with target.open("rb") as stream:
        os.fsync(stream.fileno())
