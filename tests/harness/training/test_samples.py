from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import BenchError
from harness.recipe import ColourJitter, Sampler
from harness.training.prompting import box_from_slice_before
from harness.training.samples import Draw, Sample, Samples, View, make_samples
from tests.harness.training.toys import ToyData, image_case, toy_data, volume_case
from variants import preprocess

PLAIN = Draw(size=256, rule="longest-side", box_jitter=0, flips=0.0)
USUAL = replace(PLAIN, box_jitter=5, flips=0.5)
RICH = replace(USUAL, colour=ColourJitter(), prompts=("box", "points", "scribble"))

GOLDEN = [
    ("2DBox_US_0001/0/h", [147.0, 20.0, 222.0, 98.0], 3556),
    ("3DBox_CT_0001/2/hv", [40.0, 189.0, 194.0, 202.0], 1639),
    ("2DBox_US_00002/0/h", [0.0, 71.0, 67.0, 174.0], 4983),
    ("3DBox_CT_0001/2/h", [38.0, 51.0, 192.0, 68.0], 1639),
    ("2DBox_US_0001/0/-", [35.0, 22.0, 111.0, 93.0], 3556),
    ("2DBox_US_00002/0/v", [157.0, 83.0, 227.0, 186.0], 4983),
]
"""View, box and pixels of the mask, written down before there were samplers, colours and other prompts."""


def same(one: Sample, other: Sample) -> bool:
    arrays = ((one.image, other.image), (one.mask, other.mask), (one.box, other.box))
    return one.view == other.view and all(np.array_equal(a, b) for a, b in arrays)


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
        assert same(alone, Sample(batch.images[place], batch.masks[place, 0], batch.boxes[place], batch.views[place]))


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


def test_a_propagated_box_is_that_of_the_slice_nearer_to_the_middle_three_pixels_wider() -> None:
    case = volume_case()
    data = ToyData({case.name: case})
    plain, followed = (Samples(data, replace(PLAIN, propagated_boxes=share), 0) for share in (0.0, 1.0))
    tight = {sample.view.slice: sample.box for sample in map(plain.sample, range(20))}
    assert sorted(tight) == [2, 3, 4]
    wider = tight[3] + np.array([-3, -3, 3, 3], np.float32)
    for position in range(20):
        sample, own = followed.sample(position), plain.sample(position)
        assert same(replace(sample, box=own.box), own), "nothing else is drawn otherwise"
        assert sample.box.tolist() == (tight[3] if sample.view.slice == 3 else wider).tolist()


def test_some_boxes_are_propagated_with_sides_moved_either_way_and_images_keep_their_own() -> None:
    case, image = volume_case(), image_case()
    shares = [Samples(ToyData({case.name: case}), replace(USUAL, propagated_boxes=share), 0) for share in (0.0, 0.5)]
    drawn = [[samples.sample(p) for p in range(60)] for samples in shares]
    outer = [(a.box, b.box) for a, b in zip(*drawn, strict=True) if a.view.slice != 3]
    other = [not np.array_equal(a, b) for a, b in outer]
    assert 0.3 < np.mean(other) < 0.7
    inward = [sample.box[0] > tight_box(sample.mask)[0] for sample in drawn[1]]
    assert any(inward)
    alone = [Samples(ToyData({image.name: image}), replace(USUAL, propagated_boxes=share), 0) for share in (0.0, 1.0)]
    assert all(same(alone[0].sample(p), alone[1].sample(p)) for p in range(6))


def test_a_loop_start_is_the_middle_slice_with_the_box_around_the_object_on_all_slices() -> None:
    case = volume_case()
    data = ToyData({case.name: case})
    plain, started = (Samples(data, replace(PLAIN, loop_starts=share), 0) for share in (0.0, 1.0))
    by_slice = {sample.view.slice: sample for sample in map(plain.sample, range(20))}
    boxes = np.stack([sample.box for sample in by_slice.values()])
    around = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
    assert around.tolist() != by_slice[3].box.tolist()
    for position in range(6):
        sample = started.sample(position)
        assert sample.view.slice == 3
        assert np.array_equal(sample.mask, by_slice[3].mask)
        assert sample.box.tolist() == around.tolist()


def test_some_volumes_are_shown_where_the_loop_starts_and_images_with_their_own_boxes() -> None:
    case, image = volume_case(), image_case()
    usual, some = (Samples(ToyData({case.name: case}), replace(USUAL, loop_starts=share), 0) for share in (0.0, 0.5))
    middle = [np.mean([samples.sample(p).view.slice == 3 for p in range(60)]) for samples in (usual, some)]
    assert middle[0] < 0.5 < middle[1] < 0.9
    alone = [Samples(ToyData({image.name: image}), replace(USUAL, loop_starts=share), 0) for share in (0.0, 1.0)]
    for position in range(6):
        one, other = (samples.sample(position) for samples in alone)
        assert tight_box(one.mask)[0] - 5 <= other.box[0] <= tight_box(other.mask)[0]


def test_an_object_that_its_middle_slice_does_not_show_starts_nowhere() -> None:
    case = volume_case()
    truth = np.asarray(case.truth).copy()
    truth[3] = 0
    samples = Samples(ToyData({case.name: replace(case, truth=truth)}), replace(PLAIN, loop_starts=1.0), 0)
    assert {samples.sample(p).view.slice for p in range(20)} == {2, 4}


@given(side=st.integers(1, 56), jitter=st.integers(0, 200), seed=st.integers(0, 99))
def test_a_propagated_box_stays_in_the_image_and_has_an_inside(side: int, jitter: int, seed: int) -> None:
    mask = np.zeros((256, 256), np.uint8)
    mask[200 : 200 + side, :side] = 1
    left, top, right, bottom = box_from_slice_before(mask, 256, jitter, np.random.default_rng(seed))
    assert 0 <= left <= right <= 255
    assert 0 <= top <= bottom <= 255


def test_points_and_scribbles_of_the_box_are_those_of_inference_and_know_nothing_of_the_truth() -> None:
    case = image_case()
    (first, second), other = (np.asarray(case.truth == label) for label in (1, 2)), np.ones((60, 90), np.bool_)
    draw = replace(RICH, colour=None, prompt_rule="code")

    def drawn(*masks: np.ndarray, seed: int = 0, **changes: object) -> list[Sample]:
        return make_samples(case.image, masks, replace(draw, **changes), np.random.default_rng(seed), "x")

    for sample in (*drawn(first, second), *drawn(other)):
        assert sample.points is not None
        assert sample.scribble is not None
        assert np.all((sample.points >= sample.box[:2]) & (sample.points <= sample.box[2:]))
    box = np.zeros_like(first)
    rows, columns = np.nonzero(first)
    box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    (disc,), (filled,) = drawn(first), drawn(box)
    assert np.array_equal(disc.box, filled.box)
    assert np.array_equal(disc.points, filled.points)
    assert np.array_equal(disc.scribble, filled.scribble)
    assert not np.array_equal(disc.points, drawn(first, prompt_rule=None)[0].points)
    assert not np.array_equal(disc.points, drawn(first, seed=1)[0].points)
    assert drawn(first, prompts=("box",))[0].points is None


def test_flips_turn_image_and_mask_together_and_leave_the_padding_at_the_bottom_and_right() -> None:
    case = image_case(height=60, width=90)
    truth = np.asarray(case.truth == 1)
    (flipped,) = make_samples(case.image, [truth], replace(PLAIN, flips=1.0), np.random.default_rng(0), "x")
    (turned,) = make_samples(case.image[::-1, ::-1], [truth[::-1, ::-1]], PLAIN, np.random.default_rng(0), "x")
    assert same(flipped, replace(turned, view=flipped.view))
    assert flipped.image[:, 171:].max() == 0
    assert flipped.image[:, :171].max() == 1


def test_the_mask_lies_on_the_image_it_was_drawn_on() -> None:
    case = image_case(height=300, width=500)
    (sample,) = make_samples(case.image, [np.asarray(case.truth == 2)], PLAIN, np.random.default_rng(0), "x")
    bright = sample.image.mean(0) > 0.62  # the second disc is the brightest thing
    assert (bright & (sample.mask > 0)).sum() / (bright | (sample.mask > 0)).sum() > 0.95


def test_decoded_cases_stay_in_memory_within_the_budget() -> None:
    data = toy_data()
    samples = Samples(data, PLAIN, 0)
    for position in range(9):
        samples.sample(position)
    assert sorted(data.loads) == sorted(data.held)

    tight = toy_data()
    one_case = max(c.image.nbytes + c.truth.nbytes for c in tight.held.values() if c.truth is not None)
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


def test_the_samples_of_a_seed_stay_what_they_were() -> None:
    drawn = [Samples(toy_data(), USUAL, 7).sample(position) for position in range(6)]
    assert [(s.view.key, s.box.tolist(), int(s.mask.sum())) for s in drawn] == GOLDEN


def test_colours_points_and_scribble_leave_view_mask_and_box_as_they_are() -> None:
    for position in range(6):
        plain, rich = (Samples(toy_data(), draw, 7).sample(position) for draw in (USUAL, RICH))
        assert same(plain, replace(rich, image=plain.image))
        assert not np.array_equal(plain.image, rich.image)
        for prompts in (("box", "points"), ("box", "scribble")):
            some = Samples(toy_data(), replace(RICH, prompts=prompts), 7).sample(position)
            assert same(some, rich)
            for one, other in ((some.points, rich.points), (some.scribble, rich.scribble)):
                assert one is None or (other is not None and np.array_equal(one, other))


def test_every_prompt_of_a_batch_has_its_points_and_scribble() -> None:
    batch = Samples(toy_data(), replace(RICH, objects=2), 7).batch(0, 3)
    assert len(batch.which) == 5
    assert batch.points is not None
    assert batch.scribbles is not None
    assert batch.points.shape == (5, 4, 2)
    assert batch.scribbles.shape == (5, 1, 256, 256)
    for points, scribble, mask, box in zip(batch.points, batch.scribbles, batch.masks, batch.boxes, strict=True):
        on_object = [bool(mask[0, int(y), int(x)]) for x, y in points]
        assert any(on_object)
        rows, columns = np.nonzero(scribble[0])
        assert len(rows)
        assert box[0] <= columns.min() <= columns.max() < box[2]
        assert box[1] <= rows.min() <= rows.max() < box[3]
    assert Samples(toy_data(), USUAL, 7).batch(0, 3).points is None
    assert Samples(toy_data(), USUAL, 7).batch(0, 3).scribbles is None


def test_a_share_of_a_batch_is_the_same_slice_of_the_whole() -> None:
    samples = Samples(toy_data(), replace(RICH, objects=2), 7)
    whole, shares = samples.batch(3, 4), [samples.batch(3, 4, first, 2) for first in (0, 2)]
    assert np.array_equal(whole.images, np.concatenate([share.images for share in shares]))
    assert np.array_equal(whole.which, np.concatenate([share.which + 2 * i for i, share in enumerate(shares)]))
    for name in ("masks", "boxes", "points", "scribbles"):
        assert np.array_equal(getattr(whole, name), np.concatenate([getattr(share, name) for share in shares])), name
    assert whole.views == shares[0].views + shares[1].views
    assert whole.cases == tuple(view.case for view in whole.views)
    assert samples.batch(3, 4, first=1).views == whole.views[1:]


def test_a_view_names_slice_and_flips() -> None:
    assert View("a", 12, (1, 0)).key == "a/12/hv"
    assert View("a", 0, (0,)).key == "a/0/v"
    assert View("a", 0, ()).key == "a/0/-"
    always = Samples(toy_data(), replace(PLAIN, flips=1.0), 0)
    assert {always.sample(p).view.flips for p in range(6)} == {(1, 0)}
    volume = volume_case()
    slices = {Samples(ToyData({volume.name: volume}), USUAL, 0).sample(p).view.slice for p in range(20)}
    assert slices == {2, 3, 4}


def test_a_teacher_sees_the_flips_but_not_the_colours() -> None:
    plain, rich = Samples(toy_data(), USUAL, 7), Samples(toy_data(), RICH, 7)
    for position in range(6):
        view = rich.sample(position).view
        assert np.array_equal(rich.teacher_image(view, 256, "longest-side"), plain.sample(position).image)
    image = image_case()
    seen = rich.teacher_image(View(image.name, 0, (0,)), 96, "stretch")
    assert np.array_equal(seen, preprocess.prepare(np.ascontiguousarray(image.image[::-1]), 96, "stretch").network)


def test_training_and_validation_share_no_case_and_leave_none_out() -> None:
    data = ToyData({name: image_case(name) for name in (f"2DBox_US_{i:04d}" for i in range(9))})
    shown = {}
    for part in ("train", "validation"):
        samples = Samples(data, PLAIN, 3, held_out=0.3, part=part)
        shown[part] = [samples.sample(position).case for position in range(samples.epoch_length)]
        assert len(set(shown[part])) == len(shown[part]) > 0
    assert sorted(shown["train"] + shown["validation"]) == sorted(data.held)


def test_validation_shows_every_case_held_out_whatever_the_sampler_shows_in_training() -> None:
    data = ToyData({name: image_case(name) for name in (f"2DBox_US_{i:04d}" for i in range(9))})
    sampler = Sampler(rule="per-modality", number=30, fractions={"US": 0.2})
    assert Samples(data, PLAIN, 3, sampler=sampler, held_out=0.3).epoch_length == 30
    usual, chosen = (
        Samples(data, PLAIN, 3, sampler=rule, held_out=0.3, part="validation") for rule in (Sampler(), sampler)
    )
    assert usual.epoch_length == chosen.epoch_length > 1
    assert [usual.sample(p).case for p in range(9)] == [chosen.sample(p).case for p in range(9)]


def test_workers_share_the_budget_of_decoded_cases() -> None:
    data = toy_data()
    one_case = max(c.image.nbytes + c.truth.nbytes for c in data.held.values() if c.truth is not None)
    for budget, all_kept in ((3 * one_case, False), (12 * one_case, True)):
        data.loads.clear()
        samples = Samples(data, PLAIN, 0, cache_bytes=budget).for_workers(4)
        for position in range(9):
            samples.sample(position)
        assert (len(data.loads) == 3) == all_kept
