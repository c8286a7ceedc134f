"""The deploy job: prepares how a variant is executed, and compares it with eager torch in fp32 before it counts.

Artifacts: ``deployment.json`` (what a session needs to know) and the files it names.  A deployment that does not apply
to the variant leaves ``deployment.json`` with the reason, and ``unsupported`` records: nothing falls back silently.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from hashlib import file_digest, sha256
from typing import TYPE_CHECKING, Any

import variants
from harness.config import Deployment, FidelitySettings, PhantomData
from harness.data import open_dataset
from harness.deploy import RefusedError, Unsupported
from harness.deploy.data import CALIBRATION, COMPARED
from harness.errors import BenchError
from harness.failure import InvalidOutputError
from harness.inference import InputRules, open_session
from harness.inference.weights import locate
from harness.results import DEPLOYMENT
from harness.schema import Record, Status

if TYPE_CHECKING:
    from pathlib import Path

    from harness.deploy.samples import Sample
    from harness.inference import Session
    from harness.jobs import JobContext, JobSpec

KEY = "deployment"
FORMAT = 1
COMPARISONS = ("mask_agreement", "logit_difference", "speed_ratio")


def run(spec: JobSpec, context: JobContext) -> None:
    """Prepare, compare and time one deployment of one variant; one unit of work.

    A deployment that does not apply, or whose files or outputs are wrong, is a result: its records say so.

    Raises:
        UnavailableError: a library or a compiler that the deployment needs is not there.
        BenchError: the variant or its weights cannot be had.
    """
    if context.done(KEY):
        return
    folder = context.work / "prepared"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        records = list(_prepared(spec, context, folder))
    except (Unsupported, RefusedError, InvalidOutputError) as error:
        status: Status = "unsupported" if isinstance(error, Unsupported) else "invalid-output"
        for path in folder.iterdir():
            path.unlink()
        _describe(spec, folder, {"unsupported": str(error)})
        records = [Record(metric, status=status, reason=str(error)) for metric in COMPARISONS]
    except variants.VariantError as error:
        raise BenchError(str(error)) from error
    for path in sorted(folder.iterdir(), key=lambda p: p.name == DEPLOYMENT):  # the description last: it says "done"
        context.put_artifact(path.name, path)
    context.append(KEY, records)


def _prepared(spec: JobSpec, context: JobContext, folder: Path) -> Iterator[Record]:
    """Fill the folder; yields the records of what was prepared and of how far it is from the reference."""
    from harness.deploy import fidelity, prepare

    resolved = variants.resolve(spec.variant.name, spec.variant.set)
    if not resolved.needs_torch:
        raise Unsupported(f"variant {spec.variant.name!r} computes with numpy and has no graph to deploy otherwise")
    deployment, settings = spec.deployment or Deployment(), FidelitySettings.model_validate(spec.settings)
    weights = locate(spec, context)
    overrides: dict[str, Any] = dict(spec.variant.set)
    context.progress(0.0, "building the model")
    model = variants.create(spec.variant.name, weights, seed=spec.weights.seed, **overrides)
    rules = InputRules.of(resolved)

    def inputs(data: Any, count: int) -> list[Sample]:
        dataset = open_dataset(data, context.cache, lambda _, message: context.progress(0.05, message))
        return fidelity.samples(dataset, count, resolved.input_size, rules)

    calibrated = deployment.precision == "int8" and deployment.backend != "torch"
    calibration = inputs(CALIBRATION, len(CALIBRATION.modalities)) if calibrated else []
    made = prepare(model, resolved, deployment, folder, calibration, lambda m: context.progress(0.1, m))
    _describe(spec, folder, {"unsupported": None, "files": _renamed(folder, made.files), "facts": made.facts})
    reference = open_session(spec.variant, Deployment(threads=deployment.threads), weights, spec.weights.seed)
    session = open_session(spec.variant, deployment, weights, spec.weights.seed, prepared=folder)
    chosen = inputs(COMPARED, settings.images)

    def said(done: int) -> None:
        context.progress(0.5 + 0.4 * done / settings.images, f"comparing, image {done + 1}")

    compared = fidelity.compare(session, reference, chosen, said)
    with context.alone():
        context.progress(0.95, "timing it against eager torch")
        compared = fidelity.timed(compared, session, reference, chosen[0], settings.repeats)
    yield from _facts(made.facts)
    yield from fidelity.records(compared, fidelity.weights_digest(model))
    if settings.volumes is not None:
        yield _on_volumes(settings.volumes, session, reference, rules, context)


def _on_volumes(
    data: PhantomData, session: Session, reference: Session, rules: InputRules, context: JobContext
) -> Record:
    """The deployment against the reference through the 3D loop."""
    from harness.deploy import looped

    dataset = open_dataset(data, context.cache, lambda _, message: context.progress(0.95, message))
    cases = (dataset.load(info.name) for info in dataset.cases if info.ndim == 3)
    return looped.compare(session, reference, cases, rules, lambda n: context.progress(0.95, f"comparing, volume {n}"))


def _renamed(folder: Path, files: Mapping[str, str]) -> dict[str, str]:
    """Give the files names that their contents decide: what a killed attempt left in the store stays apart."""
    digest = sha256()
    for path in sorted(folder.iterdir()):
        with path.open("rb") as stream:
            digest.update(file_digest(stream, "sha256").digest())
    prefix = digest.hexdigest()[:12]
    for path in list(folder.iterdir()):
        path.rename(path.with_name(f"{prefix}-{path.name}"))
    return {role: f"{prefix}-{name}" for role, name in files.items()}


def _describe(spec: JobSpec, folder: Path, content: dict[str, Any]) -> None:
    """Write ``deployment.json``."""
    resolved = variants.resolve(spec.variant.name, spec.variant.set)
    deployment = spec.deployment or Deployment()
    description = {
        "format": FORMAT,
        "backend": deployment.backend,
        "precision": deployment.precision,
        "input_size": resolved.input_size,
        "prompts": list(resolved.prompts),
        **content,
    }
    (folder / DEPLOYMENT).write_text(json.dumps(description, indent=1, sort_keys=True), encoding="utf-8")


def _facts(facts: dict[str, Any]) -> Iterator[Record]:
    """Size of the files and reach of a quantisation, as far as they were told."""
    if facts.get("file_size") is not None:
        yield Record("file_size", float(facts["file_size"]), detail=json.dumps(facts.get("file_sizes", {})))
    reach = facts.get("quantised")
    if reach:
        layers = {"of": reach["layers_of"], "by_part": reach["layers_by_part"]}
        yield Record("quantised_layers", float(reach["layers"]), detail=json.dumps(layers, sort_keys=True))
        shares = {"by_part": reach["share_by_part"]}
        yield Record("quantised_share", float(reach["share"]), detail=json.dumps(shares, sort_keys=True))
