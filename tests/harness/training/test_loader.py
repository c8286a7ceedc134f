"""Batches from worker processes are those of the calling process, bit for bit, and no process is left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
import psutil
import pytest
import torch

from harness.errors import BenchError
from harness.recipe import ColourJitter, Sampler
from harness.training.loader import Loader
from harness.training.samples import Batch, Draw, Samples
from tests.harness.training.toys import ToyData, image_case, toy_data

DRAW = Draw(64, "longest-side", 5, 0.5, objects=2, colour=ColourJitter(), prompts=("box", "points", "scribble"))
SAMPLER = Sampler(rule="balanced")


def samples_of(data: ToyData | None = None) -> Samples:
    return Samples(data or toy_data(), DRAW, 5, sampler=SAMPLER)


def same(one: Batch, other: Batch) -> bool:
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Batch)]
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)


def gone(processes: list[psutil.Process], seconds: float = 20) -> bool:
    """Whether they end in time; asks without waiting for them, which would hide a child's end from its parent."""
    until = time.monotonic() + seconds
    while any(psutil.pid_exists(p.pid) and p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def workers() -> list[psutil.Process]:
    return [psutil.Process(child.pid) for child in multiprocessing.active_children()]


def faulty() -> ToyData:
    """Three cases, one of them without ground truth."""
    data = toy_data()
    return ToyData({**data.held, "2DBox_US_bad": replace(image_case("2DBox_US_bad"), truth=None)})


def outcome(samples: Samples, index: int) -> Batch | BenchError:
    try:
        return samples.batch(index, 1)
    except BenchError as error:
        return error


def first_good() -> int:
    """An index that does not show the case without ground truth."""
    return next(index for index in range(20) if isinstance(outcome(samples_of(faulty()), index), Batch))


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    """Two workers, one of the four cases without ground truth."""
    with Loader(samples_of(faulty()), 1, workers=2) as loader:
        yield loader
        found = workers()
    assert len(found) == 2
    assert gone(found)


def test_without_workers_batches_are_made_when_asked_for() -> None:
    data = toy_data()
    loader = Loader(samples_of(data), 3)
    assert not data.loads
    assert all(same(loader(index), samples_of().batch(index, 3)) for index in (0, 1, 5))
    assert not multiprocessing.active_children()
    assert loader.waited > 0


def test_a_share_of_each_batch_can_be_asked_for() -> None:
    assert same(Loader(samples_of(), 4, first=1, count=2)(3), samples_of().batch(3, 4, 1, 2))


def test_workers_give_the_same_batches_in_any_order_and_the_same_errors(loader: Loader) -> None:
    here = samples_of(faulty())
    before = torch.get_rng_state()
    errors = 0
    for index in (*range(8), 17, 18, 3, 3, 4):
        expected = outcome(here, index)
        if isinstance(expected, Batch):
            assert same(loader(index), expected)
            continue
        errors += 1
        with pytest.raises(BenchError) as raised:
            loader(index)
        assert type(raised.value) is type(expected)
        assert str(raised.value) == str(expected)
        assert "'2DBox_US_bad' has no ground truth" in str(expected)
    assert 1 <= errors < 10
    assert torch.equal(torch.get_rng_state(), before), "the global generator is left alone"


def test_workers_have_one_thread_each(loader: Loader) -> None:
    before = dict(os.environ)
    loader(first_good())
    assert os.environ == before
    # a process's own threads are this, its queue's, and none of a library's pool
    assert [worker.num_threads() <= 3 for worker in workers()] == [True, True]


def test_workers_leave_interrupts_to_the_parent(loader: Loader) -> None:
    loader(first_good())
    for worker in workers():
        worker.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert same(loader(first_good()), samples_of(faulty()).batch(first_good(), 1))
