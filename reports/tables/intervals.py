"""Intervals of the means of accuracy: BCa bootstrap over cases, the same resamplings for all rows of a data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.stats import Interval, macro_intervals, mean_intervals
from reports.tables.common import grouped, none_if_missing

Key = tuple[object, ...]
_LABELS: tuple[str, ...] = ("variant", "deployment", "protocol", "metric")
_NONE = (float("nan"), float("nan"))


class Intervals:
    """Ends of the 95 % intervals by the labels of a row.

    A case is resampled as a whole: its value is the mean over its objects, then over the training seeds that have one.
    Where there are too few cases for an interval both ends are NaN (`harness.stats.bootstrap`).
    """

    def __init__(self, cases: pd.DataFrame) -> None:
        self._macro: dict[Key, tuple[float, float]] = {}
        self._micro: dict[Key, tuple[float, float]] = {}
        self._modal: dict[Key, tuple[float, float]] = {}
        for key, part in grouped(cases, ["dataset"]):
            self._of_dataset(key["dataset"], part)

    def _of_dataset(self, dataset: object, part: pd.DataFrame) -> None:
        table = case_means(part, _LABELS)
        values, modalities = table.to_numpy(), table.index.get_level_values("modality").to_numpy()
        keys = [_key(dict(zip(_LABELS, column, strict=True)), dataset) for column in table.columns]
        found = macro_intervals(values, modalities)
        self._macro |= _ends(keys, found.macro)
        self._micro |= _ends(keys, mean_intervals(values))
        for modality, of_modality in found.strata.items():
            self._modal |= _ends([(*key, modality) for key in keys], of_modality)

    def of_summary(self, row: dict[str, object]) -> dict[str, float]:
        """``macro_low``, ``macro_high``, ``micro_low`` and ``micro_high`` of a row."""
        key = _key(row, row["dataset"])
        macro, micro = self._macro.get(key, _NONE), self._micro.get(key, _NONE)
        return {"macro_low": macro[0], "macro_high": macro[1], "micro_low": micro[0], "micro_high": micro[1]}

    def of_modality(self, row: dict[str, object]) -> tuple[float, float]:
        """Both ends of the interval of a row's modality."""
        return self._modal.get((*_key(row, row["dataset"]), row["modality"]), _NONE)


def case_means(cases: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Values of cases (mean over seeds) of one data set: one row a modality and case, labels ``columns``."""
    named = cases.assign(**{name: cases[name].fillna("") for name in columns})
    keys = ["modality", "case", *columns]
    means = named.groupby(keys, sort=False, observed=True)["value"].mean()
    return means.unstack(list(columns)).astype(np.float64)


def _key(row: dict[str, object], dataset: object) -> Key:
    named = (none_if_missing(row[name]) or None for name in _LABELS)
    return (*named, none_if_missing(dataset))


def _ends(keys: Sequence[Key], found: Sequence[Interval]) -> dict[Key, tuple[float, float]]:
    return {key: (one.low, one.high) for key, one in zip(keys, found, strict=True)}
