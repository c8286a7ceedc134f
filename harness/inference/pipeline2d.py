"""Segmentation of a 2D image: one encoding a case, one mask a box."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.inference.clock import Clock
from harness.inference.masks import positive_region
from harness.inference.prediction import Prediction, checked, empty_labels
from harness.inference.session import Session
from variants import preprocess

DECODE_BATCH = 8
"""Boxes decoded at once; a published decoder needs about 40 MB of activations a box."""


def segment_image(
    session: Session,
    image: NDArray[np.uint8],
    boxes: NDArray[np.int64],
    rule: str = "longest-side",
    batch: int = DECODE_BATCH,
) -> Prediction:
    """Segment every box of one image; a later box overwrites an earlier one where both masks are true.

    Args:
        session: the model.
        image: uint8 (H,W,3) or (H,W).
        boxes: (N,4) x0,y0,x1,y1 in image pixels.
        rule: preprocessing rule of the variant.
        batch: boxes decoded at once.
    """
    clock = Clock()
    with clock.phase("preprocess"):
        prepared = preprocess.prepare(image, session.input_size, rule)
        prompts = preprocess.boxes_to_network(boxes, prepared.original_hw, session.input_size)
        segs = empty_labels(prepared.original_hw, len(boxes))
    with clock.phase("encode"):
        embedding = session.encode(prepared.network[None])
    for start in range(0, len(prompts), batch):
        with clock.phase("decode"):
            logits, _ = session.decode(embedding, prompts[start : start + batch])
        with clock.phase("postprocess"):
            for offset, mask in enumerate(checked(logits, len(prompts[start : start + batch]))):
                region = positive_region(mask, session.input_size, prepared.scale_hw, prepared.original_hw)
                if region is not None:
                    region.paint(segs, start + offset + 1)
    return Prediction(segs, encodes=1, timings=clock.seconds)
