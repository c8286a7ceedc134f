"""Cases, bundles and a job context for the tests of the sandboxes."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from harness.config import Deployment, FolderData, RuntimeSettings, VariantRef
from harness.data import Case, write_case
from harness.jobs import JobSpec
from harness.measure.runtime import dockercli
from harness.measure.runtime.bundle import load_bundle, write_description
from harness.measure.runtime.cgroup import CgroupSandbox
from harness.measure.runtime.sandbox import Limits, python_path

MIB = 1 << 20
ROOMY = Limits(memory_bytes=2048 * MIB, cpus=1, timeout_s=60)


def make_case(folder: Path, name: str = "2DBox_US_0001", truth: bool = True) -> Path:
    """A small image with two boxes."""
    image = np.random.default_rng(1).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    boxes = np.array([[3, 4, 20, 30], [30, 5, 50, 35]])
    gts = np.zeros((40, 60), dtype=np.uint16)
    gts[10:20, 10:20], gts[10:30, 35:45] = 1, 2
    case = Case(name, "US", image, boxes.astype(np.int64), truth=gts if truth else None)
    write_case(case, folder / f"{name}.npz")
    return folder / f"{name}.npz"


def make_large_volume(folder: Path, mebibytes: int, name: str = "3DBox_CT_0001") -> Path:
    """A volume of that many MiB in memory and little on disk."""
    row = np.random.default_rng(2).integers(0, 255, 512, dtype=np.uint8)
    volume = np.tile(row, (mebibytes * 4, 512, 1))
    box = np.array([[10, 10, 1, 100, 100, 3]], dtype=np.int64)
    write_case(Case(name, "CT", volume, box), folder / f"{name}.npz")
    return folder / f"{name}.npz"


def fake_bundle(folder: Path, mode: str, **environment: str):
    """A bundle for ``fake_worker``."""
    folder.mkdir(parents=True)
    write_description(folder, {"target": "numpy", "weights": None, "environment": {"FAKE": mode, **environment}})
    return load_bundle(folder)


def runtime_job(cases: Path, variant: str = "dummy", **settings) -> JobSpec:
    settings = {"memory": "1GiB", "cpus": 1, "timeout": 60, **settings}
    return JobSpec(
        kind="runtime",
        variant=VariantRef(name=variant),
        deployment=Deployment(threads=1),
        dataset=FolderData(path=str(cases)),
        settings=RuntimeSettings(**settings).model_dump(mode="json"),
    )


@dataclass
class PlainContext:
    """A job context that keeps its journal in memory."""

    root: Path
    journal: dict = field(default_factory=dict)

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def done(self, key):
        return key in self.journal

    def records(self):
        return [row for rows in self.journal.values() for row in rows]

    def append(self, key, records):
        assert key not in self.journal
        self.journal[key] = list(records)

    def progress(self, fraction, message):
        assert 0 <= fraction <= 1

    def artifact(self, name):
        return None

    def put_artifact(self, name, path):
        raise AssertionError("a runtime job stores no artifact")

    def rows(self, metric):
        return [row for rows in self.journal.values() for row in rows if row.metric == metric]


def need_engine() -> None:
    """Skip with the reason where there is no engine; in CI its absence is a failure."""
    reason = dockercli.why_unavailable()
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


def need_groups() -> None:
    """Skip with the reason where control groups cannot be made; in CI, which runs these as root, that is a failure."""
    reason = CgroupSandbox().unavailable()
    if reason and os.environ.get("CI") and os.geteuid() == 0:
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


def uncached_file(path: Path, size: int) -> Path:
    """A file of that many bytes, none of which is in the page cache: who reads it, has it counted."""
    with path.open("wb") as stream:
        for _ in range(size // MIB):
            stream.write(bytes(MIB))
        stream.flush()
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path


def measuring_process(folder: Path, module: str, pids: Path, count: int = 1) -> "subprocess.Popen[bytes]":
    """A process that measures a hanging program by the sandbox ``FAKE`` of a test module; its program runs already.

    The program writes its process ids, ``count`` of them, to ``pids``.
    """
    fake_bundle(folder / "b", "hang", PIDS=str(pids))
    make_case(folder)
    code = (
        "from pathlib import Path\n"
        "from harness.measure.runtime.bundle import load_bundle\n"
        f"from {module} import FAKE, ROOMY\n"
        f"root = Path({str(folder)!r})\n"
        "FAKE.run_case(load_bundle(root / 'b'), root / '2DBox_US_0001.npz', root / 'out', ROOMY)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": python_path()})
    deadline = time.monotonic() + 30
    while not (pids.exists() and len(pids.read_text().split()) >= count) and time.monotonic() < deadline:
        time.sleep(0.02)
    return parent
