"""Schema of everything a suite may say about variants, deployments, data sets, recipes and measurements.

Plain pydantic models: frozen, closed (an unknown field is an error), JSON-serialisable, cheap to import.  A job carries
these resolved models and nothing else, so a job can be pickled, hashed and sent to another machine.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from harness.schema import MODALITIES

Scalar = bool | int | float | str


class Model(BaseModel):
    """Base of all suite models: immutable and closed."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class VariantRef(Model):
    """A variant of the registry, with hyperparameters overridden by ``set``."""

    name: str = Field(description="name in the registry, see `bench list variants`")
    set: dict[str, Scalar | list[int]] = Field(default_factory=dict, description="hyperparameters to override")


class Deployment(Model):
    """How a variant is executed."""

    backend: Literal["torch"] = "torch"
    precision: Literal["fp32"] = "fp32"
    channels_last: bool = False
    threads: PositiveInt = Field(2, description="intra-op threads, set explicitly and recorded")
    allocator: Literal["system", "keep-pages"] = Field(
        "system", description="keep-pages: freed memory stays with the process (glibc), applied to every variant alike"
    )


class PhantomData(Model):
    """Generated cases of all modalities; the same seed gives the same bytes."""

    kind: Literal["phantoms"] = "phantoms"
    seed: int = 0
    per_modality: PositiveInt = Field(1, description="2D cases of every modality")
    volumes: int = Field(0, ge=0, description="3D cases of every modality that is 3D (CT, MR, PET)")
    size: PositiveInt = Field(192, ge=64, le=2048, description="longest side of a 2D case in pixels")
    volume_size: PositiveInt = Field(96, ge=32, le=512, description="in-plane side of a 3D case in pixels")
    slices: PositiveInt = Field(12, ge=5, le=512, description="slices of a 3D case")
    modalities: tuple[str, ...] = MODALITIES

    @model_validator(mode="after")
    def _known_modalities(self) -> PhantomData:
        unknown = [m for m in self.modalities if m not in MODALITIES]
        if unknown:
            raise ValueError(f"unknown modality {unknown[0]!r}; known: {', '.join(MODALITIES)}")
        return self


class FolderData(Model):
    """A folder of challenge npz files."""

    kind: Literal["npz"] = "npz"
    path: str = Field(description="folder, relative to the working directory")
    truth: str | None = Field(None, description="folder with ground truth of the same names, if not in the same files")


DataSetSpec = Annotated[PhantomData | FolderData, Field(discriminator="kind")]


class Recipe(Model):
    """The thin training recipe: one stage, `train` (box prompt, Dice + BCE + MSE on the predicted IoU)."""

    steps: int = Field(ge=0, description="optimiser steps; 0 leaves the weights as initialised")
    batch: PositiveInt = 4
    learning_rate: PositiveFloat = 5e-4
    warmup: int = Field(0, ge=0, description="steps over which the learning rate rises from zero")
    schedule: Literal["constant", "linear"] = Field("constant", description="linear: falls to zero at the last step")
    weight_decay: float = Field(0.01, ge=0)
    box_jitter: int = Field(5, ge=0, description="outward shift of each box side, 0..n network pixels")
    flips: float = Field(0.5, ge=0, le=1, description="probability of each flip")
    checkpoint_every: PositiveInt = Field(10, description="steps between resumable states")
    channels_last: bool = True
    bf16: bool = Field(False, description="bfloat16 autocast")
    threads: PositiveInt = 2
    source: str = Field("", description="paper and section the recipe follows")


class Subset(Model):
    """A named part of a data set: by name patterns, or `spread` over modalities and dimensions, smallest first."""

    names: tuple[str, ...] = Field((), description="case names or shell patterns")
    spread: PositiveInt | None = Field(None, description="number of cases, in turn from each modality × dimension")

    @model_validator(mode="after")
    def _one_rule(self) -> Subset:
        if bool(self.names) == (self.spread is not None):
            raise ValueError("give either `names` or `spread`")
        return self


class AccuracySettings(Model):
    """DSC and NSD over a data set."""

    protocols: tuple[Literal["strict", "cvpr24"], ...] = ("strict", "cvpr24")
    subset: Subset | None = None


class ComplexitySettings(Model):
    """Parameters and FLOPs, one image and one box."""


class RuntimeRules(Model):
    """How cold runs are made, whoever asks for them."""

    protocol: Literal["strict", "cvpr24"] = "strict"
    repeats: PositiveInt = 1
    memory: ByteSize = Field(ByteSize(8 * 1024**3), description="limit, e.g. 8GiB")
    cpus: PositiveFloat = 2
    timeout: PositiveFloat = Field(600, description="seconds a case")


class RuntimeSettings(RuntimeRules):
    """Cold runs, one process or container a case."""

    sandbox: Literal["process", "docker"] = "process"
    subset: Subset | None = None


class Weights(Model):
    """Where a measured variant's weights come from: a file, a training job, or as initialised (both ``None``)."""

    file: str | None = None
    sha256: str | None = None
    train_job: str | None = Field(None, description="digest of the training job that made them")
    seed: int = Field(0, description="seed of the initialisation where neither is given")


JobKind = Literal["train", "accuracy", "complexity", "runtime"]
Settings = Recipe | AccuracySettings | ComplexitySettings | RuntimeSettings


def canonical(model: BaseModel) -> Any:
    """The model as plain JSON data, the form that is hashed."""
    return model.model_dump(mode="json")
