"""What a suite says: variants × deployments × data sets × measurements, ablations, recipes, gates."""

from __future__ import annotations

from itertools import product
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, field_validator, model_validator

from harness.config import (
    AccuracyRules,
    ComplexitySettings,
    DataSetSpec,
    Deployment,
    FidelitySettings,
    ImageRef,
    LatencySettings,
    Model,
    RuntimeRules,
    SandboxName,
    Scalar,
    Subset,
    VariantRef,
)
from harness.ranking.rules import DEFAULT_RANKING, RankingEntry, distinct_rules
from harness.recipe import Recipe
from harness.schema import GATEABLE, METRICS
from variants.registry import RULES

Override = Scalar | list[int]


class VariantEntry(Model):
    """One row of the comparison.  An empty entry means the variant of the registry that the label names."""

    name: str | None = Field(None, description="name in the registry; the label if left out")
    set: dict[str, Override] = Field(default_factory=dict, description="hyperparameters to override")
    weights: str | None = Field(None, description="checkpoint file in the published layout, or an imported checkpoint")
    recipe: str | None = Field(None, description="training recipe; `training.recipe` if left out")
    fine_tune: str | None = Field(None, description="recipe that trains the given `weights` further; else they stay")
    deployments: tuple[str, ...] | None = Field(None, description="instead of those of the measurements")
    image: ImageRef | None = Field(None, description="somebody else's image instead of a variant: its name or a tar")

    @field_validator("image", mode="before")
    @classmethod
    def _image_shorthand(cls, value: Any) -> Any:
        """An image written as a text is its name or file alone."""
        return {"source": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _weights_to_tune(self) -> VariantEntry:
        if self.fine_tune and not self.weights:
            raise ValueError("`fine_tune` trains given weights further; name them in `weights`, or write `recipe`")
        return self

    @model_validator(mode="after")
    def _image_alone(self) -> VariantEntry:
        others = self.model_fields_set - {"image"}
        if self.image and others:
            raise ValueError(f"a row with `image` is that image as it is; leave `{min(others)}` out")
        return self


class Ablation(Model):
    """Variations of a base row, one at a time (`rows`) or in all combinations (`grid`)."""

    base: str = Field(description="label of a variant of this suite")
    rows: dict[str, dict[str, Override]] = Field(default_factory=dict, description="label suffix → hyperparameters")
    grid: dict[str, list[Override]] = Field(default_factory=dict, description="hyperparameter → values")

    @model_validator(mode="after")
    def _one_form(self) -> Ablation:
        if bool(self.rows) == bool(self.grid):
            raise ValueError("give either `rows` or `grid`")
        return self

    def expand(self) -> dict[str, dict[str, Override]]:
        """Label → hyperparameters of every row."""
        if self.rows:
            return {f"{self.base}+{suffix}": dict(values) for suffix, values in self.rows.items()}
        combinations = (dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values()))
        return {f"{self.base}+" + ",".join(f"{k}={_short(v)}" for k, v in c.items()): c for c in combinations}


def _short(value: Override) -> str:
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)


class Training(Model):
    """How variants without weights of their own are trained."""

    data: str = Field(description="data set to train on")
    recipe: str = Field(description="recipe of variants that name none")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="one training run each")


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is named twice")
    return names


Names = Annotated[tuple[str, ...], AfterValidator(_distinct)]
"""Names of other parts of the suite, each once."""


class AccuracyMeasure(AccuracyRules):
    """DSC, NSD and other metrics of every variant × deployment over data sets."""

    data: Names = Field(min_length=1)
    deployments: Names = Field(min_length=1)
    subset: str | None = Field(None, description="only these cases; a name of `subsets`")


class FidelityMeasure(FidelitySettings):
    """Every variant × deployment compared with eager torch in fp32; others that are measured are compared as well."""

    deployments: Names = ()


class ComplexityMeasure(ComplexitySettings):
    """Parameters, multiply-adds and activations of every variant."""


class RuntimeMeasure(RuntimeRules):
    """Cold runs of every variant × deployment, case by case, in sandboxes."""

    data: Names = Field(min_length=1)
    deployments: Names = Field(min_length=1)
    sandboxes: tuple[SandboxName, ...] = ("process",)
    missing_sandbox: Literal["error", "skip"] = Field("error", description="what to do where a sandbox is missing")
    subset: str | None = Field(None, description="only these cases; a name of `subsets`")


class LatencyMeasure(LatencySettings):
    """Warm latency and throughput of every variant × deployment, beside the machine's own limit."""

    deployments: Names = Field(min_length=1)


class Measure(Model):
    """What is measured; a measurement that is left out is not made."""

    fidelity: FidelityMeasure | None = None
    accuracy: AccuracyMeasure | None = None
    complexity: ComplexityMeasure | None = None
    latency: LatencyMeasure | None = None
    runtime: RuntimeMeasure | None = None


class GateRule(Model):
    """How far a metric may move in its bad direction before `bench gate` fails."""

    metric: str
    protocol: Literal["strict", "cvpr24"] | None = None
    variants: tuple[str, ...] = ("*",)
    max_drop: NonNegativeFloat | None = Field(None, description="absolute change")
    max_ratio: PositiveFloat | None = Field(None, description="worse ÷ baseline, e.g. 1.2")

    @field_validator("metric")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in METRICS:
            raise ValueError(f"unknown metric {value!r}; known: {', '.join(METRICS)}")
        if value not in GATEABLE:
            raise ValueError(f"no gate can compare {value!r}; a gate may name: {', '.join(GATEABLE)}")
        return value

    @model_validator(mode="after")
    def _one_limit(self) -> GateRule:
        if (self.max_drop is None) == (self.max_ratio is None):
            raise ValueError("give either `max_drop` or `max_ratio`")
        return self


class Suite(Model):
    """A suite file, includes merged and overrides applied."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="short name; run folders begin with it")
    title: str = ""
    description: str = ""
    takes: str = Field("", description="how long a first run takes, and on what")
    variants: dict[str, VariantEntry] = Field(min_length=1)
    ablations: dict[str, Ablation] = Field(default_factory=dict)
    deployments: dict[str, Deployment] = Field(default_factory=dict)
    datasets: dict[str, DataSetSpec] = Field(default_factory=dict)
    subsets: dict[str, Subset] = Field(default_factory=dict)
    recipes: dict[str, Recipe] = Field(default_factory=dict)
    training: Training | None = None
    measure: Measure
    gates: dict[str, GateRule] = Field(default_factory=dict, description="named, so that suites can replace one")
    ranking: Annotated[tuple[RankingEntry, ...], AfterValidator(distinct_rules)] = Field(
        DEFAULT_RANKING,
        description="presets, or rules written out; the first that applies gives the rank, an empty list none",
    )

    def recipe_for(self, recipe: str, variant: str) -> str:
        """Name of the recipe that trains a variant of the registry where ``recipe`` is asked for."""
        return self.recipes[recipe].replaced_by(variant) or recipe

    @field_validator("variants", mode="before")
    @classmethod
    def _empty_entries(cls, value: Any) -> Any:
        return {k: {} if v is None else v for k, v in value.items()} if isinstance(value, dict) else value

    @field_validator("datasets", mode="before")
    @classmethod
    def _folder_shorthand(cls, value: Any) -> Any:
        """A data set written as a path is a folder of npz files; `kind` may be left out where a path says it."""
        if not isinstance(value, dict):
            return value
        return {k: {"kind": "npz", "path": v} if isinstance(v, str) else v for k, v in value.items()}

    @model_validator(mode="before")
    @classmethod
    def _empty_measures(cls, value: Any) -> Any:
        """`complexity:` alone or `true` asks for the measurement; `false` leaves any measurement out."""
        measure = value.get("measure") if isinstance(value, dict) else None
        if not isinstance(measure, dict):
            return value
        asked = {k: v for k, v in measure.items() if v is not False}
        if asked.get("complexity", {}) in (None, True):
            asked["complexity"] = {}
        return value | {"measure": asked}


class Row(Model):
    """A variant of the suite after expansion: what every table has a row for."""

    label: str
    ref: VariantRef
    weights: str | None = None
    recipe: str | None = None
    fine_tune: str | None = None
    deployments: tuple[str, ...] | None = None
    image: ImageRef | None = None
    base: str | None = None
    ablation: str | None = None


def expand(suite: Suite) -> dict[str, Row]:
    """All rows in order: the variants as written, then each ablation's.

    The rows of an ablation are trained even if their base has weights from a file, since those have other shapes; rows
    that change rules alone (preprocessing, prompts) keep the base's weights.
    A row that an ablation makes equal to its base (a grid point with the base's own values) is kept: it names the base
    in that table and shares the base's job.
    """
    rows = {label: _row(label, entry) for label, entry in suite.variants.items()}
    for name, ablation in suite.ablations.items():
        base = rows.get(ablation.base)
        if base is None or base.image:
            continue
        for label, values in ablation.expand().items():
            ref = VariantRef(name=base.ref.name, set=base.ref.set | values)
            own = {"label": label, "ref": ref, "base": base.label, "ablation": name}
            reshaped = {} if values.keys() <= RULES.keys() else {"weights": None, "fine_tune": None}
            rows[label] = base.model_copy(update=own | reshaped)
    return rows


def _row(label: str, entry: VariantEntry) -> Row:
    ref = VariantRef(name=entry.name or label, set=entry.set)
    fields = {name: getattr(entry, name) for name in ("weights", "recipe", "fine_tune", "deployments", "image")}
    return Row(label=label, ref=ref, **fields)
