"""The figures that papers print for parameters and FLOPs, each with the convention that yields it: data, torch-free."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError, field_validator

import variants
from harness.config import Model
from harness.errors import BenchError
from variants import VariantSpec

FIGURES = Path(__file__).resolve().parent.parent.parent / "suites" / "published" / "complexity.yaml"
COUNTERS = {
    "fvcore": "fvcore",
    "thop": "thop",
    "torch": "torch's FlopCounterMode",
    "parameters": "all parameters",
}
_PREFIXES = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_PRINTED = re.compile(r"(\d+)(?:\.(\d+))? ([kMGT])")


class Figure(Model):
    """One printed figure and how it was counted.

    Attributes:
        variant: name in the registry.
        quantity: ``params`` or ``flops``.
        printed: as printed, number and prefix: ``39.98 G``.
        source: paper and table.
        counter: a key of `COUNTERS`.
        part: ``whole``, or the name of a module.
        mode: of the model while it was counted.
        batch: images, with one set of prompts each.
        prompts: ``box``, ``points``, ``scribble``.
        fused: branches and batch normalisation folded into convolutions.
        counts: what the convention takes in or leaves out, in words.
    """

    variant: str
    quantity: Literal["params", "flops"]
    printed: str
    source: str
    counter: Literal["fvcore", "thop", "torch", "parameters"]
    part: str = "whole"
    mode: Literal["eval", "train"] = "eval"
    batch: int = 1
    prompts: tuple[Literal["box", "points", "scribble"], ...] = ("box",)
    fused: bool = False
    counts: str = ""

    @field_validator("printed")
    @classmethod
    def _readable(cls, value: str) -> str:
        if not _PRINTED.fullmatch(value):
            raise ValueError("must be a number and one of the prefixes k, M, G, T, such as '39.98 G'")
        return value

    @property
    def module(self) -> str | None:
        """Name of the counted module, ``None`` for the whole model."""
        return None if self.part == "whole" else self.part

    def as_printed(self, value: float) -> str:
        """A value with the digits and the prefix of the printed figure."""
        found = _PRINTED.fullmatch(self.printed)
        assert found is not None
        _, decimals, prefix = found.groups()
        return f"{value / _PREFIXES[prefix]:.{len(decimals or '')}f} {prefix}"

    def agrees(self, value: float) -> bool:
        """Whether a value is the printed figure, to its last digit."""
        return self.as_printed(value) == self.printed

    @property
    def convention(self) -> str:
        """How it was counted, in a line; settings that do not touch parameters are left out for them."""
        words = [COUNTERS[self.counter], "whole model" if self.part == "whole" else self.part.replace("_", " ")]
        if self.quantity == "flops":
            words += [self.mode, f"batch {self.batch}"]
            words += [] if self.part.startswith("image_encoder") else [_prompts(self.prompts)]
        return "; ".join([*words, *(["fused"] if self.fused else [])])


def _prompts(prompts: tuple[str, ...]) -> str:
    return " + ".join({"box": "one box", "points": "4 points", "scribble": "scribble"}[p] for p in prompts)


@cache
def all_figures() -> tuple[Figure, ...]:
    """The figures of ``suites/published/complexity.yaml``.

    Raises:
        BenchError: an entry is malformed.
    """
    return read_figures(FIGURES)


def read_figures(path: Path) -> tuple[Figure, ...]:
    """The figures of a file.

    Raises:
        BenchError: the file or an entry of it is malformed.
    """
    try:
        entries: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))["figures"]
        return tuple(Figure.model_validate(entry) for entry in entries)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "entry"
        message = first["msg"].removeprefix("Value error, ")
        raise BenchError(f"{path}: {field} of a figure: {message} (got {first['input']!r:.60}).") from None
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise BenchError(f"{path}: must hold a list `figures`, see its first lines ({error}).") from None


def figures_of(spec: VariantSpec) -> tuple[Figure, ...]:
    """The published figures of what a variant resolves to, by whatever name a suite calls it."""
    return tuple(figure for figure in all_figures() if _same_model(spec, variants.spec(figure.variant)))


def _same_model(one: VariantSpec, other: VariantSpec) -> bool:
    """Whether both are the same network; the prompts and rules of a row do not matter to a convention of its own."""
    fields = ("factory", "input_size", "hyperparameters")
    return all(getattr(one, name) == getattr(other, name) for name in fields)
