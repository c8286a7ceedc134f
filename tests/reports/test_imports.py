from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "reports"


def loaded_by(modules: str) -> set[str]:
    """Top-level packages that importing these modules loads."""
    code = f"import sys, {modules}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    return set(done.stdout.split())


def test_importing_reports_loads_neither_pandas_nor_matplotlib() -> None:
    assert not loaded_by("reports") & {"pandas", "matplotlib", "numpy", "torch", "jinja2"}


def test_the_terminal_leaderboard_needs_no_matplotlib() -> None:
    assert not loaded_by("reports.leaderboard, reports.gate") & {"matplotlib", "jinja2", "torch"}


def test_every_public_name_is_there() -> None:
    import reports

    for name in reports.__all__:
        assert getattr(reports, name) is not None
