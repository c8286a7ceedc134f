"""Rules of ranking as data: three schemes, the presets, and what a suite may say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PositiveFloat, Tag, field_validator

Scheme = Literal["rank-then-aggregate", "aggregate-then-rank", "test-based"]
PresetName = Literal["mean-then-rank", "accuracy-rank-then-aggregate", "test-based", "cvpr24-medsam-laptop"]

RANKABLE: tuple[str, ...] = ("dsc", "nsd", "hd95", "box_iou", "wall", "peak_anonymous")
"""Metrics with a value for each case, by which variants can be ranked; their directions: `harness.schema.METRICS`."""


class Rule(BaseModel):
    """How variants are put in order.

    * ``rank-then-aggregate``: on every case and metric the variants are ranked, the ranks are averaged over cases, then
      over metrics by their weights.  A case that failed or is missing takes the worst rank, the number of variants.
    * ``aggregate-then-rank``: the values of a metric are averaged over cases, the averages ranked, and the ranks of the
      metrics averaged by their weights.  A case that failed has the worst value there is: 0 where higher is better,
      infinite where lower is.
    * ``test-based``: the share of rivals that a variant beats in a one-sided Wilcoxon signed-rank test over cases,
      averaged over metrics by their weights (Wiesenfarth et al., Methods and open-source toolkit for analyzing and
      visualizing challenge results, 2021).  Failed cases as for ``aggregate-then-rank``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="what the tables call it")
    scheme: Scheme
    weights: dict[str, PositiveFloat] = Field(min_length=1, description="metric → weight: dsc, nsd, wall, ...")
    protocol: Literal["strict", "cvpr24"] = Field("strict", description="of DSC and NSD")
    aggregate: Literal["mean", "median"] = Field("mean", description="over cases, for aggregate-then-rank")
    average: Literal["cases", "modalities"] = Field(
        "cases", description="every case weighs the same, or every modality; resampled within modalities then"
    )
    ties: Literal["average", "min"] = Field(
        "average", description="rank of equal values: the mean or the best of theirs"
    )
    adjust: Literal["holm", "none"] = Field("holm", description="of the tests for the number of comparisons")
    alpha: float = Field(0.05, gt=0, lt=1, description="level of the tests")
    stratified: bool = Field(False, description="bootstrap: cases are resampled within modalities")

    @field_validator("weights")
    @classmethod
    def _rankable(cls, value: dict[str, float]) -> dict[str, float]:
        for metric in value:
            if metric not in RANKABLE:
                raise ValueError(f"nothing is ranked by {metric!r}; a rule may weigh: {', '.join(RANKABLE)}")
        return value

    @property
    def within_modalities(self) -> bool:
        """Whether the bootstrap draws the cases of every modality apart."""
        return self.stratified or self.average == "modalities"


PRESETS: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(name="mean-then-rank", scheme="aggregate-then-rank", weights={"dsc": 1}, average="modalities"),
        Rule(name="accuracy-rank-then-aggregate", scheme="rank-then-aggregate", weights={"dsc": 1, "nsd": 1}),
        Rule(name="test-based", scheme="test-based", weights={"dsc": 1, "nsd": 1}),
        Rule(
            name="cvpr24-medsam-laptop",
            scheme="rank-then-aggregate",
            weights={"dsc": 1, "nsd": 1, "wall": 1},
            protocol="cvpr24",
            ties="min",
        ),
    )
}
"""``mean-then-rank``: macro average DSC.  ``cvpr24-medsam-laptop``: the challenge's scheme with its scores and equal
weights of DSC, NSD and cold running time."""

DEFAULT_RANKING: tuple[PresetName, ...] = (
    "mean-then-rank",
    "accuracy-rank-then-aggregate",
    "test-based",
    "cvpr24-medsam-laptop",
)


def _kind(entry: Any) -> str:
    return "preset" if isinstance(entry, str) else "rule"


RankingEntry = Annotated[Annotated[PresetName, Tag("preset")] | Annotated[Rule, Tag("rule")], Discriminator(_kind)]
"""What a suite lists under ``ranking``: the name of a preset, or a rule of its own."""


def rules(entries: Iterable[str | Rule]) -> tuple[Rule, ...]:
    """The rules of a suite's list, presets looked up; ``KeyError`` for a name that is no preset."""
    return tuple(PRESETS[entry] if isinstance(entry, str) else entry for entry in entries)


def distinct_rules(entries: tuple[str | Rule, ...]) -> tuple[str | Rule, ...]:
    """The list itself; ``ValueError`` if two rules have one name, or one has the name of a preset it differs from."""
    found = rules(entries)
    names = [rule.name for rule in found]
    for rule in found:
        if names.count(rule.name) > 1:
            raise ValueError(f"two rules are called {rule.name!r}; give one of them another name")
        if rule.name in PRESETS and rule != PRESETS[rule.name]:
            raise ValueError(f"{rule.name!r} is the name of a preset with other rules; give this rule another name")
    return entries
