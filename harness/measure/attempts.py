"""Units of work that kill the process which does them: noted while they last, given up after some deaths."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.files import write_atomic

ATTEMPTS = 3
"""Times the process may die while working on a case before the case is given up."""
DIED = "the process died while working on this case, most likely for lack of memory"


@dataclass(frozen=True)
class Attempts:
    """The case that is being worked on, in a file that survives the process, and how often it was begun."""

    file: Path

    def deaths(self, case: str) -> int:
        """How often the process died while working on a case, since the last case that was finished."""
        try:
            begun: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return 0
        return int(begun["times"]) if begun["case"] == case else 0

    @contextmanager
    def attempting(self, case: str) -> Iterator[None]:
        """Note the case while the block runs; an exception is no death of the process."""
        write_atomic(self.file, json.dumps({"case": case, "times": self.deaths(case) + 1}))
        try:
            yield
        finally:
            self.file.unlink(missing_ok=True)
