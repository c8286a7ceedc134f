from __future__ import annotations

import pytest

from harness.training.hints import loader_hint


@pytest.mark.parametrize(("waited", "total"), [(0.0, 0.0), (0.0, 10.0), (1.0, 10.0)])
def test_nothing_is_said_where_data_hardly_keep_anybody_waiting(waited: float, total: float) -> None:
    assert loader_hint(waited, total, 0) is None


@pytest.mark.parametrize(("workers", "processors", "advised"), [(0, 8, 2), (2, 8, 4), (4, 8, 7), (0, 2, 1), (1, 3, 2)])
def test_more_workers_are_advised_as_far_as_there_are_processors(workers: int, processors: int, advised: int) -> None:
    hint = loader_hint(3.0, 10.0, workers, processors)
    assert hint == (
        f"30% of the training time went into waiting for data: set `workers: {advised}` in the recipe; "
        "smaller images are decoded faster, too."
    )


@pytest.mark.parametrize(("workers", "processors"), [(0, 1), (1, 2), (8, 4)])
def test_no_more_workers_than_processors_are_advised(workers: int, processors: int) -> None:
    hint = loader_hint(3.0, 10.0, workers, processors)
    assert hint == (
        "30% of the training time went into waiting for data, and no processor is left for more `workers`: "
        "smaller images are decoded faster."
    )
