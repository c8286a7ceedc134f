"""Schema of training recipes: stages as data, one after another; what differs between papers is written here.

A recipe's own fields hold for all of its stages; a stage's fields win.  A recipe without ``stages`` is one stage.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from harness.schema import MODALITIES

Share = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
PARTS = ("image_encoder", "prompt_encoder", "mask_decoder")
"""Children of every model, by their published names."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class MaskLoss(_Model):
    """Weights of the objective's terms; the total is their sum."""

    dice: NonNegativeFloat = 1.0
    bce: NonNegativeFloat = 1.0
    iou: NonNegativeFloat = Field(1.0, description="mean squared error of the predicted IoU")
    squared: bool = Field(
        False, description="each term is squared, as in Rep-MedSAM's code: that of every piece of a batch"
    )

    @model_validator(mode="after")
    def _something(self) -> MaskLoss:
        if not (self.dice or self.bce or self.iou):
            raise ValueError("nothing is minimised: give `dice`, `bce` or `iou` a weight above 0")
        return self


class ColourJitter(_Model):
    """Largest relative change of each property, drawn anew for every image (torchvision's `ColorJitter`)."""

    brightness: NonNegativeFloat = 0.4
    contrast: NonNegativeFloat = 0.5
    saturation: NonNegativeFloat = 0.4
    hue: float = Field(0.2, ge=0, le=0.5, description="shift as a share of the circle of hues")
    probability: Share = 1.0


class Plateau(_Model):
    """When the learning rate falls (`ReduceLROnPlateau`, mode min, threshold 1e-4 relative)."""

    factor: float = Field(0.9, gt=0, lt=1, description="the learning rate is multiplied by this")
    patience: int = Field(5, ge=0, description="epochs (or judgements) without improvement that are waited for")
    watch: Literal["train", "validation"] = Field("train", description="whose mean loss of an epoch is watched")


class Sampler(_Model):
    """Which cases an epoch shows, and in what proportion."""

    rule: Literal["cases", "balanced", "per-modality"] = Field(
        "cases",
        description="cases: every case once; balanced: as many, each modality alike; per-modality: `number` of each",
    )
    number: PositiveInt | None = Field(None, description="of per-modality: cases of every modality in an epoch")
    fractions: dict[str, Share] = Field(
        default_factory=dict, description="modality → share of its cases that is used at all, the same in every epoch"
    )

    @field_validator("fractions")
    @classmethod
    def _known(cls, value: dict[str, float]) -> dict[str, float]:
        unknown = [name for name in value if name not in MODALITIES]
        if unknown:
            raise ValueError(f"unknown modality {unknown[0]!r}; known: {', '.join(MODALITIES)}")
        return value

    @model_validator(mode="after")
    def _counted(self) -> Sampler:
        if (self.rule == "per-modality") != (self.number is not None):
            raise ValueError("`number` belongs to rule per-modality, which needs it")
        return self


class Validation(_Model):
    """A share of the cases is kept out of the stage's training and judged in between; the same share means the same
    cases in every stage, so a chain that judges by cases it has never seen gives the share beside ``stages``."""

    share: float = Field(0.1, gt=0, lt=1, description="of the cases, chosen by a hash of their names")
    every: PositiveInt | None = Field(None, description="steps between two judgements; an epoch if left out")
    batches: PositiveInt = Field(8, description="batches judged at most")
    metric: Literal["loss", "dsc"] = Field("loss", description="what makes one state better than another")
    keep: Literal["best", "last"] = Field("best", description="which weights the stage gives")
    patience: PositiveInt | None = Field(None, description="judgements without improvement that end the stage early")


class Teacher(_Model):
    """The model whose embeddings are imitated; with neither `weights` nor `recipe` it is as initialised."""

    name: str = Field(description="variant of the registry")
    set: dict[str, Any] = Field(default_factory=dict, description="hyperparameters to override")
    weights: str | None = Field(None, description="checkpoint file, or an imported checkpoint")
    recipe: str | None = Field(None, description="recipe that trains the teacher first, on the same data")

    @model_validator(mode="after")
    def _one_origin(self) -> Teacher:
        if self.weights and self.recipe:
            raise ValueError("give `weights` or `recipe` of the teacher, not both")
        return self


class Stage(_Model):
    """One stage of training: what is learned, from what, how long, how fast, and how it is executed."""

    stage: Literal["distil", "train", "finetune"] = Field(
        "train", description="distil: the encoder imitates a teacher's embedding; train, finetune: the whole pipeline"
    )
    steps: int | None = Field(None, ge=0, description="optimiser steps; 0 leaves the weights as they are")
    epochs: PositiveInt | None = Field(None, description="instead of `steps`: passes over what the sampler shows")
    batch: PositiveInt = 4
    micro_batch: PositiveInt | None = Field(
        None, description="images held in memory at once; gradients of a batch are accumulated over them"
    )
    learning_rate: PositiveFloat = 5e-4
    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    weight_decay: float = Field(0.01, ge=0)
    warmup: int = Field(0, ge=0, description="steps over which the learning rate rises from zero")
    schedule: Literal["constant", "linear", "plateau"] = Field(
        "constant", description="linear: falls to zero at the last step; plateau: ReduceLROnPlateau"
    )
    plateau: Plateau = Plateau()
    clip: PositiveFloat | None = Field(None, description="largest norm of the gradient; longer ones are shortened")
    clip_percentile: float | None = Field(
        None, gt=0, le=100, description="the largest norm is this percentile of all norms so far (Rep-MedSAM)"
    )
    ema: float | None = Field(None, gt=0, lt=1, description="decay of an average of the weights, which is the result")
    freeze: tuple[Literal["image_encoder", "prompt_encoder", "mask_decoder"], ...] = Field(
        (), description="parts that stay as they are, running statistics included"
    )
    batch_norm: Literal["trained", "batch", "running"] = Field(
        "trained",
        description="what batch normalisation divides by: the batch's own statistics in the parts that learn and the "
        "running ones in frozen parts; batch: the batch's everywhere, which running ones follow; running: the running "
        "ones everywhere, as at inference",
    )
    scale: float = Field(
        1.0,
        gt=0,
        le=1,
        description="side of the images that are shown, as a share of the network's; half the side costs a quarter "
        "(progressive resizing)",
    )
    loss: MaskLoss = MaskLoss()
    imitation: Literal["mse", "l1"] = Field("mse", description="of distil: distance to the teacher's embedding")
    teacher: Teacher | None = Field(None, description="of distil")
    embeddings: Literal["live", "cached"] = Field(
        "cached", description="of distil: the teacher runs in every step, or once for every image"
    )
    consistent: bool = Field(
        True, description="of distil: the teacher sees the flips too; false: the student alone, as Rep-MedSAM's paper"
    )
    box_jitter: int = Field(5, ge=0, description="outward shift of each box side, 0..n network pixels")
    propagated_boxes: Share = Field(
        0,
        description="probability that the box in a volume's slice is, as in the 3D loop, that of the object's mask one "
        "slice nearer to its middle, 3 pixels wider; `box_jitter` then moves its sides either way",
    )
    loop_starts: Share = Field(
        0,
        description="probability that a volume is shown where the 3D loop starts in the object drawn: at its middle "
        "slice, with the box around the object on all slices, which `box_jitter` moves outward",
    )
    prompts: Literal["truth", "box"] = Field(
        "truth",
        description="what points and scribbles, of variants that take them, are made from: the ground truth, as by "
        "Swin-LiteMedSAM; box: the box alone, by the variant's rule at inference",
    )
    flips: float = Field(0.5, ge=0, le=1, description="probability of each flip, vertical and horizontal")
    colour: ColourJitter | None = Field(None, description="none: colours stay")
    objects: PositiveInt = Field(
        1, description="objects of an image at most that share one encoding of it in a step; the papers draw one"
    )
    sampler: Sampler = Sampler()
    data: str | None = Field(None, description="data set of the suite to train on; `training.data` if left out")
    validation: Validation | None = None
    checkpoint_every: PositiveInt = Field(10, description="steps between resumable states")
    channels_last: bool = True
    bf16: bool = Field(False, description="bfloat16 autocast")
    compile: bool = Field(False, description="torch.compile: needs a compiler where it trains")
    threads: PositiveInt = 2
    workers: int = Field(0, ge=0, description="processes that prepare batches; the run is the same with any number")
    source: str = Field("", description="paper and section the recipe follows")

    @property
    def objection(self) -> str | None:
        """Why the fields of a complete stage do not fit together, or ``None``."""
        learned = [part for part in (PARTS[:1] if self.stage == "distil" else PARTS) if part not in self.freeze]
        objections = {
            "give either `steps` or `epochs`": (self.steps is None) == (self.epochs is None),
            "`distil` needs a `teacher`": self.stage == "distil" and self.teacher is None,
            "give `clip` or `clip_percentile`, not both": self.clip is not None and self.clip_percentile is not None,
            "`plateau.watch: validation` needs a `validation`": self.schedule == "plateau"
            and self.plateau.watch == "validation"
            and self.validation is None,
            f"`micro_batch` {self.micro_batch} must divide `batch` {self.batch}": self.micro_batch is not None
            and self.batch % self.micro_batch != 0,
            "`scale` is not for `distil`: embeddings of another grid are not the teacher's": self.stage == "distil"
            and self.scale != 1,
            "`freeze` leaves nothing to learn": not learned,
        }
        return next((text for text, applies in objections.items() if applies), None)


class Recipe(Stage):
    """The stages that train a variant; the fields beside ``stages`` hold for every stage that does not give them."""

    stages: tuple[Stage, ...] = Field((), description="one after another; left out: this recipe is one stage")
    instead: dict[str, str] = Field(
        default_factory=dict,
        description="pattern of variants' names → the recipe that trains those that match in place of this one; the "
        "first that matches counts",
    )

    @property
    def chain(self) -> tuple[Stage, ...]:
        """The stages, each complete."""
        shared = {name: getattr(self, name) for name in self.model_fields_set - {"stages", "instead"}}
        if not self.stages:
            return (Stage(**shared),)
        return tuple(Stage(**_own_length(shared, stage)) for stage in self.stages)

    def replaced_by(self, variant: str) -> str | None:
        """Name of the recipe that trains this variant of the registry instead, or ``None``."""
        return next((name for pattern, name in self.instead.items() if fnmatchcase(variant, pattern)), None)

    @property
    def trains(self) -> bool:
        """Whether any stage takes a step."""
        return any(stage.epochs or stage.steps for stage in self.chain)

    @model_validator(mode="after")
    def _complete(self) -> Recipe:
        for place, stage in enumerate(self.chain, 1):
            where = f"stage {place}: " if self.stages else ""
            if stage.objection:
                raise ValueError(where + stage.objection)
        return self


def _own_length(shared: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """The fields of a stage over the recipe's; a stage's `steps` or `epochs` replaces either."""
    own = {name: getattr(stage, name) for name in stage.model_fields_set}
    if own.keys() & {"steps", "epochs"}:
        shared = {name: value for name, value in shared.items() if name not in ("steps", "epochs")}
    return shared | own
