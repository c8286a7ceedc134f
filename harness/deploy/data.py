"""The generated images on which a deployment is compared with the reference, and those it is calibrated on."""

from __future__ import annotations

from harness.config import PhantomData

COMPARED = PhantomData(seed=101, per_modality=1, size=256)
"""One image a modality; apart from those that the shipped suites train on, test on or calibrate with."""
CALIBRATION = PhantomData(seed=102, per_modality=1, size=256)
"""One image a modality: what static quantisation takes the ranges of activations from."""
