"""What a specification of data asks for, told without reading or generating anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.data.workload import WORKLOAD
from harness.schema import VOLUME_MODALITIES

if TYPE_CHECKING:
    from harness.config import DataSetSpec, GeneratedData


def described(spec: DataSetSpec) -> str:
    """What the cases are, for people: a folder and the part of a split, or what is generated."""
    if spec.kind != "phantoms" and spec.kind != "workload":
        return spec.path if spec.split is None else f"{spec.path}, {spec.split.part} part"
    what = "generated" if spec.kind == "phantoms" else f"the papers' efficiency cases, generated, {spec.scale} scale"
    return f"{what}, seed {spec.seed}"


def generated_count(spec: GeneratedData) -> int:
    """Number of cases that a specification of generated data asks for; generates nothing."""
    if spec.kind == "workload":
        return len(WORKLOAD)
    volumes = [m for m in spec.modalities if m in VOLUME_MODALITIES]
    return spec.per_modality * len(spec.modalities) + spec.volumes * len(volumes)
