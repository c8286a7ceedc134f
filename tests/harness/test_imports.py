"""The walls of the house: who may import whom, and what stays out of cheap commands."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "torchvision", "timm", "pandas", "matplotlib", "fvcore", "scipy", "pyarrow", "onnxruntime", "cv2"}
LEFT_TO_RIGHT = ("harness.suite", "harness.plan", "harness.training", "harness.measure", "harness.store")
SEEN_BY_REPORTS = {
    "harness.schema",
    "harness.store",
    "harness.errors",
    "harness.files",
    "harness.stats",
    "harness.ranking",
}


def imports_of(path: Path) -> set[str]:
    """Absolute names of everything a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", modules("variants"), ids=lambda p: p.name)
def test_variants_know_nothing_of_harness_or_reports(path: Path):
    assert not {n for n in imports_of(path) if n.split(".")[0] in ("harness", "reports")}


@pytest.mark.parametrize("path", modules("reports"), ids=lambda p: p.name)
def test_reports_read_the_store_and_nothing_else_of_the_harness(path: Path):
    used = {n for n in imports_of(path) if n.split(".")[0] in ("harness", "variants")}
    assert not {n for n in used if n != "harness" and not any(n.startswith(ok) for ok in SEEN_BY_REPORTS)}


@pytest.mark.parametrize("path", [p for p in modules("harness") if "commands" not in p.parts], ids=lambda p: p.name)
def test_the_engine_does_not_import_its_views(path: Path):
    if path.name not in ("cli.py", "cli_data.py"):
        assert not {n for n in imports_of(path) if n.split(".")[0] == "reports" or n.startswith("harness.commands")}


@pytest.mark.parametrize("path", modules("harness"), ids=lambda p: p.name)
def test_the_harness_uses_variants_through_the_registry_only(path: Path):
    used = {n for n in imports_of(path) if n.startswith("variants.")}
    assert not {n for n in used if n.split(".")[1] in ("sam", "encoders", "litemedsam", "swiftmedsam", "dummy")}


@pytest.mark.parametrize("folder", ["harness/data", "harness/metrics"])
def test_data_and_metrics_know_nothing_of_what_uses_them(folder: str):
    for path in modules(folder):
        used = imports_of(path)
        assert not {n for n in used if n.startswith(("harness.measure", "harness.training", "harness.inference"))}, path


def loaded_by(*arguments: str) -> set[str]:
    """Heavy libraries a command line has imported when it ends."""
    code = (
        "import sys\nfrom harness.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
        "print('LOADED', *sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = next(line for line in done.stderr.splitlines() if line.startswith("LOADED"))
    return HEAVY & set(loaded.split())


def test_help_imports_nothing_heavy():
    assert loaded_by("--help") == set()


@pytest.mark.parametrize("what", ["variants", "deployments", "datasets", "recipes", "protocols", "suites", "runs"])
def test_listings_import_no_torch(what: str, tmp_path: Path):
    assert "torch" not in loaded_by("list", what, "--json", "--results", str(tmp_path))


def test_planning_imports_no_torch(tmp_path: Path):
    assert not {"torch", "pandas", "matplotlib"} & loaded_by(
        "run", "suites/quickstart.yaml", "--dry-run", "--results", str(tmp_path)
    )


def test_help_answers_within_three_tenths_of_a_second():
    def once() -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "harness.cli", "--help"], capture_output=True, check=True, cwd=ROOT)
        return time.perf_counter() - begun

    assert min(once() for _ in range(5)) < 0.3
