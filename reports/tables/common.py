"""What all summary tables share: which statuses count as failures, groups, labels and joined texts."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from hashlib import sha256

import pandas as pd

from harness.schema import METRICS, MODALITIES

# `skipped` is not among them: what was never tried is left out of a mean, what was tried and failed counts.
FAILURES: frozenset[str] = frozenset({"oom", "timeout", "crashed", "invalid-output", "unsupported"})


def grouped(frame: pd.DataFrame, keys: Sequence[str]) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    """Groups in order of first appearance; a missing label is ``None`` in the key."""
    for values, part in frame.groupby(list(keys), sort=False, dropna=False):
        yield dict(zip(keys, (none_if_missing(v) for v in values), strict=True)), part


def none_if_missing(value: Hashable) -> Hashable:
    """NaN and other marks of a missing label as ``None``."""
    return None if pd.isna(value) else value  # type: ignore[call-overload]


def unique(values: Iterable[object]) -> list[str]:
    """The different non-empty texts, in order."""
    return list(dict.fromkeys(str(v) for v in values if v is not None and not pd.isna(v) and str(v)))  # type: ignore[call-overload]


def joined(values: Iterable[object]) -> str:
    """The different non-empty texts as one."""
    return "; ".join(unique(values))


def fingerprint(names: Iterable[object]) -> str:
    """Short digest of a set of case names: two means are comparable only if it agrees."""
    return sha256("\n".join(sorted(unique(names))).encode()).hexdigest()[:16]


def of_metric(metric: str) -> dict[str, str]:
    """Unit and direction of a metric, as columns."""
    return {"unit": METRICS[metric].unit, "direction": METRICS[metric].direction}


def modality_rank(name: str) -> int:
    """Position of a modality in tables; unknown ones come last."""
    return MODALITIES.index(name) if name in MODALITIES else len(MODALITIES)


def overall_status(statuses: pd.Series) -> str:
    """``ok`` if anything succeeded, else the most frequent status."""
    if not len(statuses) or bool((statuses == "ok").any()):
        return "ok"
    return str(statuses.mode().iloc[0])
