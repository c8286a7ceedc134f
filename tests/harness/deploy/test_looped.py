"""Volumes by the 3D loop: what a deployment changes in a mask moves the next slice's box."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from harness.data.case import Case
from harness.deploy import looped
from harness.inference import InputRules

SIDE = 256


class Filling:
    """A session whose mask is the box, ``wider`` by a number of network pixels on every side; ``silent``: none."""

    input_size = 256

    def __init__(self, wider: int = 0, *, silent: bool = False) -> None:
        self.wider, self.silent = wider, silent

    def encode(self, images):
        return images

    def decode(self, embedding, boxes, points=None, scribble=None):
        logits = np.full((len(boxes), 1, 256, 256), -5, np.float32)
        for index, box in enumerate(np.rint(boxes).astype(int)):
            left, top, right, bottom = box + np.array([-1, -1, 1, 1]) * self.wider
            if not self.silent:
                logits[index, 0, max(0, top) : bottom + 1, max(0, left) : right + 1] = 5
        return logits, np.ones((len(boxes), 1), np.float32)


@pytest.fixture
def volume() -> Case:
    """Nine slices with one object of 64 x 64 pixels, as large in the network."""
    truth = np.zeros((9, SIDE, SIDE), np.uint16)
    truth[:, 96:160, 96:160] = 1
    image = np.zeros((9, SIDE, SIDE), np.uint8)
    boxes = np.array([[96, 96, 0, 159, 159, 8]])
    return Case("3DBox_CT_0001", "CT", image, boxes, truth=truth)


def compare(session, reference, *cases: Case):
    record = looped.compare(session, reference, cases, InputRules(), lambda _: None)
    assert record.metric == "volume_dsc"
    return record.value, json.loads(record.detail)


def test_the_reference_agrees_with_itself(volume):
    value, said = compare(Filling(), Filling(), volume)
    assert value == said["worst"] == 1.0
    assert (said["volumes"], said["objects"]) == (1, 1)
    assert said["truth"] == said["reference_truth"]


def test_a_difference_in_every_mask_grows_from_slice_to_slice(volume):
    boxes = np.array([[96, 96, 0, 159, 159, 0]])
    single = replace(volume, image=volume.image[4:5], boxes=boxes, truth=volume.truth[4:5])
    alone, _ = compare(Filling(2), Filling(), single)
    whole, said = compare(Filling(2), Filling(), volume)
    assert whole < alone < 1
    assert said["truth"] < said["reference_truth"] < 1, "boxes are widened on the way, and the masks fill them"


def test_the_lowest_object_and_the_mean_are_told_apart(volume):
    truth = volume.truth.copy()
    truth[:, 40:56, 40:56] = 2
    boxes = np.concatenate([volume.boxes, [[40, 40, 0, 55, 55, 8]]])
    value, said = compare(Filling(1), Filling(), replace(volume, boxes=boxes, truth=truth))
    assert said["objects"] == 2
    assert said["worst"] < value < 1


def test_masks_that_are_empty_on_both_sides_have_no_dice(volume):
    value, said = compare(Filling(silent=True), Filling(silent=True), volume)
    assert value is None
    assert said["worst"] is None
    assert said["truth"] == 0
