"""Inference: sessions, the 2D and the 3D pipeline.  numpy and OpenCV only until a torch variant is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.inference.pipeline2d import segment_image
from harness.inference.pipeline3d import CACHE_BYTES, segment_volume
from harness.inference.prediction import Prediction
from harness.inference.rules import Execution, InputRules
from harness.inference.session import Session, open_session

if TYPE_CHECKING:
    from harness.data.case import Case


def segment(
    session: Session,
    case: Case,
    rules: InputRules | None = None,
    execution: Execution = "sweep",
    embedding_cache: int = CACHE_BYTES,
) -> Prediction:
    """Segment a case, 2D or 3D, by the variant's rules; a box prompt and the defaults of `InputRules` if left out.

    Args:
        session: the model.
        case: with its boxes.
        rules: of the variant.
        execution: ``sweep`` or ``reference``; the masks are the same.
        embedding_cache: budget in bytes of the embeddings kept of a volume.
    """
    if case.ndim == 3:
        return segment_volume(session, case.image, case.boxes, rules, case.name, execution, embedding_cache)
    return segment_image(session, case.image, case.boxes, rules, case.name, execution)


__all__ = ["InputRules", "Prediction", "Session", "open_session", "segment", "segment_image", "segment_volume"]
