from __future__ import annotations

from pathlib import Path

import pytest

from reports.frame import Run, load_run
from tests.reports.deployed import DeployedRun
from tests.reports.synthetic import SyntheticRun


@pytest.fixture
def synthetic(tmp_path: Path) -> SyntheticRun:
    """A made-up run, not yet written."""
    return SyntheticRun(tmp_path)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The made-up run as it is, loaded."""
    return load_run(*SyntheticRun(tmp_path_factory.mktemp("results")).write())


@pytest.fixture(scope="session")
def page(run: Run) -> str:
    """Its report."""
    from reports import html

    return html.render(run)


@pytest.fixture
def deployed(tmp_path: Path) -> DeployedRun:
    """A made-up run with deployments, not yet written."""
    return DeployedRun(tmp_path)


@pytest.fixture(scope="session")
def deployed_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The made-up run with deployments as it is, loaded."""
    return load_run(*DeployedRun(tmp_path_factory.mktemp("deployed")).write())
