"""What holds for all tests."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_configure() -> None:
    """A shell that starts the tests in its background has them ignore Ctrl-C; their children would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_machine_lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Processes started by tests neither wait for a run that goes on beside them nor hold one up."""
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(tmp_path_factory.mktemp("tmp"))
    yield
    if before is None:
        del os.environ["TMPDIR"]
    else:
        os.environ["TMPDIR"] = before


@pytest.fixture
def real_data() -> Path:
    """The folder of real cases; a machine without it skips, and says so."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data" / "real"
    folder = Path(os.environ.get("MEDSAM_BENCH_REAL_DATA", default))
    if not folder.is_dir():
        pytest.skip("real cases are not on this machine (set MEDSAM_BENCH_REAL_DATA to their folder)")
    return folder
