"""The complexity job: parameters, multiply-adds and activations of a variant, counted one way for all of them."""

from harness.measure.complexity.job import CONVENTION, KEY, run
from harness.measure.complexity.multiply_adds import Count, count_flops

__all__ = ["CONVENTION", "KEY", "Count", "count_flops", "run"]
