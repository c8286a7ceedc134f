"""Fidelity: how far a deployment is from the reference, told by what is compared and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import variants
from harness.deploy import fidelity
from harness.deploy.data import CALIBRATION, COMPARED
from harness.deploy.samples import Sample
from harness.failure import InvalidOutputError


class Plain:
    """A session whose logits are a ramp; ``shift`` and ``flip`` make it differ."""

    input_size = 8

    def __init__(self, shift: float = 0.0, flip: int = 0) -> None:
        self.shift, self.flip = shift, flip

    def encode(self, images):
        return images

    def decode(self, embedding, boxes, points=None, scribble=None):
        logits = np.tile(np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 1, 8, 8), (len(boxes), 1, 1, 1))
        logits = logits + np.float32(self.shift)
        logits.reshape(len(boxes), -1)[0, : self.flip] *= -1
        return logits, np.zeros((len(boxes), 1), np.float32)


def sample(boxes: int = 2) -> Sample:
    return Sample(np.zeros((1, 3, 8, 8), np.float32), np.zeros((boxes, 4), np.float32), None, None)


def compare(session, boxes: int = 2):
    return fidelity.compare(session, Plain(), [sample(boxes), sample(1)], lambda _: None)


def test_the_reference_agrees_with_itself():
    compared = compare(Plain())
    assert (compared.agreement, compared.worst, compared.difference) == (1.0, 1.0, 0.0)
    assert (compared.images, compared.objects) == (2, 3)


def test_a_flipped_pixel_lowers_the_mean_and_the_worst_mask():
    compared = compare(Plain(flip=1))
    assert compared.agreement == pytest.approx(1 - 2 / (3 * 64))
    assert compared.worst == 1 - 1 / 64
    assert compared.dsc == pytest.approx(1 - 2 / (3 * 65)), "two masks have a pixel more than the 32 of the reference"
    assert compared.difference == pytest.approx(2.0)


def test_a_shift_that_moves_no_pixel_over_zero_shows_in_the_logits_alone():
    compared = compare(Plain(shift=0.001))
    assert compared.agreement == 1.0
    assert compared.difference == pytest.approx(0.001, rel=1e-3)


def test_empty_masks_have_no_dice():
    empty = fidelity.compare(Plain(shift=-2), Plain(shift=-2), [sample()], lambda _: None)
    assert (empty.agreement, empty.dsc) == (1.0, None)


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(InvalidOutputError, match="not finite"):
        compare(Plain(shift=float("nan")))


def recorded(seconds: list[float], eager: list[float]):
    compared = replace(compare(Plain()), seconds={"encode": (seconds, eager), "decode": ([1.0] * 5, [1.0] * 5)})
    return {(r.metric, r.phase): r for r in fidelity.records(compared, "abc")}


def test_records_name_the_weights_and_keep_every_repeat():
    found = recorded([2.0] * 5, [4.0] * 5)
    said = json.loads(found["mask_agreement", None].detail)
    assert (said["weights"], said["dsc"]) == ("abc", 1.0)
    assert found["speed_ratio", "encode"].value == 0.5
    assert found["speed_ratio", "decode"].value == 1.0
    assert found["speed_ratio", None].value == 3 / 5
    assert json.loads(found["speed_ratio", "encode"].detail)["eager_seconds"] == [4.0] * 5


def test_one_disturbed_repeat_changes_nothing():
    assert recorded([2.0, 2.0, 9.0, 2.0, 2.0], [4.0] * 5)["speed_ratio", "encode"].value == 0.5


def test_a_disturbed_timing_has_no_ratio_and_says_why():
    record = recorded([2.0] * 5, [4.0, 9.0, 4.0, 8.0, 2.0])["speed_ratio", "encode"]
    assert record.value is None
    assert "disturbed" in json.loads(record.detail)["undefined"]


def test_both_sessions_are_timed_in_turn():
    compared = fidelity.timed(compare(Plain()), Plain(), Plain(), sample(3), 4)
    assert {phase: [len(who) for who in both] for phase, both in compared.seconds.items()} == {
        "encode": [4, 4],
        "decode": [4, 4],
    }


def test_the_digest_of_weights_follows_their_values():
    one, same, other = (variants.create("litemedsam_tiny", seed=seed) for seed in (0, 0, 1))
    assert fidelity.weights_digest(one) == fidelity.weights_digest(same)
    assert fidelity.weights_digest(one) != fidelity.weights_digest(other)


def test_images_to_compare_and_to_calibrate_on_are_not_the_same():
    assert COMPARED.seed != CALIBRATION.seed
