from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.errors import BenchError
from harness.training.samples import Draw, Sample, Samples, jittered_box, make_samples, mask_to_logits_grid
from tests.harness.training.toys import ToyData, image_case, toy_data, volume_case

PLAIN = Draw(size=256, rule="longest-side", box_jitter=0, flips=0.0)
USUAL = replace(PLAIN, box_jitter=5, flips=0.5)


def same(one: Sample, other: Sample) -> bool:
    arrays = ((one.image, other.image), (one.mask, other.mask), (one.box, other.box))
    return one.case == other.case and all(np.array_equal(a, b) for a, b in arrays)


def tight_box(mask: np.ndarray) -> list[int]:
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max(), rows.max()]


def test_a_sample_does_not_depend_on_what_was_asked_before() -> None:
    forwards, backwards = Samples(toy_data(), USUAL, 7), Samples(toy_data(), USUAL, 7)
    first = [forwards.sample(p) for p in range(8)]
    second = [backwards.sample(p) for p in reversed(range(8))]
    assert all(same(a, b) for a, b in zip(first, reversed(second), strict=True))


def test_a_sample_does_not_depend_on_the_cache_or_the_global_generator() -> None:
    cached, uncached = Samples(toy_data(), USUAL, 7), Samples(toy_data(), USUAL, 7, cache_bytes=0)
    for position in range(6):
        before = cached.sample(position)
        np.random.seed(position)
        assert same(before, uncached.sample(position))


def test_another_seed_gives_other_samples() -> None:
    one, other = Samples(toy_data(), USUAL, 7), Samples(toy_data(), USUAL, 8)
    assert not all(same(one.sample(p), other.sample(p)) for p in range(6))


def test_every_epoch_shows_every_case_once_in_another_order() -> None:
    samples = Samples(ToyData({f"2DBox_US_{i}": image_case(f"2DBox_US_{i}") for i in range(8)}), USUAL, 1)
    epochs = [[samples.sample(8 * epoch + i).case for i in range(8)] for epoch in range(3)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_batch_is_its_samples_side_by_side() -> None:
    samples = Samples(toy_data(), USUAL, 7)
    batch = samples.batch(2, 3)
    assert batch.images.shape == (3, 3, 256, 256)
    assert batch.masks.shape == (3, 1, 256, 256)
    assert batch.boxes.shape == (3, 4)
    for place in range(3):
        alone = samples.sample(6 + place)
        assert same(alone, Sample(batch.images[place], batch.masks[place, 0], batch.boxes[place], batch.cases[place]))


def test_objects_of_one_image_share_it_and_keep_their_own_boxes() -> None:
    one, many = Samples(toy_data(), USUAL, 7), Samples(toy_data(), replace(USUAL, objects=3), 7)
    batch = many.batch(0, 3)
    groups = [many.samples(place) for place in range(3)]
    assert batch.images.shape == (3, 3, 256, 256)
    assert batch.which.tolist() == [place for place, group in enumerate(groups) for _ in group]
    for place, group in enumerate(groups):
        volume = group[0].case.startswith("3D")
        assert len(group) == (1 if volume else 2), "an image of two discs, a volume of one object"
        assert group[0].mask.sum() == one.sample(place).mask.sum(), "the first is the one that is drawn alone"
        for sample in group:
            assert np.array_equal(sample.image, batch.images[place])
            assert np.all(sample.box[:2] <= tight_box(sample.mask)[:2])
        assert volume or not (group[0].mask & group[1].mask).any()


def test_a_volume_gives_every_slice_that_shows_the_object_and_no_other() -> None:
    case = volume_case()
    samples = Samples(ToyData({case.name: case}), replace(PLAIN, size=48), 0)
    heights = {round(samples.sample(p).mask.any(1).sum() * 48 / 256) for p in range(20)}
    assert heights == {2, 3, 4}  # the object is as many rows tall as its slice has a number


def test_the_box_is_the_tight_box_of_the_mask_without_jitter() -> None:
    case = image_case()
    samples = Samples(ToyData({case.name: case}), PLAIN, 0)
    for position in range(6):
        sample = samples.sample(position)
        assert sample.box.tolist() == tight_box(sample.mask)


def test_jitter_moves_every_side_outward_by_at_most_its_pixels_and_stays_in_the_image() -> None:
    mask = np.zeros((256, 256), np.uint8)
    mask[2:250, 40:254] = 1
    boxes = np.array([jittered_box(mask, USUAL, np.random.default_rng(i)) for i in range(300)])
    assert boxes.min(0).tolist() == [35, 0, 253, 249]
    assert boxes.max(0).tolist() == [40, 2, 255, 254]


def test_boxes_are_in_network_pixels_where_the_input_is_larger_than_the_logits() -> None:
    mask = np.zeros((256, 256), np.uint8)
    mask[10:21, 30:41] = 1
    box = jittered_box(mask, replace(PLAIN, size=1024), np.random.default_rng(0))
    assert box.tolist() == [120, 40, 160, 80]


def test_flips_turn_image_and_mask_together_and_leave_the_padding_at_the_bottom_and_right() -> None:
    case = image_case(height=60, width=90)
    truth = case.truth == 1
    (flipped,) = make_samples(case.image, [truth], replace(PLAIN, flips=1.0), np.random.default_rng(0), "x")
    (turned,) = make_samples(case.image[::-1, ::-1], [truth[::-1, ::-1]], PLAIN, np.random.default_rng(0), "x")
    assert same(flipped, turned)
    assert flipped.image[:, 171:].max() == 0
    assert flipped.image[:, :171].max() == 1


def test_the_mask_lies_on_the_image_it_was_drawn_on() -> None:
    case = image_case(height=300, width=500)
    (sample,) = make_samples(case.image, [case.truth == 2], PLAIN, np.random.default_rng(0), "x")
    bright = sample.image.mean(0) > 0.62  # the second disc is the brightest thing
    assert (bright & (sample.mask > 0)).sum() / (bright | (sample.mask > 0)).sum() > 0.95


def test_a_pixel_belongs_to_the_object_if_half_of_it_does() -> None:
    mask = np.zeros((512, 512), bool)
    mask[0, 0:2] = True  # covers half of network pixel (0, 0)
    mask[0, 4] = True  # a quarter of pixel (0, 2)
    assert np.argwhere(mask_to_logits_grid(mask, (256, 256), 256)).tolist() == [[0, 0]]


def test_an_object_too_thin_for_the_grid_keeps_the_pixels_it_covers_most() -> None:
    mask = np.zeros((2048, 2048), bool)
    mask[801, 1001] = True
    assert np.argwhere(mask_to_logits_grid(mask, (256, 256), 256)).tolist() == [[100, 125]]


def test_decoded_cases_stay_in_memory_within_the_budget() -> None:
    data = toy_data()
    samples = Samples(data, PLAIN, 0)
    for position in range(9):
        samples.sample(position)
    assert sorted(data.loads) == sorted(data.held)

    tight = toy_data()
    one_case = max(c.image.nbytes + c.truth.nbytes for c in tight.held.values())
    samples = Samples(tight, PLAIN, 0, cache_bytes=one_case)
    for position in range(9):
        samples.sample(position)
    assert len(tight.loads) > 3


def test_a_case_without_any_object_gives_way_to_the_next() -> None:
    empty = image_case("2DBox_US_empty")
    assert empty.truth is not None
    empty = replace(empty, truth=np.zeros_like(empty.truth))
    full = image_case()
    samples = Samples(ToyData({empty.name: empty, full.name: full}), PLAIN, 0)
    assert {samples.sample(p).case for p in range(6)} == {full.name}
    with pytest.raises(BenchError, match="shows no object in any of its 1 cases"):
        Samples(ToyData({empty.name: empty}), PLAIN, 0).sample(0)


def test_missing_ground_truth_is_said_with_data_set_and_case() -> None:
    case = replace(image_case(), truth=None)
    with pytest.raises(BenchError, match=r"'toys': case '2DBox_US_0001' has no ground truth.*`gts`"):
        Samples(ToyData({case.name: case}), PLAIN, 0).sample(0)


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(BenchError, match="has no cases"):
        Samples(ToyData({}), PLAIN, 0)
