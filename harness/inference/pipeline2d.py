"""Segmentation of a 2D image: one encoding a case, one mask a box.

The rule gives the same masks however it is executed:

``sweep``
    Boxes are decoded together, and a mask is resized only where it can be positive.
``reference``
    As the authors' scripts do: one box after the other, every mask resized to the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.inference.clock import Clock
from harness.inference.masks import FloatArray, positive_region
from harness.inference.prediction import Prediction, checked, empty_labels
from harness.inference.rules import Execution, InputRules, checked_execution
from harness.inference.session import EmbeddingLike, Session
from variants import preprocess

DECODE_BATCH = 8
"""Boxes decoded at once; a published decoder needs about 40 MB of activations a box."""


def segment_image(
    session: Session,
    image: NDArray[np.uint8],
    boxes: NDArray[np.int64],
    rules: InputRules | None = None,
    name: str = "",
    execution: Execution = "sweep",
    batch: int = DECODE_BATCH,
) -> Prediction:
    """Segment every box of one image; a later box overwrites an earlier one where both masks are true.

    Args:
        session: the model.
        image: uint8 (H,W,3) or (H,W).
        boxes: (N,4) x0,y0,x1,y1 in image pixels.
        rules: preprocessing and prompts of the variant; a box prompt on the longest-side rule if left out.
        name: of the case; seeds its points and scribbles.
        execution: ``sweep`` or ``reference``, see the description of this module.
        batch: boxes decoded at once; one in the reference.
    """
    rules, clock = rules or InputRules(), Clock()
    sweep = checked_execution(execution) == "sweep"
    batch = batch if sweep else 1
    with clock.phase("preprocess"):
        prepared = preprocess.prepare(image, session.input_size, rules.preprocess)
        prompts = preprocess.boxes_to_network(boxes, prepared.original_hw, session.input_size, rules.preprocess)
        segs = empty_labels(prepared.original_hw, len(boxes))
        sigmoid_first = preprocess.sigmoid_first(rules.preprocess)
    with clock.phase("encode"):
        embedding = session.encode(prepared.network[None])
    for start in range(0, len(prompts), batch):
        group = prompts[start : start + batch]
        labels = range(start + 1, start + len(group) + 1)
        keys = [prompt_key(name, 0, label) for label in labels]
        masks = decode_boxes(session, embedding, group, prepared.network, rules, keys, clock)
        with clock.phase("postprocess"):
            for label, mask in zip(labels, masks, strict=True):
                scale_hw, original_hw = prepared.scale_hw, prepared.original_hw
                region = positive_region(
                    mask, session.input_size, scale_hw, original_hw, sigmoid_first, everywhere=not sweep
                )
                if region is not None:
                    region.paint(segs, label)
    return Prediction(segs, encodes=1, timings=clock.seconds)


def prompt_key(name: str, z: int, label: int) -> str:
    """What seeds the points and the scribble of one object on one slice (0 for images), whatever was done before."""
    return f"{name}/{z}/{label}"


def decode_boxes(
    session: Session,
    embedding: EmbeddingLike,
    boxes: FloatArray,
    image: FloatArray | None,
    rules: InputRules,
    keys: Sequence[str],
    clock: Clock,
) -> FloatArray:
    """Logits (N,g,g) of N boxes of one image, with the prompts that the rules ask for.

    Args:
        session: the model.
        embedding: of the image.
        boxes: float32 (N,4) in network pixels.
        image: prepared network input (3,S,S), from which points and scribbles are made; may be missing for boxes alone.
        rules: which prompts, made how.
        keys: seed of each box.
        clock: making prompts is preprocessing.

    Raises:
        InvalidOutputError: the model's answer has another shape or is not finite.
    """
    points = scribble = None
    if rules.more_than_boxes:
        from variants import prompts

        assert image is not None
        with clock.phase("preprocess"):
            made = prompts.make(boxes, image, rules.prompts, rules.prompt_rule, keys)
        boxes, points, scribble = made.boxes, made.points, made.scribble
    with clock.phase("decode"):
        logits, _ = session.decode(embedding, boxes, points, scribble)
    with clock.phase("postprocess"):
        return checked(logits, len(boxes))
