"""The accuracy job: segment every case once, score it under every protocol.

Records of a case (``modality`` and ``ndim`` are the case's):

* ``strict``: ``dsc`` and ``nsd`` of every label, ``object`` = label = row of ``boxes`` + 1; also of labels that the
  ground truth has beyond the boxes: no model is asked for them, and they count as missed.
* ``cvpr24``: ``dsc`` and ``nsd`` of the case.
* ``encodes``: how often the image encoder ran.

A value that the protocol leaves undefined is ``None`` with status ``ok``, and ``detail`` says why.  A case that fails
keeps its place: one record per protocol and metric, without ``object``, with the status and the reason.

A case that takes the process with it (the kernel kills what asks for too much memory) leaves its name in the job's
scratch folder.  It is tried again, since a run may be killed for other reasons, and given up after ``ATTEMPTS`` deaths.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import variants
from harness.config import AccuracySettings, Deployment
from harness.data import open_dataset
from harness.errors import BenchError
from harness.failure import reason_of, status_of
from harness.files import write_atomic
from harness.inference import Prediction, Session, open_session, segment
from harness.inference.weights import locate
from harness.metrics import protocol_spacing, score_case
from harness.schema import Record, Status

if TYPE_CHECKING:
    from pathlib import Path

    from harness.data import Case, CaseInfo, DataSet
    from harness.jobs import JobContext, JobSpec
    from harness.metrics.score import Protocol

METRICS = ("dsc", "nsd")
ATTEMPTS = 3
"""Times the process may die while working on a case before the case is given up."""
DIED = "the process died while working on this case, most likely for lack of memory"


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
    session = open_session(spec.variant, spec.deployment or Deployment(), locate(spec, context), spec.weights.seed)
    rule = variants.spec(spec.variant.name).preprocess
    attempts = Attempts(context.work / "attempting")
    for index, info in enumerate(missing, start=len(cases) - len(missing)):
        context.progress(index / len(cases), f"{info.name} ({index + 1} of {len(cases)})")
        if attempts.deaths(info.name) >= ATTEMPTS:
            context.append(info.name, _failed(info, settings, "crashed", DIED))
            continue
        with attempts.attempting(info.name):
            context.append(info.name, measure_case(session, dataset, info, settings, rule))


@dataclass(frozen=True)
class Attempts:
    """The case that is being worked on, in a file that survives the process, and how often it was begun."""

    file: Path

    def deaths(self, case: str) -> int:
        """How often the process died while working on a case, since the last case that was finished."""
        try:
            begun: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return 0
        return int(begun["times"]) if begun["case"] == case else 0

    @contextmanager
    def attempting(self, case: str) -> Iterator[None]:
        """Note the case while the block runs; an exception is no death of the process."""
        write_atomic(self.file, json.dumps({"case": case, "times": self.deaths(case) + 1}))
        try:
            yield
        finally:
            self.file.unlink(missing_ok=True)


def measure_case(
    session: Session, dataset: DataSet, info: CaseInfo, settings: AccuracySettings, rule: str
) -> list[Record]:
    """All records of one case, whatever happens to it."""
    try:
        case = dataset.load(info.name)
        if case.truth is None:
            return _failed(info, settings, "skipped", "the case has no ground truth (field 'gts')")
        prediction = segment(session, case, rule)
        problem = _invalid(prediction, case)
        if problem:
            return _failed(info, settings, "invalid-output", problem)
        return [*_scores(case, prediction, settings), _of(case, Record("encodes", float(prediction.encodes)))]
    except Exception as error:  # one failing case is a result and must not stop the others
        return _failed(info, settings, status_of(error), reason_of(error))


def _scores(case: Case, prediction: Prediction, settings: AccuracySettings) -> Iterable[Record]:
    for protocol in settings.protocols:
        if protocol == "strict":
            yield from _strict(case, prediction)
        else:
            yield from _cvpr24(case, prediction)


def _strict(case: Case, prediction: Prediction) -> Iterable[Record]:
    score = _score(case, prediction, "strict")
    for label, values in score.objects.items():
        why = "the case has no spacing, so a tolerance in mm has no meaning"
        if math.isnan(values["dsc"]):
            why = f"object {label} is neither in the ground truth nor in the prediction"
        for metric, value in values.items():
            record = _of(case, _record(metric, value, "strict", why, label))
            if label > case.objects and record.value is not None:
                missed = f"label {label} has no box, so it counts as missed"
                record = replace(record, detail=json.dumps({"no box": missed}))
            yield record


def _cvpr24(case: Case, prediction: Prediction) -> Iterable[Record]:
    score = _score(case, prediction, "cvpr24")
    absent = [label for label, values in score.objects.items() if math.isnan(values["dsc"])]
    why = "the case has no spacing"  # the only reason for NSD: without a DSC it is 0
    if not score.objects:
        why = "the ground truth has no object"
    elif absent:
        why = f"labels {absent} are in neither map, which the challenge's mean turns into NaN"
    for metric, value in score.case.items():
        yield _of(case, _record(metric, value, "cvpr24", why))


def _score(case: Case, prediction: Prediction, protocol: Protocol) -> Any:
    assert case.truth is not None
    labels = range(1, max(case.objects, int(case.truth.max())) + 1) if protocol == "strict" else None
    spacing = protocol_spacing(protocol, case.spacing_xyz) if case.ndim == 3 else None
    return score_case(case.truth, prediction.segs, spacing, protocol, METRICS, labels)


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


def _failed(info: CaseInfo, settings: AccuracySettings, status: Status, reason: str) -> list[Record]:
    """One record per metric and protocol the case would have had."""
    lost = [Record(m, protocol=p, status=status, reason=reason) for p in settings.protocols for m in METRICS]
    lost.append(Record("encodes", status=status, reason=reason))
    return [_of(info, record) for record in lost]


def _of(case: Case | CaseInfo, record: Record) -> Record:
    return replace(record, case=case.name, modality=case.modality, ndim=case.ndim)
