"""Grey values of any range to 0..255, by the rules with which the challenge's cases were prepared.

Values that are uint8 already are left as they are: they have been prepared.  CT in Hounsfield units is cut at a window;
MR, PET and other volumes at the percentiles 0.5 and 99.5 of their values above zero, and their zeros stay zero; images
beyond 255 are rescaled as they are.  All are then stretched from their own minimum and maximum to 0..255 and truncated.

Sources: the preparation of MedSAM and LiteMedSAM; windows: Ma et al., Segment anything in medical images, Nature
Communications 15, 654 (2024), Methods.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

WINDOWS: Final[dict[str, tuple[float, float]]] = {
    "abdomen": (40.0, 400.0),
    "lung": (-160.0, 1500.0),
    "brain": (40.0, 80.0),
    "bone": (400.0, 1800.0),
}
"""Level and width in Hounsfield units; abdomen is -160..240."""

PERCENTILES: Final = (0.5, 99.5)


def windowed(values: NDArray[Any], level: float, width: float) -> NDArray[np.uint8]:
    """Cut at level ± width/2, then stretch: the rule for CT in Hounsfield units; (H,W) or (D,H,W)."""
    return _cut_and_stretched(values, level - width / 2, level + width / 2)


def by_percentiles(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Cut at the percentiles of the values above zero, then stretch; zeros stay zero: the rule for MR and others.

    Without a value above zero the percentiles are those of all values.
    """
    above = values[values > 0]
    low, high = np.percentile((above if above.size else values).astype(np.float64), PERCENTILES)
    result = _cut_and_stretched(values, float(low), float(high))
    result[values == 0] = 0
    return result


def stretched(values: NDArray[Any]) -> NDArray[np.uint8]:
    """From the array's own minimum and maximum to 0..255, truncated; a constant array becomes 0."""
    return _cut_and_stretched(values, -np.inf, np.inf)


def _cut_and_stretched(values: NDArray[Any], lowest: float, highest: float) -> NDArray[np.uint8]:
    low = min(max(float(values.min()), lowest), highest)
    high = min(max(float(values.max()), lowest), highest)
    result = np.zeros(values.shape, np.uint8)
    if high > low:
        # slice by slice, since a volume in double precision would take eight times its final size
        for layer, grey in zip(values, result, strict=True):
            cut = np.clip(layer.astype(np.float64), low, high)
            grey[...] = ((cut - low) / (high - low) * 255.0).astype(np.uint8)
    return result
