from __future__ import annotations

import math

import numpy as np
import pytest

from harness.training.convergence import MIN_STEPS, judge, smoothed


def curve(steps: int, final: float = 0.3, decay: float = 0.01, noise: float = 0.03) -> list[float]:
    rng = np.random.default_rng(0)
    return list(final + np.exp(-decay * np.arange(steps)) + noise * rng.standard_normal(steps))


def test_no_steps_means_untrained() -> None:
    verdict = judge([])
    assert (verdict.converged, verdict.reason, verdict.first, verdict.last) == (False, "untrained", None, None)


def test_a_flat_end_after_enough_steps_is_converged() -> None:
    assert judge(curve(3000)).converged


def test_the_same_curve_cut_short_is_not() -> None:
    verdict = judge(curve(3000)[: MIN_STEPS - 1])
    assert not verdict.converged
    assert str(MIN_STEPS) in verdict.reason


def test_a_curve_that_still_falls_is_not() -> None:
    assert not judge(curve(3000, decay=0.0003)).converged


def test_noise_that_could_hide_an_improvement_is_not_taken_for_convergence() -> None:
    assert not judge(curve(1000, decay=0.05, noise=0.3)).converged
    assert judge(curve(1000, decay=0.05, noise=0.03)).converged


def test_a_curve_that_rises_again_is_not() -> None:
    verdict = judge([*curve(2000), *([0.6] * 1500)])
    assert (verdict.converged, verdict.reason) == (False, "the loss rises again")


def test_a_loss_that_is_not_finite_is_not() -> None:
    assert not judge([*curve(3000), math.nan]).converged


def test_first_and_last_are_means_of_a_tenth_of_the_steps() -> None:
    verdict = judge([float(n) for n in range(20)])
    assert (verdict.first, verdict.last) == (0.5, 18.5)


def test_the_moving_average_of_a_constant_is_that_constant_from_the_first_step() -> None:
    assert smoothed([0.7]) == pytest.approx(0.7)
    assert smoothed([0.7] * 5) == pytest.approx(0.7)
    assert math.isnan(smoothed([]))
