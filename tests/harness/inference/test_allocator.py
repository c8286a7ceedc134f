"""Freed memory stays with the process where the allocator is asked to keep its pages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.allocator import environment, keep_pages

FAULTS = """
import resource, sys
from harness.allocator import keep_pages
if "call" in sys.argv:
    assert keep_pages()
for turn in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(64 * 1024**2)
    for i in range(0, len(block), 4096):
        block[i] = 1
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

glibc = pytest.mark.skipif(
    not sys.platform.startswith("linux") or "CS_GNU_LIBC_VERSION" not in os.confstr_names,
    reason="the settings are glibc's",
)


def faults_of_the_last_block(*arguments: str, **variables: str) -> int:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=clean | variables,
        cwd=Path(__file__).parents[3],
    )
    return int(done.stdout)


@glibc
def test_a_block_freed_and_taken_again_costs_page_faults_unless_pages_are_kept() -> None:
    assert faults_of_the_last_block() > 1000
    assert faults_of_the_last_block("call") < 1000
    assert faults_of_the_last_block(**environment("keep-pages")) < 1000


def test_the_system_allocator_needs_no_variables() -> None:
    assert environment("system") == {}


def test_an_unknown_allocator_is_refused() -> None:
    with pytest.raises(ValueError, match="known: system, keep-pages"):
        environment("jemalloc")


def test_other_platforms_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_pages() is False
