"""Which case a position of the run shows: what is held out, and the orders of ``harness.recipe.Sampler``.

An order is a function of (seed, position); every family of random numbers has a stream of its own.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.errors import BenchError
from harness.recipe import Sampler

ORDER, DRAW, ROUND, CYCLE, MIXTURE = range(1, 6)
"""Families of random numbers: order of an epoch, draws of a position, order of the modalities, order of a modality's
cases, mixture of the modalities in an epoch."""

Part = Literal["train", "validation"]


class CaseEntry(Protocol):
    """An entry of a data set's list of cases."""

    @property
    def name(self) -> str: ...

    @property
    def modality(self) -> str: ...


class Order(Protocol):
    """An endless sequence of cases in epochs."""

    @property
    def epoch_length(self) -> int: ...

    def candidates(self, position: int) -> Iterator[str]:
        """The name of the case at a position, then those that take its place where it shows no object."""


def part_of(cases: Sequence[CaseEntry], held_out: float, part: Part, data: str) -> list[CaseEntry]:
    """The cases of one side, in their order.

    A case is held out if the hash of its name, as a number in [0, 1), is less than the share: whatever other cases are
    added, and in whichever stage, it stays on its side.  The number of cases held out is therefore near the share, not
    equal to it; where it would be none or all, the one case nearest to the other side changes over.

    Args:
        cases: all of them.
        held_out: share in [0, 1); 0 holds nothing out.
        part: the side wanted.
        data: name of the data set, for the message.

    Raises:
        BenchError: nothing is held out but asked for, or there are fewer than two cases to divide.
    """
    if not held_out:
        if part == "validation":
            raise BenchError(f"Data set {data!r}: no case is held out for validation; give `validation.share`.")
        return list(cases)
    if len(cases) < 2:
        raise BenchError(
            f"Data set {data!r} has {len(cases)} case, too few to hold some out for validation; add cases or leave out "
            "`validation`."
        )
    chances = {case.name: _chance("held out", case.name) for case in cases}
    lowest, highest = min(chances, key=chances.__getitem__), max(chances, key=chances.__getitem__)
    held = {name for name, chance in chances.items() if chance < held_out} - {highest} | {lowest}
    return [case for case in cases if (case.name in held) == (part == "validation")]


def used(cases: Sequence[CaseEntry], fractions: Mapping[str, float], data: str) -> list[CaseEntry]:
    """The cases that are used at all, in their order: of a modality with a fraction those with the lowest hashes.

    A fraction keeps its rounded number of cases and at least one; 0 leaves the modality out.  A smaller fraction is
    part of a larger one.  Rep-MedSAM (section 2.3) distils on 20 % of the CT images in this way.

    Raises:
        BenchError: no case is left.
    """
    dropped: set[str] = set()
    for modality, fraction in fractions.items():
        names = sorted((c.name for c in cases if c.modality == modality), key=lambda name: _chance("fraction", name))
        dropped.update(names[max(1, round(fraction * len(names))) if fraction else 0 :])
    kept = [case for case in cases if case.name not in dropped]
    if not kept:
        raise BenchError(f"Data set {data!r}: `sampler.fractions` leaves none of its {len(cases)} cases to train on.")
    return kept


def order_of(cases: Sequence[CaseEntry], sampler: Sampler, seed: int) -> Order:
    """The order in which a sampler's rule shows the cases, of which there is at least one."""
    if sampler.rule == "balanced":
        return Balanced(cases, seed)
    if sampler.rule == "per-modality" and sampler.number is not None:
        return PerModality(cases, seed, sampler.number)
    return EveryCase(cases, seed)


class EveryCase:
    """Every case once in an epoch, in an order drawn from (seed, epoch)."""

    def __init__(self, cases: Sequence[CaseEntry], seed: int) -> None:
        self._names = [case.name for case in cases]
        self._seed = seed

    @property
    def epoch_length(self) -> int:
        return len(self._names)

    def candidates(self, position: int) -> Iterator[str]:
        epoch, place = divmod(position, len(self._names))
        order = _order(self._seed, epoch, len(self._names))
        return _from(self._names, order, place)


class _Rotation:
    """Cases of a modality in cycles: all of them, in an order drawn from (seed, modality, cycle), then all again."""

    def __init__(self, cases: Sequence[CaseEntry], seed: int) -> None:
        self._seed = seed
        self._groups: dict[str, list[str]] = {}
        for case in cases:
            self._groups.setdefault(case.modality, []).append(case.name)
        self._modalities = sorted(self._groups)
        self._cases = len(cases)

    def _visit(self, modality: str, count: int) -> Iterator[str]:
        """The ``count``-th case (from 0) of a modality's cycles, then the rest of the modality, then of the others."""
        for other in (modality, *(name for name in self._modalities if name != modality)):
            names = self._groups[other]
            cycle, place = divmod(count, len(names))
            yield from _from(names, _cycle(self._seed, zlib.crc32(other.encode()), cycle, len(names)), place)


class Balanced(_Rotation):
    """As many samples in an epoch as there are cases, each modality alike: rounds that show every modality once, in an
    order drawn from (seed, round)."""

    @property
    def epoch_length(self) -> int:
        return self._cases

    def candidates(self, position: int) -> Iterator[str]:
        count, place = divmod(position, len(self._modalities))
        return self._visit(self._modalities[_round(self._seed, count, len(self._modalities))[place]], count)


class PerModality(_Rotation):
    """The same number of samples of each modality in an epoch, mixed by (seed, epoch).

    Lee et al., "Gray's Anatomy for Segment Anything Model", section 3.2: 1000 of each 2D modality and of each 3D
    submodality; case names tell no submodalities, so a volume's modality counts as one.  The cycles run on over the
    epochs; a modality with fewer cases than that repeats them, volumes with another random slice.
    """

    def __init__(self, cases: Sequence[CaseEntry], seed: int, number: int) -> None:
        super().__init__(cases, seed)
        self._number = number

    @property
    def epoch_length(self) -> int:
        return self._number * len(self._modalities)

    def candidates(self, position: int) -> Iterator[str]:
        epoch, place = divmod(position, self.epoch_length)
        which, before = _mixture(self._seed, epoch, len(self._modalities), self._number)
        return self._visit(self._modalities[which[place]], epoch * self._number + int(before[place]))


def _chance(purpose: str, name: str) -> float:
    """A number in [0, 1) that a name always has; independent for each purpose."""
    digest = hashlib.sha256(f"{purpose}/{name}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def _from(names: Sequence[str], order: NDArray[np.int64], place: int) -> Iterator[str]:
    """The names in their order from a place on, and around."""
    return (names[order[(place + ahead) % len(order)]] for ahead in range(len(order)))


# The last few of each are kept; long ones are as long as the data set.


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, cases: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, ORDER, epoch]).permutation(cases)


@lru_cache(maxsize=32)
def _cycle(seed: int, modality: int, cycle: int, cases: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, CYCLE, modality, cycle]).permutation(cases)


@lru_cache(maxsize=32)
def _round(seed: int, index: int, modalities: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, ROUND, index]).permutation(modalities)


@lru_cache(maxsize=4)
def _mixture(seed: int, epoch: int, modalities: int, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For every place of an epoch its modality, and how often that was shown before in the epoch."""
    which = np.random.default_rng([seed, MIXTURE, epoch]).permutation(modalities * number) // number
    before = np.empty_like(which)
    for modality in range(modalities):
        before[which == modality] = np.arange(number)
    return which, before
