"""Inference: sessions, the 2D and the 3D pipeline.  numpy and OpenCV only until a torch variant is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.inference.pipeline2d import segment_image
from harness.inference.pipeline3d import segment_volume
from harness.inference.prediction import Prediction
from harness.inference.session import Session, open_session

if TYPE_CHECKING:
    from harness.data.case import Case


def segment(session: Session, case: Case, preprocess_rule: str = "longest-side") -> Prediction:
    """Segment a case, 2D or 3D, with the rule the variant names."""
    if case.ndim == 3:
        return segment_volume(session, case.image, case.boxes, preprocess_rule)
    return segment_image(session, case.image, case.boxes, preprocess_rule)


__all__ = ["Prediction", "Session", "open_session", "segment", "segment_image", "segment_volume"]
