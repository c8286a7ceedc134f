"""The accuracy job: segment every case once, score it under every protocol.

Records of a case (``modality`` and ``ndim`` are the case's), of ``dsc`` and ``nsd`` unless other metrics are asked for:

* ``strict``: of every label, ``object`` = label = row of ``boxes`` + 1; also of labels that the ground truth has beyond
  the boxes: no model is asked for them, and they count as missed.
* ``cvpr24``: of the case; it has ``dsc`` and ``nsd`` alone.
* ``encodes``: how often the image encoder ran.

A value that the protocol leaves undefined is ``None`` with status ``ok``, and ``detail`` says why.  A case that fails
keeps its place: one record per protocol and metric, without ``object``, with the status and the reason.

A deployment that does not apply to the variant gives every case such records, with status ``unsupported``.

A case that takes the process with it (the kernel kills what asks for too much memory) leaves its name in the job's
scratch folder.  It is tried again, since a run may be killed for other reasons, and given up after ``ATTEMPTS`` deaths.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import variants
from harness.config import AccuracySettings, Deployment
from harness.data import open_dataset
from harness.errors import BenchError
from harness.failure import reason_of, status_of
from harness.inference import InputRules, Prediction, Session, open_session, segment
from harness.inference.weights import locate, prepared, why_unsupported
from harness.measure.attempts import ATTEMPTS, DIED, Attempts
from harness.metrics import METRICS_OF, farthest, protocol_spacing, score_case
from harness.schema import Record, Status

if TYPE_CHECKING:
    from harness.data import Case, CaseInfo, DataSet
    from harness.jobs import JobContext, JobSpec
    from harness.metrics.score import CaseScore, Protocol


def run(spec: JobSpec, context: JobContext) -> None:
    """Score all cases the job names, one unit of work a case.

    Raises:
        BenchError: the data set, the variant or its weights cannot be had; a failing case raises nothing.
    """
    if spec.dataset is None:
        raise BenchError("an accuracy job needs a data set; name one in the suite")
    settings = AccuracySettings.model_validate(spec.settings)
    dataset = open_dataset(spec.dataset, context.cache, context.progress, expected=spec.inputs.get("dataset"))
    cases = dataset.select(settings.subset)
    missing = [info for info in cases if not context.done(info.name)]
    if not missing:
        return
    why = why_unsupported(spec, context)
    if why is not None:
        _unsupported(missing, settings, why, context)
        return
    rules = InputRules.of(variants.resolve(spec.variant.name, spec.variant.set), settings.loop)
    weights, folder = locate(spec, context), prepared(spec, context)
    deployment = spec.deployment or Deployment()
    session = open_session(spec.variant, deployment, weights, spec.weights.seed, prepared=folder)
    attempts = Attempts(context.work / "attempting")
    for index, info in enumerate(missing, start=len(cases) - len(missing)):
        context.progress(index / len(cases), f"{info.name} ({index + 1} of {len(cases)})")
        if attempts.deaths(info.name) >= ATTEMPTS:
            context.append(info.name, _failed(info, settings, "crashed", DIED))
            continue
        with attempts.attempting(info.name):
            context.append(info.name, measure_case(session, dataset, info, settings, rules, deployment))


def measure_case(
    session: Session,
    dataset: DataSet,
    info: CaseInfo,
    settings: AccuracySettings,
    rules: InputRules,
    deployment: Deployment,
) -> list[Record]:
    """All records of one case, whatever happens to it."""
    case = None
    try:
        case = dataset.load(info.name)
        if case.truth is None:
            return _failed(info, settings, "skipped", "the case has no ground truth (field 'gts')")
        prediction = segment(session, case, rules, deployment.execution, int(deployment.embedding_cache))
        problem = _invalid(prediction, case)
        if problem:
            return _failed(info, settings, "invalid-output", problem, case)
        return [*_scores(case, prediction, settings), _of(case, Record("encodes", float(prediction.encodes)))]
    except Exception as error:  # one failing case is a result and must not stop the others
        return _failed(info, settings, status_of(error), reason_of(error), case)


def _scores(case: Case, prediction: Prediction, settings: AccuracySettings) -> Iterable[Record]:
    for protocol in settings.protocols:
        if protocol == "strict":
            yield from _strict(case, prediction, _metrics(settings, protocol))
        else:
            yield from _cvpr24(case, prediction, _metrics(settings, protocol))


def _metrics(settings: AccuracySettings, protocol: Protocol) -> tuple[str, ...]:
    """Those asked for that the protocol has."""
    return tuple(name for name in settings.metrics if name in METRICS_OF[protocol])


def _strict(case: Case, prediction: Prediction, metrics: tuple[str, ...]) -> Iterable[Record]:
    score = _score(case, prediction, "strict", ("dsc", *metrics))
    for label, values in score.objects.items():
        for metric in metrics:
            value = values[metric]
            why = "the case has no spacing, so distances in mm have no meaning"
            if math.isnan(values["dsc"]):
                why = f"object {label} is neither in the ground truth nor in the prediction"
            elif metric == "volume_error":
                why = f"object {label} is not in the ground truth, so there is no volume to relate to"
            record = _of(case, _record(metric, value, "strict", why, label))
            if label > case.objects and record.value is not None:
                missed = f"label {label} has no box, so it counts as missed"
                record = replace(record, detail=json.dumps({"no box": missed}))
            yield record


def _cvpr24(case: Case, prediction: Prediction, metrics: tuple[str, ...]) -> Iterable[Record]:
    score = _score(case, prediction, "cvpr24", ("dsc", *metrics))
    absent = [label for label, values in score.objects.items() if math.isnan(values["dsc"])]
    why = "the case has no spacing"  # the only reason for NSD: without a DSC it is 0
    if not score.objects:
        why = "the ground truth has no object"
    elif absent:
        why = f"labels {absent} are in neither map, which the challenge's mean turns into NaN"
    for metric in metrics:
        yield _of(case, _record(metric, score.case[metric], "cvpr24", why))


def _score(case: Case, prediction: Prediction, protocol: Protocol, metrics: tuple[str, ...]) -> CaseScore:
    assert case.truth is not None
    labels = range(1, max(case.objects, int(case.truth.max())) + 1) if protocol == "strict" else None
    spacing = protocol_spacing(protocol, case.spacing_xyz) if case.ndim == 3 else None
    return score_case(case.truth, prediction.segs, spacing, protocol, dict.fromkeys(metrics), labels)


def _record(metric: str, value: float, protocol: str, why_undefined: str, label: int | None = None) -> Record:
    if math.isnan(value):
        detail = json.dumps({"undefined": why_undefined})
        return Record(metric, None, object=label, protocol=protocol, detail=detail)
    return Record(metric, float(value), object=label, protocol=protocol)


def _invalid(prediction: Prediction, case: Case) -> str | None:
    """What is wrong with a predicted label map, if anything is."""
    segs = prediction.segs
    if segs.shape != case.size:
        return f"the prediction has shape {segs.shape}, the case {case.size}"
    if segs.dtype.kind not in "iu":
        return f"the prediction holds {segs.dtype}, not whole-number labels"
    if int(segs.max()) > case.objects or int(segs.min()) < 0:
        return f"the prediction holds labels {int(segs.min())}..{int(segs.max())} for {case.objects} boxes"
    return None


def _failed(
    info: CaseInfo, settings: AccuracySettings, status: Status, reason: str, case: Case | None = None
) -> list[Record]:
    """One record per metric and protocol the case would have had; of HD95 with what a case without any object gets."""
    spacing = protocol_spacing("strict", case.spacing_xyz) if case is not None else None
    shape = info.shape if info.ndim == 3 else info.shape[:2]
    bounds = {"hd95": json.dumps({"farthest": farthest(shape, spacing)})}
    lost = [
        Record(m, protocol=p, status=status, reason=reason, detail=bounds.get(m))
        for p in settings.protocols
        for m in _metrics(settings, p)
    ]
    lost.append(Record("encodes", status=status, reason=reason))
    return [_of(info, record) for record in lost]


def _unsupported(cases: Iterable[CaseInfo], settings: AccuracySettings, reason: str, context: JobContext) -> None:
    """Every case in the journal, without a value."""
    for info in cases:
        context.append(info.name, _failed(info, settings, "unsupported", reason))


def _of(case: Case | CaseInfo, record: Record) -> Record:
    return replace(record, case=case.name, modality=case.modality, ndim=case.ndim)
