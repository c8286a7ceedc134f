"""When training counts as converged: a rule on the loss curve alone, so that anybody can check it from the records.

Rows whose training did not converge are shown as under-trained, so the rule errs on the side of "not yet":

1. at least ``MIN_STEPS`` steps were taken;
2. the last fifth of the steps (the window) is compared with the fifth before it.  The improvement of the mean loss
   from the earlier to the recent window must be *shown* to be small: its one-sided 95 % upper bound (normal
   approximation, the windows' own variances) is at most ``TOLERANCE`` of the earlier mean.  A noisy curve of few steps
   proves nothing and does not pass;
3. the recent mean is no more than ``TOLERANCE`` above the lowest mean of any earlier window: a curve that rises again
   has not converged.

It says that more steps of the same recipe would change little, not that the result is good.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

MIN_STEPS = 1000
WINDOW_FRACTION = 0.2
TOLERANCE = 0.05
ONE_SIDED_95 = 1.6449


@dataclass(frozen=True)
class Verdict:
    """Whether a curve has converged, and why in one phrase; ``first`` and ``last`` are smoothed losses (mean of the
    first and last tenth of the steps), ``None`` without steps."""

    converged: bool
    reason: str
    first: float | None
    last: float | None


def judge(losses: Sequence[float]) -> Verdict:
    """Apply the rule of this module to the losses of steps 1..n."""
    first, last = _ends(losses)
    reason = _objection(losses)
    return Verdict(reason is None, reason or "the loss no longer improves", first, last)


def smoothed(losses: Sequence[float], decay: float = 0.9) -> float:
    """Exponential moving average of the curve, corrected for its start; for display.  NaN without losses."""
    average = weight = 0.0
    for loss in losses:
        average = decay * average + (1 - decay) * loss
        weight = decay * weight + (1 - decay)
    return average / weight if weight else math.nan


def _ends(losses: Sequence[float]) -> tuple[float | None, float | None]:
    if not losses:
        return None, None
    tenth = max(1, len(losses) // 10)
    return fmean(losses[:tenth]), fmean(losses[-tenth:])


def _objection(losses: Sequence[float]) -> str | None:
    """Why the curve has not converged, or ``None``."""
    steps = len(losses)
    if steps == 0:
        return "untrained"
    if not all(map(math.isfinite, losses)):
        return "the loss is not finite"
    if steps < MIN_STEPS:
        return f"{steps} steps; the rule needs at least {MIN_STEPS}"
    window = int(steps * WINDOW_FRACTION)
    recent, earlier = losses[-window:], losses[-2 * window : -window]
    base = fmean(earlier)
    noise = math.sqrt((variance(recent) + variance(earlier)) / window)
    if base - fmean(recent) + ONE_SIDED_95 * noise > TOLERANCE * abs(base):
        return f"an improvement of more than {TOLERANCE:.0%} between the last two fifths cannot be ruled out"
    lowest = min(fmean(losses[i : i + window]) for i in range(0, steps - window + 1, window))
    if fmean(recent) > lowest + TOLERANCE * abs(lowest):
        return "the loss rises again"
    return None
