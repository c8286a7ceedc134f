"""Phantoms: generated cases of all 11 modalities, each with an image formation of its own kind.

A case is decided by its seed, modality, dimension, index and size alone: not by the number of cases, nor by the order
in which they are made. Phantoms are for trying and testing the bench; they are no substitute for patients' images.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.random import Generator

from harness.data.case import Case
from harness.schema import MODALITIES, VOLUME_MODALITIES

if TYPE_CHECKING:
    from harness.config import PhantomData
    from harness.data.phantoms.scene import Scene


@dataclass(frozen=True)
class Kind:
    """How a modality is drawn: its module and function, the aspect of an image (height, width) and the most objects."""

    module: str
    aspect: tuple[float, float] = (1, 1)
    max_objects: int = 6


KINDS: Final[dict[str, Kind]] = {
    "CT": Kind("ct:ct"),
    "MR": Kind("mr:mr"),
    "PET": Kind("pet:pet", (1, 0.62)),
    "US": Kind("ultrasound:ultrasound", (0.86, 1)),
    "X-Ray": Kind("projection:chest"),
    "Mammography": Kind("mammography:mammography", (1, 0.62)),
    "OCT": Kind("oct:b_scan", (0.66, 1)),
    "Endoscopy": Kind("endoscopy:endoscopy", (0.84, 1)),
    "Fundus": Kind("fundus:fundus", (0.96, 1)),
    "Dermoscopy": Kind("dermoscopy:dermoscopy", (0.75, 1)),
    "Microscopy": Kind("microscopy:microscopy", max_objects=40),
}
assert tuple(KINDS) == MODALITIES

_ATTEMPTS = 20


@dataclass(frozen=True)
class PhantomId:
    """One phantom: ``index`` counts from 1 within modality and dimension; ``shape`` is (H,W) or (D,H,W)."""

    seed: int
    modality: str
    ndim: int
    index: int
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """The case's name, e.g. ``2DBox_CT_0001``."""
        return f"{self.ndim}DBox_{self.modality}_{self.index:04d}"


def phantom_ids(spec: PhantomData) -> list[PhantomId]:
    """The phantoms a specification asks for, sorted by name."""
    ids: list[PhantomId] = []
    for modality in sorted(set(spec.modalities)):
        high, wide = KINDS[modality].aspect
        shape = (round(spec.size * high), round(spec.size * wide))
        ids += [PhantomId(spec.seed, modality, 2, n, shape) for n in range(1, spec.per_modality + 1)]
        if modality in VOLUME_MODALITIES:
            solid = (spec.slices, spec.volume_size, spec.volume_size)
            ids += [PhantomId(spec.seed, modality, 3, n, solid) for n in range(1, spec.volumes + 1)]
    return sorted(ids, key=lambda phantom: phantom.name)


def generate(phantom: PhantomId) -> Case:
    """Draw one phantom; the same identity gives the same arrays."""
    kind = KINDS[phantom.modality]
    for attempt in range(_ATTEMPTS):
        scene = _painter(kind)(_generator(phantom, attempt), _canvas(phantom))
        case = scene.case(phantom.name, kind.max_objects)
        if case is not None:
            return case
    raise RuntimeError(f"{phantom} has no object after {_ATTEMPTS} attempts")


def _canvas(phantom: PhantomId) -> tuple[int, ...]:
    # CT, MR and PET are drawn as volumes; their images are volumes of one slice.
    flat = phantom.ndim == 2 and phantom.modality in VOLUME_MODALITIES
    return (1, *phantom.shape) if flat else phantom.shape


def _painter(kind: Kind) -> Callable[[Generator, tuple[int, ...]], Scene]:
    module, function = kind.module.split(":")
    painter: Callable[[Generator, tuple[int, ...]], Scene] = getattr(
        importlib.import_module(f"{__name__}.{module}"), function
    )
    return painter


def _generator(phantom: PhantomId, attempt: int) -> Generator:
    # A hash of the identity, so that neighbouring seeds and indices share nothing.
    text = f"{phantom.seed}/{phantom.modality}/{phantom.ndim}/{phantom.index}/{attempt}"
    return np.random.default_rng(int.from_bytes(sha256(text.encode()).digest()[:16], "little"))
