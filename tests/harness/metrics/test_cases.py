"""Many cases are scored in parallel processes, in their order, whatever happens to one of them."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from harness.data.npz import read_arrays
from harness.errors import BenchError
from harness.metrics import CaseResult, LabelMaps, score_case, score_cases


def square(side: int, shift: int, spacing: tuple[float, ...] | None = None) -> LabelMaps:
    shape = (30, 30) if spacing is None else (5, 30, 30)
    gts = np.zeros(shape, np.uint16)
    gts[..., 5 : 5 + side, 5 : 5 + side] = 1
    return LabelMaps(gts, np.roll(gts, shift, axis=-1), spacing)


def refused() -> LabelMaps:
    raise BenchError("the file is damaged; copy it again")


def different() -> LabelMaps:
    return LabelMaps(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8))


def killed() -> LabelMaps:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


CASES = [
    ("2DBox_A", partial(square, 10, 1)),
    ("2DBox_B", refused),
    ("3DBox_C", partial(square, 8, 2, (0.5, 1.0, 3.0))),
    ("2DBox_D", different),
    ("2DBox_E", partial(square, 3, 0)),
]


def test_results_come_in_order_and_are_the_same_for_any_number_of_processes() -> None:
    alone = list(score_cases(CASES, processes=1))
    assert [result.name for result in alone] == [name for name, _ in CASES]
    assert list(score_cases(iter(CASES), processes=2)) == alone


def test_a_case_that_cannot_be_scored_says_why_and_stops_no_other() -> None:
    results = {result.name: result for result in score_cases(CASES, processes=1)}
    assert results["2DBox_B"] == CaseResult("2DBox_B", problem="the file is damaged; copy it again")
    assert "differ in shape" in (results["2DBox_D"].problem or "")
    assert results["2DBox_E"].scores["strict"].case == {"dsc": 1.0, "nsd": 1.0}


def test_each_protocol_has_its_own_order_of_the_spacing_and_its_own_metrics() -> None:
    (result,) = score_cases([CASES[2]], metrics=("nsd", "hd95"), processes=1)
    maps = CASES[2][1]()
    assert result.scores["strict"] == score_case(maps.gts, maps.segs, (3.0, 1.0, 0.5), "strict", ("nsd", "hd95"))
    assert result.scores["cvpr24"] == score_case(maps.gts, maps.segs, (0.5, 1.0, 3.0), "cvpr24", ("nsd",))


def test_a_metric_that_no_protocol_has_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ValueError, match="no metric 'hd95' under cvpr24"):
        score_cases([("2DBox_A", killed)], protocols=("cvpr24",), metrics=("hd95",))


@pytest.mark.slow
def test_a_case_that_takes_its_process_with_it_is_the_only_one_without_scores() -> None:
    cases = [*CASES[:1] * 5, ("2DBox_K", killed), *CASES[:1] * 8]
    results = list(score_cases(cases, processes=2))
    assert [result.name for result in results] == [name for name, _ in cases]
    assert [result.name for result in results if result.problem] == ["2DBox_K"]


def shifted(path: Path) -> LabelMaps:
    """The ground truth of a case, and itself some pixels off."""
    arrays = read_arrays(path, ("gts", "spacing"))
    gts = arrays["gts"]
    return LabelMaps(gts, np.roll(gts, (3, 5), axis=(-2, -1)), arrays.get("spacing"))


@pytest.mark.slow
def test_all_real_cases_are_scored_under_both_protocols_within_twenty_seconds(
    real_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(real_data.glob("*.npz"))
    started = time.perf_counter()
    results = list(score_cases([(file.stem, partial(shifted, file)) for file in files], processes=2))
    took = time.perf_counter() - started
    with capsys.disabled():
        print(f"\n    {len(files)} cases in {took:.1f} s")  # noqa: T201
    assert not [result.problem for result in results if result.problem]
    assert took < 20
