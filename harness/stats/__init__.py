"""Statistics that measurements and views share: medians, means with their intervals, paired differences, verdicts.

`harness.stats.median` is the standard library alone (what is timed depends on it); the rest is NumPy, and SciPy where
SciPy has the method.
"""

from harness.stats.bootstrap import FEWEST, Interval, macro_intervals, mean_interval, mean_intervals
from harness.stats.median import median_interval, paired_p, relative_half_width
from harness.stats.paired import PairedDifference, SeedNoise, Verdict, holm, paired_difference, seed_noise, verdict
from harness.stats.weights import resampling_weights, stratified_weights

__all__ = [
    "FEWEST",
    "Interval",
    "PairedDifference",
    "SeedNoise",
    "Verdict",
    "holm",
    "macro_intervals",
    "mean_interval",
    "mean_intervals",
    "median_interval",
    "paired_difference",
    "paired_p",
    "relative_half_width",
    "resampling_weights",
    "seed_noise",
    "stratified_weights",
    "verdict",
]
