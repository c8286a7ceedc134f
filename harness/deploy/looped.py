"""How far a deployment is from eager torch in fp32 on volumes, where each slice's box follows from the mask before.

What a deployment changes in one mask changes the next slice's box, so that small differences can grow from slice to
slice: masks of single images do not tell how far the masks of a volume are apart.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from harness.data.case import Case
from harness.inference import InputRules, Session, segment
from harness.metrics import dice
from harness.schema import Record


def compare(
    session: Session, reference: Session, cases: Iterable[Case], rules: InputRules, progress: Callable[[int], None]
) -> Record:
    """Segment volumes with both: the mean Dice of their masks, object by object, over all slices.

    Args:
        session: the deployment's.
        reference: eager torch in fp32.
        cases: volumes with boxes and ground truth.
        rules: of the variant.
        progress: is told the number of the volume that begins.

    Returns:
        ``volume_dsc``, without a value if all masks of both are empty.  Its detail has the lowest Dice of an object,
        how many volumes and objects there were, and the mean Dice of either's masks to the ground truth: where that is
        low, the masks were led by noise.
    """
    found: dict[str, list[float]] = {"dsc": [], "truth": [], "reference_truth": []}
    volumes = 0
    for volumes, case in enumerate(cases, 1):
        progress(volumes)
        theirs, ours = segment(reference, case, rules).segs, segment(session, case, rules).segs
        for label in range(1, len(case.boxes) + 1):
            expected, got = theirs == label, ours == label
            found["dsc"].append(dice(expected, got))
            if case.truth is not None:
                found["truth"].append(dice(case.truth == label, got))
                found["reference_truth"].append(dice(case.truth == label, expected))
    defined = [value for value in found["dsc"] if not math.isnan(value)]
    said = {
        "volumes": volumes,
        "objects": len(found["dsc"]),
        "worst": min(defined, default=None),
        **{name: _mean(found[name]) for name in ("truth", "reference_truth")},
    }
    return Record("volume_dsc", _mean(found["dsc"]), detail=json.dumps(said, sort_keys=True))


def _mean(values: Sequence[float]) -> float | None:
    """Mean of the defined ones."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else None
