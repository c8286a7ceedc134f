"""Times of the official encoders, as data: what `suites/published/latency.yaml` holds."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import BenchError

FILE = Path(__file__).resolve().parent.parent / "suites" / "published" / "latency.yaml"
Allocator = Literal["system", "keep-pages"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Encoder(_Model):
    """Seconds of one encoding under each allocator, and the ratio to the reference's."""

    variant: str
    fused: bool = False
    system: float = Field(gt=0)
    keep_pages: float = Field(gt=0, alias="keep-pages")
    ratio: dict[Allocator, float]


class Official(_Model):
    """All of the file; ``what`` says what was measured, ``threads`` with how many."""

    what: str
    reference: str
    threads: int
    encoders: tuple[Encoder, ...]

    def ratio(self, variant: str, fused: bool, allocator: str) -> float | None:
        """Ratio to the reference's time, or ``None`` where nothing was measured."""
        found = (e for e in self.encoders if (e.variant, e.fused) == (variant, fused))
        return next((value for e in found for name, value in e.ratio.items() if name == allocator), None)


@cache
def official() -> Official:
    """The file that ships.

    Raises:
        BenchError: it is missing or malformed.
    """
    return read(FILE)


def read(path: Path) -> Official:
    """A file of this form.

    Raises:
        BenchError: it cannot be read, or a field is wrong; names the field.
    """
    try:
        return Official.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise BenchError(f"{path}: {field}: {first['msg']}; see the file that ships for its form") from None
    except (OSError, yaml.YAMLError) as error:
        raise BenchError(f"{path}: cannot be read ({error}); restore the file that ships") from None
