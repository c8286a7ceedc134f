"""What is ranked: the values of every variant on every case, metric by metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import BenchError
from harness.schema import METRICS

if TYPE_CHECKING:
    import pandas as pd

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Values to rank by.

    Attributes:
        variants: names of the rows of the leaderboard.
        values: metric → (cases, variants); NaN where a case failed or is missing.
        strata: modality of every case; one stratum if left out.
        left_out: how many cases are not here because a metric is undefined, or has no value, for them.
    """

    variants: tuple[str, ...]
    values: Mapping[str, Matrix]
    strata: tuple[str, ...] = field(default=())
    left_out: int = 0

    def __post_init__(self) -> None:
        shapes = {name: np.shape(matrix) for name, matrix in self.values.items()}
        for metric, shape in shapes.items():
            if METRICS[metric].direction == "none":
                raise BenchError(f"ranking: {metric!r} has no direction in which it is better; rank by another metric.")
            if len(shape) != 2 or shape[1] != len(self.variants) or shape != next(iter(shapes.values())):
                raise BenchError(
                    f"ranking: the values of {metric!r} have the shape {shape}; every metric needs (cases, "
                    f"{len(self.variants)}), a column for each variant."
                )
        if self.strata and len(self.strata) != self.cases:
            raise BenchError(f"ranking: {len(self.strata)} strata are given for {self.cases} cases; give one a case.")

    @property
    def cases(self) -> int:
        """How many cases the ranking rests on."""
        return len(next(iter(self.values.values())))

    def of_stratum(self, name: str) -> Table:
        """The cases of one stratum alone."""
        chosen = np.array([stratum == name for stratum in self.strata])
        strata = tuple(s for s in self.strata if s == name)
        return Table(self.variants, {m: v[chosen] for m, v in self.values.items()}, strata)

    def of_variants(self, names: Sequence[str]) -> Table:
        """These variants alone, in this order; ranks computed from it do not know the others."""
        columns = [self.variants.index(name) for name in names]
        return Table(tuple(names), {m: v[:, columns] for m, v in self.values.items()}, self.strata, self.left_out)

    @classmethod
    def of_frame(cls, frame: pd.DataFrame, metrics: Sequence[str], variants: Sequence[str]) -> Table:
        """The table of tidy rows, one a variant, case and metric: ``variant, case, modality, metric, value, failed``.

        The table holds the cases on which every metric has a value of some variant and none is undefined (no value
        although the case did not fail): where one variant's value is undefined, it cannot be held against others'.
        A case that some variants have and others lack counts as failed for those.  Cases are sorted by name, so that
        neither their order nor that of the rows matters.
        """
        import pandas as pd

        frame = frame[frame["metric"].isin(metrics) & frame["variant"].isin(variants)]
        codes, cases = pd.factorize(frame["case"], sort=True)
        columns = pd.Index(variants).get_indexer(pd.Index(frame["variant"]))
        keep = np.ones(len(cases), dtype=bool)
        values: dict[str, Matrix] = {}
        for metric in metrics:
            mine = (frame["metric"] == metric).to_numpy()
            found, failed = (frame.loc[mine, name].to_numpy() for name in ("value", "failed"))
            matrix = np.full((len(cases), len(variants)), np.nan)
            matrix[codes[mine], columns[mine]] = np.where(failed, np.nan, found)
            keep &= ~np.isnan(matrix).all(axis=1)
            keep[codes[mine][pd.isna(found) & ~failed.astype(bool)]] = False
            values[metric] = matrix
        strata: NDArray[Any] = np.full(len(cases), "", dtype=object)
        strata[codes] = frame["modality"].to_numpy()
        kept = {metric: matrix[keep] for metric, matrix in values.items()}
        return cls(tuple(variants), kept, tuple(strata[keep]), int((~keep).sum()))
