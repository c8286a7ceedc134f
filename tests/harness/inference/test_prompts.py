"""Points and scribbles reach the model, and a case gets the same ones whatever was done before it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import variants
from harness.config import Deployment, VariantRef
from harness.data import Case
from harness.inference import InputRules, open_session, segment, segment_image, segment_volume
from harness.inference.session import NumpySession
from tests.harness.inference.support import BrightInBox, Picture
from variants.prompts import make

ALL = InputRules(prompts=("box", "points", "scribble"), prompt_rule="code", loop="swin")


class Recorder(BrightInBox):
    """Remembers the points and scribbles it was given, by box; points move the mask, so that they matter."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts: list[tuple[list[float], Any, Any]] = []

    def decode(
        self, embedding: Picture, boxes: np.ndarray, points: Any = None, scribble: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        logits, iou = super().decode(embedding, boxes)
        for i, box in enumerate(boxes):
            self.prompts.append((box.tolist(), *(None if p is None else p[i].tolist() for p in (points, scribble))))
            for x, y in () if points is None else points[i].astype(int):
                logits[i, 0, max(y - 4, 0) : y + 4, max(x - 4, 0) : x + 4] = 0.7
        return logits, iou


def image_case(seed: int, name: str) -> Case:
    image = np.random.default_rng(seed).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    boxes = np.array([[12 * i, 5 * i, 12 * i + 70, 5 * i + 80] for i in range(10)], np.int64)
    return Case(name, "US", image, boxes)


def volume_case(seed: int, name: str) -> Case:
    volume = np.random.default_rng(seed).integers(0, 256, (6, 90, 110), dtype=np.uint8)
    boxes = np.array([[5, 5, 0, 60, 70, 5], [30, 20, 1, 100, 80, 4], [20, 10, 2, 80, 60, 5]], np.int64)
    return Case(name, "CT", volume, boxes)


CASES = (image_case(0, "2DBox_US_0001"), volume_case(1, "3DBox_CT_0001"), image_case(2, "2DBox_US_0002"))


def prompts_of(case: Case, **how: Any) -> tuple[list[Any], np.ndarray]:
    session = Recorder()
    work = segment_volume if case.ndim == 3 else segment_image
    segs = work(session, case.image, case.boxes, ALL, case.name, **how).segs
    return sorted(session.prompts, key=str), segs


def test_a_model_that_takes_boxes_alone_is_given_nothing_else() -> None:
    session = Recorder()
    segment(session, CASES[0])
    assert all(points is None and scribble is None for _, points, scribble in session.prompts)


@pytest.mark.parametrize("asked", ["points", "scribble"])
def test_only_the_prompts_that_the_rules_ask_for_are_made(asked: str) -> None:
    session = Recorder()
    segment(session, CASES[0], InputRules(prompts=("box", asked), prompt_rule="code"))
    _, points, scribble = session.prompts[0]
    assert (points is not None, scribble is not None) == (asked == "points", asked == "scribble")


def test_prompts_are_made_from_the_slice_and_seeded_by_case_slice_and_label() -> None:
    case = CASES[1]
    session = Recorder()
    segment(session, case, ALL)
    first = variants.preprocess.prepare(case.image[2], 256)
    box = variants.preprocess.boxes_to_network(case.boxes[:1, [0, 1, 3, 4]], (90, 110), 256)
    made = make(box, first.network, ALL.prompts, "code", ["3DBox_CT_0001/2/1"])
    assert (box[0].tolist(), made.points[0].tolist(), made.scribble[0].tolist()) in session.prompts


@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: case.name)
def test_neither_batches_nor_the_execution_change_a_prompt(case: Case) -> None:
    expected, segs = prompts_of(case)
    ways: list[dict[str, Any]] = [{"batch": 1}, {"batch": 3}]
    if case.ndim == 3:
        ways += [{"execution": "reference"}, {"cache_bytes": 0}]
    for how in ways:
        found, other = prompts_of(case, **how)
        assert found == expected
        assert np.array_equal(other, segs)


def test_a_case_of_another_name_gets_other_prompts() -> None:
    case = CASES[0]
    renamed = Case("2DBox_US_0009", case.modality, case.image, case.boxes)
    assert prompts_of(case)[0] != prompts_of(renamed)[0]


@pytest.mark.parametrize("rule", ["paper", "code"])
def test_a_case_gets_the_same_prompts_alone_and_after_others(rule: str) -> None:
    rules = replace(ALL, prompt_rule=rule)
    alone, after = {}, {}
    for case in CASES:
        segs = segment(session := Recorder(), case, rules).segs
        alone[case.name] = (session.prompts, segs.tobytes())
    session = Recorder()
    for case in reversed(CASES):
        done = len(session.prompts)
        segs = segment(session, case, rules).segs
        after[case.name] = (session.prompts[done:], segs.tobytes())
    assert after == alone


def test_a_case_is_segmented_alike_by_a_network_alone_and_after_others() -> None:
    variant = VariantRef(name="swin_litemedsam_tiny", set={"prompt_rule": "code"})
    rules = InputRules.of(variants.resolve(variant.name, variant.set), "published")
    assert rules == ALL
    cases = [replace(case, boxes=case.boxes[:2]) for case in CASES[:2]]
    alone = [segment(open_session(variant, Deployment(threads=1), seed=4), case, rules).segs for case in cases]
    again = open_session(variant, Deployment(threads=1), seed=4)
    after = [segment(again, case, rules).segs for case in reversed(cases)]
    assert all(np.array_equal(a, b) for a, b in zip(alone, reversed(after), strict=True))


def test_many_boxes_at_once_give_what_one_at_a_time_gives() -> None:
    session = open_session(VariantRef(name="swin_litemedsam_tiny"), Deployment(threads=1), seed=4)
    case = CASES[0]
    one, many = (segment_image(session, case.image, case.boxes, ALL, case.name, batch=n).segs for n in (1, 10))
    assert (one == many).mean() >= 0.9999


def test_points_and_scribble_change_what_a_session_answers() -> None:
    session = open_session(VariantRef(name="swin_litemedsam_tiny"), Deployment(threads=1), seed=4)
    prepared = variants.preprocess.prepare(CASES[0].image, 256)
    boxes = np.array([[20, 20, 150, 120]], np.float32)
    made = make(boxes, prepared.network, ALL.prompts, "code", ["a"])
    embedding = session.encode(prepared.network[None])
    answers = [session.decode(embedding, boxes, p, s)[0] for p in (None, made.points) for s in (None, made.scribble)]
    assert len({a.tobytes() for a in answers}) == 4


def test_a_numpy_variant_is_given_the_prompts_too() -> None:
    class Model:
        input_size = 256

        def decode(self, emb, boxes, image_index=None, points=None, scribble=None, multimask=False):
            return points, scribble

    points, scribble = np.zeros((1, 4, 2), np.float32), np.ones((1, 1, 256, 256), np.float32)
    answer = NumpySession(Model()).decode(None, np.zeros((1, 4), np.float32), points, scribble)
    assert [np.array_equal(a, b) for a, b in zip(answer, (points, scribble), strict=True)] == [True, True]
