"""Decoded cases in memory: least recently used first out, up to a byte budget."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.data.case import Case
from harness.errors import BenchError
from harness.protocols import middle_slice
from harness.training.sampling import CaseEntry

CACHE_BYTES = 2 * 1024**3


class TrainingData(Protocol):
    """What sampling needs of a data set; ``harness.data.DataSet`` is one."""

    @property
    def name(self) -> str: ...

    @property
    def cases(self) -> Sequence[CaseEntry]: ...

    def load(self, name: str) -> Case: ...


@dataclass(frozen=True)
class Decoded:
    """A case in memory and where each of its objects can be seen: label → slices (``(0,)`` in 2D)."""

    case: Case
    truth: NDArray[np.uint16]
    seen: dict[int, tuple[int, ...]]

    @property
    def nbytes(self) -> int:
        """Bytes of image and ground truth."""
        return self.case.image.nbytes + self.truth.nbytes

    def mask_before(self, label: int, index: int) -> NDArray[np.bool_] | None:
        """The object's mask (H,W) on the slice from which the 3D loop comes to slice ``index``; ``None`` where the loop
        starts, in 2D, and where that slice does not show the object."""
        slices = self.seen[label]
        middle = middle_slice(slices[0], slices[-1])
        before = index + (middle > index) - (middle < index)
        if before == index or before not in slices:
            return None
        return np.asarray(self.truth[before] == label)

    def starts_at(self, label: int) -> int | None:
        """The slice where the 3D loop starts in an object; ``None`` in 2D, and where that slice does not show it."""
        slices = self.seen[label]
        middle = middle_slice(slices[0], slices[-1])
        return middle if self.truth.ndim == 3 and middle in slices else None

    def whole(self, label: int) -> NDArray[np.bool_]:
        """Where (H,W) any slice shows the object; the loop's first box is around that."""
        return np.asarray((self.truth == label).any(0))

    def plane(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Image (H,W) or (H,W,3) and label map (H,W) of a slice; of the whole image in 2D."""
        if self.truth.ndim == 2:
            return self.case.image, self.truth
        return self.case.image[index], self.truth[index]


class DecodedCases:
    """The cases of a data set, decoded when they are asked for.  A copy in another process starts without any."""

    def __init__(self, data: TrainingData, budget: int = CACHE_BYTES) -> None:
        self._data = data
        self.budget = budget
        self._cache: OrderedDict[str, Decoded] = OrderedDict()
        self._held = 0

    def __getstate__(self) -> dict[str, object]:
        return {"_data": self._data, "budget": self.budget, "_cache": OrderedDict(), "_held": 0}

    def with_budget(self, budget: int) -> DecodedCases:
        """The same cases with a cache of their own."""
        return DecodedCases(self._data, budget)

    def load(self, name: str) -> Decoded:
        """One case.

        Raises:
            BenchError: it cannot be read, or has no ground truth.
        """
        if name in self._cache:
            self._cache.move_to_end(name)
            return self._cache[name]
        case = self._data.load(name)
        if case.truth is None:
            raise BenchError(
                f"Data set {self._data.name!r}: case {name!r} has no ground truth, so nothing can be trained on it; "
                "store `gts` in its npz or name the folder that holds it in `truth`."
            )
        decoded = Decoded(case, case.truth, _where_seen(case.truth))
        self._keep(name, decoded)
        return decoded

    def _keep(self, name: str, decoded: Decoded) -> None:
        if decoded.nbytes > self.budget:
            return
        self._cache[name] = decoded
        self._held += decoded.nbytes
        while self._held > self.budget:
            _, dropped = self._cache.popitem(last=False)
            self._held -= dropped.nbytes


def _where_seen(truth: NDArray[np.uint16]) -> dict[int, tuple[int, ...]]:
    """Label → indices of the slices that show it, ascending."""
    seen: dict[int, list[int]] = {}
    for index, plane in enumerate(truth if truth.ndim == 3 else truth[None]):
        for label in np.flatnonzero(np.bincount(plane.ravel())):
            if label:
                seen.setdefault(int(label), []).append(index)
    return {label: tuple(slices) for label, slices in seen.items()}
