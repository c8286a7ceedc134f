"""Hashes of sources: a digest follows what is computed, and only that."""

import sys
from pathlib import Path

import pytest

from harness import provenance
from harness.machine import this_machine
from harness.provenance import git_state, hash_module_closure, hash_sources, versions


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of two models that share one block; importing any of it fails."""
    root = tmp_path / "zoo"
    (root / "blocks").mkdir(parents=True)
    for name, text in {
        "__init__.py": "",
        "blocks/__init__.py": "raise RuntimeError('imported')",
        "blocks/shared.py": "WIDTH = 1",
        "one.py": "from zoo.blocks.shared import WIDTH",
        "two.py": "def build():\n    from .blocks import shared\n",
        "three.py": "import math",
    }.items():
        (root / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return root


def digests() -> dict[str, str]:
    hash_module_closure.cache_clear()
    return {name: hash_module_closure(f"zoo.{name}") for name in ("one", "two", "three")}


def changed_by(path: Path, text: str) -> set[str]:
    before = digests()
    path.write_text(text)
    after = digests()
    return {name for name in before if before[name] != after[name]}


def test_a_model_file_changes_its_own_digest_alone(package: Path):
    assert changed_by(package / "one.py", "from zoo.blocks.shared import WIDTH\nX = 1") == {"one"}


def test_a_shared_block_changes_all_that_use_it_also_by_relative_and_late_imports(package: Path):
    assert changed_by(package / "blocks" / "shared.py", "WIDTH = 2") == {"one", "two"}


def test_hashing_imports_nothing(package: Path):
    digests()
    assert not {m for m in sys.modules if m.startswith("zoo")}


def test_a_family_does_not_depend_on_the_files_of_another():
    hash_module_closure.cache_clear()
    assert hash_module_closure("variants.dummy") != hash_module_closure("variants.litemedsam")


def test_a_variant_of_another_package_depends_on_the_parts_it_takes_from_here(package: Path):
    (package / "one.py").write_text("from variants.sam.build import sam_parts")
    found = provenance.module_closure("zoo.one")
    assert {"zoo.one", "variants.sam.build", "variants.sam.transformer"} <= set(found)
    assert "variants.encoders.swin" not in found


def test_sources_are_hashed_by_name_and_content():
    assert hash_sources(["harness/schema.py"]) != hash_sources(["harness/errors.py"])
    assert hash_sources(["harness/metrics"]) == hash_sources(["harness/metrics"])


def test_versions_of_absent_libraries_are_said_to_be_missing():
    assert versions(["numpy", "no-such-thing"])["no-such-thing"] == "missing"


def test_the_fingerprint_of_a_machine_is_stable():
    assert this_machine().fingerprint == this_machine().fingerprint
    assert len(this_machine().fingerprint) == 16


def test_the_commit_is_known_in_a_checkout():
    state = git_state()
    assert state is None or len(state["commit"]) == 40
