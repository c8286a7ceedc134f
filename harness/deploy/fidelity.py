"""How far a deployment is from eager torch in fp32: masks, logits and time, on the same prepared inputs."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data import DataSet
from harness.deploy.samples import Sample
from harness.failure import InvalidOutputError
from harness.inference import InputRules, Session
from harness.metrics import dice
from harness.schema import Record
from variants import preprocess, prompts

SPREAD = 1.25
"""Largest ratio between repeats of one timing, the shortest and the longest left out, that is taken for noise."""
MAX_BOXES = 4
"""Boxes of an image that are compared; some generated images have dozens."""


@dataclass(frozen=True)
class Compared:
    """What a deployment does differently.

    Attributes:
        agreement: share of all pixels of all masks, at the resolution of the logits, where both agree.
        worst: the lowest such share of one mask.
        dsc: mean Dice of the masks of both, which leaves out the background that any two agree on; ``None`` if all
            masks of both are empty.
        difference: largest absolute difference of a logit.
        images, objects: what was compared.
        seconds: ``encode`` and ``decode`` → seconds of every repeat, of the deployment and of the reference.
        load: the machine's load average when the timing began, ``None`` where it is not known.
    """

    agreement: float
    worst: float
    dsc: float | None
    difference: float
    images: int
    objects: int
    seconds: dict[str, tuple[list[float], list[float]]]
    load: float | None = None


def samples(dataset: DataSet, count: int, size: int, rules: InputRules) -> list[Sample]:
    """The first ``count`` images of a data set with up to ``MAX_BOXES`` boxes each, as the network gets them."""
    return [_sample(dataset, info.name, size, rules) for info in dataset.cases[:count]]


def _sample(dataset: DataSet, name: str, size: int, rules: InputRules) -> Sample:
    case = dataset.load(name)
    prepared = preprocess.prepare(case.image, size, rules.preprocess)
    boxes = preprocess.boxes_to_network(case.boxes[:MAX_BOXES], prepared.original_hw, size, rules.preprocess)
    keys = [f"{name}/0/{label}" for label in range(1, len(boxes) + 1)]
    made = prompts.make(boxes, prepared.network, rules.prompts, rules.prompt_rule, keys)
    return Sample(prepared.network[None], made.boxes, made.points, made.scribble)


def compare(
    session: Session, reference: Session, inputs: Sequence[Sample], progress: Callable[[int], None]
) -> Compared:
    """Run both on all inputs, the reference first; times nothing.

    Raises:
        InvalidOutputError: logits of another shape than the reference's, or not finite.
    """
    difference, shares, overlaps = 0.0, list[float](), list[float]()
    for index, sample in enumerate(inputs):
        progress(index)
        expected, got = _logits(reference, sample), _logits(session, sample)
        if expected.shape != got.shape:
            raise InvalidOutputError(f"the deployment gave logits {got.shape} where torch gives {expected.shape}")
        if not np.isfinite(got).all():
            raise InvalidOutputError("the deployment gave logits that are not finite (NaN or infinity)")
        difference = max(difference, float(np.abs(expected - got).max()))
        theirs, ours = expected > 0, got > 0
        shares += [float(share) for share in (theirs == ours).mean(axis=(1, 2, 3))]
        overlaps += [dice(*masks) for masks in zip(theirs, ours, strict=True)]
    defined = [value for value in overlaps if not math.isnan(value)]
    dsc = float(np.mean(defined)) if defined else None
    return Compared(float(np.mean(shares)), min(shares), dsc, difference, len(inputs), len(shares), {})


def _logits(session: Session, sample: Sample) -> NDArray[np.float32]:
    logits, _ = session.decode(session.encode(sample.image), sample.boxes, sample.points, sample.scribble)
    return logits


def timed(compared: Compared, session: Session, reference: Session, sample: Sample, repeats: int) -> Compared:
    """The comparison with seconds of one encoding and of decoding its first box, the two sessions in turn.

    To be called while the machine does nothing else; both sessions have run before.
    """
    first = Sample(
        sample.image, sample.boxes[:1], *(p if p is None else p[:1] for p in (sample.points, sample.scribble))
    )
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    taken: dict[str, tuple[list[float], list[float]]] = {"encode": ([], []), "decode": ([], [])}
    for _ in range(repeats):
        for who, place in ((session, 0), (reference, 1)):
            begun = time.perf_counter()
            embedding = who.encode(first.image)
            encoded = time.perf_counter()
            who.decode(embedding, first.boxes, first.points, first.scribble)
            taken["encode"][place].append(encoded - begun)
            taken["decode"][place].append(time.perf_counter() - encoded)
    return replace(compared, seconds=taken, load=load)


def records(compared: Compared, weights: str) -> Iterator[Record]:
    """The records of a comparison; ``weights`` is the digest of the weights it was made with."""
    said = {"weights": weights, "images": compared.images, "objects": compared.objects}
    detail = json.dumps(said | {"worst": compared.worst, "dsc": compared.dsc}, sort_keys=True)
    yield Record("mask_agreement", compared.agreement, detail=detail)
    yield Record("logit_difference", compared.difference, detail=detail)
    whole = tuple(
        [sum(both) for both in zip(*(s[who] for s in compared.seconds.values()), strict=True)] for who in (0, 1)
    )
    times: list[tuple[str | None, tuple[list[float], ...]]] = [*compared.seconds.items(), (None, whole)]
    for phase, (own, eager) in times:
        told: dict[str, object] = {"seconds": own, "eager_seconds": eager, "load_average": compared.load}
        if not (steady(own) and steady(eager)):
            told["undefined"] = "repeats differ too much: other work disturbed the timing"
            yield Record("speed_ratio", None, phase=phase, detail=json.dumps(told))
        else:
            yield Record("speed_ratio", median(own) / median(eager), phase=phase, detail=json.dumps(told))


def steady(seconds: Sequence[float]) -> bool:
    """Whether repeats agree well enough for their median to mean something: the middle ones within `SPREAD`."""
    ordered = sorted(seconds)
    middle = ordered[1:-1] if len(ordered) > 3 else ordered
    return middle[-1] <= SPREAD * middle[0]


def weights_digest(model: Any) -> str:
    """SHA-256 over names, types and bytes of a model's state: the weights whatever file they came from."""
    digest = sha256()
    for name, tensor in model.state_dict().items():
        values = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {values.dtype} {values.shape}\0".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
