"""Names of the places where times were measured: a sandbox, and its protocol where that is not understood."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from reports.tables.common import none_if_missing

Place = tuple[str, str]
_UNDERSTOOD = ("strict", "")


def place(sandbox: object, protocol: object) -> Place:
    """Sandbox and protocol as words; a missing one is empty."""
    return str(none_if_missing(sandbox) or ""), str(none_if_missing(protocol) or "")


def place_names(places: Iterable[Place]) -> dict[Place, str]:
    """Every different place with its name, sandbox by sandbox: ``docker``, ``docker cvpr24``.

    A sandbox stands alone for protocol ``strict``; any other protocol, and every one of several, is named.
    """
    found = list(dict.fromkeys(places))
    order = list(dict.fromkeys(sandbox for sandbox, _ in found))
    found.sort(key=lambda p: order.index(p[0]))
    several = {s for s in order if sum(sandbox == s for sandbox, _ in found) > 1}
    return {(s, p): s if p in _UNDERSTOOD and s not in several else f"{s} {p}".strip() for s, p in found}


@dataclass(frozen=True)
class Timing:
    """Cold runs in one sandbox under one protocol, over the ``ok`` of its ``cases``.

    ``wall`` in seconds (median over cases); ``peak_anonymous`` in bytes (largest), ``peak_memory`` with the page cache.
    """

    sandbox: str
    protocol: str
    wall: float | None
    peak_anonymous: float | None
    peak_memory: float | None
    cases: int
    ok: int
    failed: int
    status: str
    reason: str

    @property
    def place(self) -> Place:
        """Sandbox and protocol."""
        return self.sandbox, self.protocol

    @property
    def rests_on(self) -> str:
        """How many cases the numbers rest on, if not all: ``n = 7 of 8``."""
        return f"n = {self.ok} of {self.cases}" if self.ok < self.cases else ""
