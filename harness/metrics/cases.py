"""Many cases scored in parallel processes: each worker loads its own maps, and only scores travel."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

from numpy.typing import NDArray

from harness.errors import BenchError
from harness.metrics.score import CaseScore, Protocol, protocol_spacing, score_case
from harness.parent import end_with_parent
from harness.schema import METRICS_OF

PROTOCOLS: tuple[Protocol, ...] = ("strict", "cvpr24")
DIED = "the process died while scoring this case, most likely for lack of memory"


@dataclass(frozen=True)
class LabelMaps:
    """What a case is scored by.

    Attributes:
        gts, segs: ground truth and prediction, integer label maps (H,W) or (D,H,W).
        spacing_xyz: mm, as stored in a case; ``None`` for images.
    """

    gts: NDArray[Any]
    segs: NDArray[Any]
    spacing_xyz: Sequence[float] | None = None


Load = Callable[[], LabelMaps]


@dataclass(frozen=True)
class CaseResult:
    """Scores of one case, or why there are none.

    Attributes:
        name: of the case.
        scores: protocol → scores; empty if there is a problem.
        problem: one sentence, ``None`` if the case was scored.
    """

    name: str
    scores: dict[Protocol, CaseScore] = field(default_factory=dict)
    problem: str | None = None


def score_cases(
    cases: Iterable[tuple[str, Load]],
    protocols: Sequence[Protocol] = PROTOCOLS,
    metrics: Sequence[str] = ("dsc", "nsd"),
    processes: int | None = None,
) -> Iterator[CaseResult]:
    """Score cases in parallel; results come in the order of the cases, whatever the number of processes.

    A case that cannot be loaded or scored has a problem and stops no other; one that takes its process with it is tried
    once more, alone, and then has one too.

    Args:
        cases: a name and a function without arguments each, which loads the maps where they are scored; picklable (a
            ``functools.partial`` of a function of a module) unless ``processes`` is 1.
        protocols: under which to score.
        metrics: each protocol gives those it has, see ``METRICS_OF``.
        processes: as many as the processors this process may use unless stated; 1 scores in this process.

    Raises:
        ValueError: no protocol has one of the metrics.
    """
    wanted = {protocol: tuple(name for name in metrics if name in METRICS_OF[protocol]) for protocol in protocols}
    unknown = [name for name in metrics if not any(name in names for names in wanted.values())]
    if unknown:
        raise ValueError(
            f"no metric {unknown[0]!r} under {', '.join(protocols)}; known: {', '.join(METRICS_OF['strict'])}"
        )
    count = processes or len(os.sched_getaffinity(0))
    if count == 1:
        return (_score(name, load, wanted) for name, load in cases)
    return _in_parallel(cases, wanted, count)


Wanted = dict[Protocol, tuple[str, ...]]


def _score(name: str, load: Load, wanted: Wanted) -> CaseResult:
    try:
        maps = load()
        scores = {}
        for protocol, metrics in wanted.items():
            spacing = protocol_spacing(protocol, maps.spacing_xyz) if maps.gts.ndim == 3 else None
            scores[protocol] = score_case(maps.gts, maps.segs, spacing, protocol, metrics)
    except BenchError as error:
        return CaseResult(name, problem=str(error))
    except MemoryError:
        return CaseResult(name, problem="out of memory; score with fewer processes")
    except ValueError as error:
        return CaseResult(name, problem=f"{name}: {error}")
    return CaseResult(name, scores)


def _in_parallel(cases: Iterable[tuple[str, Load]], wanted: Wanted, count: int) -> Iterator[CaseResult]:
    """Some cases ahead of the one whose result is due; no more, so that the cases may come from anywhere."""
    waiting: deque[tuple[str, Load, Future[CaseResult]]] = deque()
    pool = _pool(count)
    try:
        for name, load in cases:
            try:
                future = pool.submit(_score, name, load, wanted)
            except BrokenProcessPool as error:
                future = Future()
                future.set_exception(error)
            waiting.append((name, load, future))
            while len(waiting) > 2 * count or (waiting and _broken(waiting[0][2])):
                due = waiting.popleft()
                if _broken(due[2]):
                    pool.shutdown(wait=True)
                    pool = _pool(count)
                yield _result(*due, wanted)
        while waiting:
            yield _result(*waiting.popleft(), wanted)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _broken(future: Future[CaseResult]) -> bool:
    return future.done() and isinstance(future.exception(), BrokenProcessPool)


def _result(name: str, load: Load, future: Future[CaseResult], wanted: Wanted) -> CaseResult:
    try:
        return future.result()
    except BrokenProcessPool:  # which of the cases in the pool it was nobody knows
        with _pool(1) as alone:
            try:
                return alone.submit(_score, name, load, wanted).result()
            except BrokenProcessPool:
                return CaseResult(name, problem=DIED)


def _pool(count: int) -> ProcessPoolExecutor:
    # Started anew rather than forked: a fork would copy the locks of whatever threads the caller's libraries run.
    return ProcessPoolExecutor(count, get_context("spawn"), initializer=_prepare, initargs=(os.getpid(),))


def _prepare(parent: int) -> None:
    """In a worker: leave Ctrl-C to the parent, and end with it however it ends (Linux)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(parent)
