"""The definition's own implementation, to compare with."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="module")
def definition() -> Iterator[ModuleType]:
    """The package ``surface-distance``, which predates numpy 2."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "NaN", np.nan, raising=False)
        patch.setattr(np, "Inf", np.inf, raising=False)
        import surface_distance

        yield surface_distance
