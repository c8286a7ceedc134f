"""Where a result comes from: library versions, source hashes, git."""

from __future__ import annotations

import ast
import hashlib
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

LIBRARIES = (
    "numpy",
    "opencv-python-headless",
    "scipy",
    "torch",
    "lightning-fabric",
    "fvcore",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "nncf",
    "pyarrow",
    "safetensors",
    "pandas",
    "matplotlib",
)


@cache
def version(distribution: str) -> str:
    """Installed version of a distribution, ``missing`` if it is not there.  Imports nothing."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "missing"


def versions(distributions: Iterable[str] = LIBRARIES) -> dict[str, str]:
    return {name: version(name) for name in distributions}


def git_state() -> dict[str, Any] | None:
    """Commit and cleanliness of the checkout the harness runs from; ``None`` outside a checkout."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return None
    return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}


def _git(*words: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def hash_sources(paths: Iterable[str]) -> str:
    """SHA-256 over Python files and folders of them, relative to the project: names and contents."""
    sources: set[Path] = set()
    for name in paths:
        path = ROOT / name
        sources |= set(path.rglob("*.py")) if path.is_dir() else {path}
    return _hash_files(sources)


@cache
def hash_module_closure(module: str) -> str:
    """SHA-256 of the sources of `module_closure`.

    So a variant's digest changes with its own file and its building blocks, and not with another family's file.
    """
    return _hash_files(module_closure(module).values())


def module_closure(module: str) -> dict[str, Path]:
    """A module and all that it imports of its own package and of `variants`, transitively: name → source file."""
    package = module.partition(".")[0]
    followed = {package, "variants"}
    seen: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _source(name)
        if name in seen or path is None:
            continue
        seen[name] = path
        is_package = path.name == "__init__.py"
        waiting += [n for n in _imports(path, name, is_package) if n.partition(".")[0] in followed]
    for name in followed - {module}:
        seen.pop(name, None)  # a package's own __init__ is the public interface, not what is computed
    return seen


def _source(name: str) -> Path | None:
    """File of a module, found without importing any package on the way."""
    package, *rest = name.split(".")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    if not rest:  # a package's __init__, or a module that is a file of its own
        return Path(spec.origin) if Path(spec.origin).is_file() else None
    path = Path(spec.origin).parent.joinpath(*rest)
    candidates = (path / "__init__.py", path.with_name(f"{path.name}.py"))
    return next((c for c in candidates if c.is_file()), None)


def _imports(path: Path, module: str, is_package: bool) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            base = parts[: len(parts) - node.level + (1 if is_package else 0)] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    return names


def _hash_files(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else Path(path.name)
        digest.update(f"{shown.as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
