from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "reports"
ALLOWED = {"harness.schema", "harness.store", "harness.errors"}


def loaded_by(modules: str) -> set[str]:
    """Top-level packages that importing these modules loads."""
    code = f"import sys, {modules}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    return set(done.stdout.split())


def test_importing_reports_loads_neither_pandas_nor_matplotlib() -> None:
    assert not loaded_by("reports") & {"pandas", "matplotlib", "numpy", "torch", "jinja2"}


def test_the_terminal_leaderboard_needs_no_matplotlib() -> None:
    assert not loaded_by("reports.leaderboard, reports.gate") & {"matplotlib", "jinja2", "torch"}


def test_reports_reads_the_store_and_nothing_else_of_the_harness() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            outside = {n for n in names if n.split(".")[0] in ("harness", "variants")}
            assert outside <= ALLOWED, f"{path.name} imports {outside - ALLOWED}"


def test_every_public_name_is_there() -> None:
    import reports

    for name in reports.__all__:
        assert getattr(reports, name) is not None
