"""How a case becomes inputs of a network, and in which order the slices of a volume are done: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import BenchError
from harness.protocols import DEFAULT_LOOP, LOOPS, PUBLISHED, Loop

if TYPE_CHECKING:
    from variants import VariantSpec

Execution = Literal["sweep", "reference"]


def checked_execution(name: str) -> Execution:
    """``name``, if there is such an execution of the pipelines.

    Raises:
        ValueError: there is none.
    """
    if name not in ("sweep", "reference"):
        raise ValueError(f"unknown execution {name!r}; known: sweep, reference")
    return name  # type: ignore[return-value]


@dataclass(frozen=True)
class InputRules:
    """The rules of one variant in one measurement; no pydantic, since the measured process reads them.

    Attributes:
        preprocess: rule of ``variants.preprocess`` for images, boxes and masks.
        prompts: what the decoder is given: ``box``, and ``points`` and ``scribble`` made from the box.
        prompt_rule: rule of ``variants.prompts`` that makes them.
        loop: name in ``harness.protocols.LOOPS``.
    """

    preprocess: str = "longest-side"
    prompts: tuple[str, ...] = ("box",)
    prompt_rule: str = "paper"
    loop: str = DEFAULT_LOOP

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompts", tuple(self.prompts))  # a list when read from JSON
        if self.loop not in LOOPS:
            raise BenchError(f"no 3D loop {self.loop!r}; known: {', '.join(LOOPS)}")

    @classmethod
    def of(cls, spec: VariantSpec, loop: str = DEFAULT_LOOP) -> InputRules:
        """The rules of a variant.

        Args:
            spec: the resolved variant.
            loop: name of a loop, or ``published`` for the loop of the variant's authors.

        Raises:
            BenchError: there is no such loop.
        """
        return cls(spec.preprocess, spec.prompts, spec.prompt_rule, spec.loop if loop == PUBLISHED else loop)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InputRules:
        """The rules from the JSON of ``dataclasses.asdict``; what is left out has its default."""
        return cls(**data)

    @property
    def more_than_boxes(self) -> bool:
        """Whether points or scribbles have to be made, for which the prepared image is needed."""
        return set(self.prompts) != {"box"}

    @property
    def propagation(self) -> Loop:
        """The 3D loop."""
        return LOOPS[self.loop]
