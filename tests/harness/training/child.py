"""Runs one training job in a process of its own; asked to, it kills itself when a step reaches the journal.

python -m tests.harness.training.child SPEC.json FOLDER [STEP]
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from harness.jobs import JobSpec
from harness.schema import Record
from harness.training import job
from tests.harness.training.toys import FolderContext


class SuicidalContext(FolderContext):
    """Dies by SIGKILL right after the given unit of work was written."""

    last: str | None = None

    def append(self, key: str, records: Iterable[Record]) -> None:
        super().append(key, records)
        if key == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    context = SuicidalContext(Path(sys.argv[2]))
    if len(sys.argv) > 3:
        context.last = f"step-{sys.argv[3]}"
    job.run(JobSpec.model_validate_json(Path(sys.argv[1]).read_text()), context)
