"""A control group above the container: it outlives the container, so the peak of a finished run can be read from it.

Sources: ``docker run --cgroup-parent``; Linux ``cgroup-v1/memory.rst`` (``memory.max_usage_in_bytes``, which covers the
groups below where ``memory.use_hierarchy`` is 1) and ``cgroup-v2.rst`` (``memory.peak``, Linux 5.19 and later).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.measure.runtime.dockercli import start_time

ROOT = Path("/sys/fs/cgroup")
_PREFIX = "medsambench"  # no dash: systemd reads a dash in the name of a slice as a level of its tree


@dataclass(frozen=True)
class ParentGroup:
    """The group of one run.  The engine makes it; we read it, and remove it when the container is gone."""

    number: int
    driver: str
    version: str
    root: Path = ROOT

    @property
    def _stem(self) -> str:
        return f"{_PREFIX}{os.getpid()}n{self.number}"

    @property
    def argument(self) -> str:
        """What ``--cgroup-parent`` takes: a slice under systemd, a path under cgroupfs."""
        return f"{self._stem}.slice" if self.driver == "systemd" else f"/{self._stem}"

    def peak(self) -> tuple[int | None, str]:
        """Peak memory in bytes or ``None``, and where it is from or why there is none."""
        v1 = self.version == "1"
        folder = (self.root / "memory" if v1 else self.root) / self.argument.lstrip("/")
        file = folder / ("memory.max_usage_in_bytes" if v1 else "memory.peak")
        try:
            if v1 and (folder / "memory.use_hierarchy").read_text(encoding="ascii").strip() != "1":
                return None, f"{folder} does not count the groups below it"
            return int(file.read_text(encoding="ascii")), f"control group of the run ({file.name}), page cache included"
        except (OSError, ValueError) as error:
            return None, f"{file} cannot be read ({error})"

    def remove(self) -> None:
        """Remove the group from every hierarchy; what cannot be removed stays and does no harm."""
        _remove(self.argument.lstrip("/"), self.root)


def unusable() -> str | None:
    """Why no group of our own can be used, or ``None``: only root could remove it again."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "a control group above the container needs root"
    if not ROOT.is_dir():
        return f"{ROOT} is not there"
    return None


def remove_stale(root: Path = ROOT) -> None:
    """Remove the groups of measuring processes that have ended."""
    for name in {path.name for path in _folders(f"{_PREFIX}*", root)}:
        pid = name.removeprefix(_PREFIX).partition("n")[0]
        if pid.isdigit() and not start_time(int(pid)):
            _remove(name, root)


def _remove(name: str, root: Path) -> None:
    for folder in _folders(name, root):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _folders(pattern: str, root: Path) -> Iterator[Path]:
    yield from [path for path in (*root.glob(pattern), *root.glob(f"*/{pattern}")) if path.is_dir()]
