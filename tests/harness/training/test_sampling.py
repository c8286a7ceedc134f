"""Which case a position shows."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from harness.errors import BenchError
from harness.recipe import Sampler
from harness.training.sampling import Order, order_of, part_of, used

SIZES = {"CT": 12, "US": 4, "PET": 2, "unknown": 1}


def entries(sizes: dict[str, int]) -> list[SimpleNamespace]:
    return [SimpleNamespace(name=f"{m}_{i:04d}", modality=m) for m, count in sizes.items() for i in range(count)]


def shown(order: Order, positions: range) -> list[str]:
    return [next(order.candidates(position)) for position in positions]


def modalities(names: list[str]) -> Counter[str]:
    return Counter(name.split("_")[0] for name in names)


CASES = entries(SIZES)
RULES = [Sampler(), Sampler(rule="balanced"), Sampler(rule="per-modality", number=5)]
each_rule = pytest.mark.parametrize("sampler", RULES, ids=lambda sampler: sampler.rule)


@each_rule
def test_a_position_shows_the_same_case_whatever_was_asked_before(sampler: Sampler) -> None:
    forwards = shown(order_of(CASES, sampler, 7), range(90))
    order = order_of(CASES, sampler, 7)
    assert forwards == shown(order, range(89, -1, -1))[::-1]
    assert forwards != shown(order_of(CASES, sampler, 8), range(90))


@each_rule
def test_where_a_case_shows_no_object_every_other_is_tried_those_of_its_modality_first(sampler: Sampler) -> None:
    order = order_of(CASES, sampler, 7)
    for position in range(30):
        names = list(order.candidates(position))
        assert sorted(names) == sorted(case.name for case in CASES)
        if sampler.rule != "cases":
            first = names[0].split("_")[0]
            assert modalities(names[: SIZES[first]]) == {first: SIZES[first]}


@each_rule
def test_no_case_of_a_modality_is_shown_again_before_all_have_been(sampler: Sampler) -> None:
    order = order_of(CASES, sampler, 7)
    names = shown(order, range(12 * order.epoch_length))
    for modality, count in SIZES.items():
        own = [name for name in names if name.startswith(modality)]
        cycles = [tuple(own[start : start + count]) for start in range(0, len(own) - count + 1, count)]
        assert len(cycles) >= 4
        assert all(len(set(cycle)) == count for cycle in cycles)
        assert count == 1 or len(set(cycles)) > 1, "in another order"


def test_balanced_epochs_are_as_long_as_the_data_and_show_modalities_alike() -> None:
    order = order_of(CASES, Sampler(rule="balanced"), 7)
    assert order.epoch_length == len(CASES)
    for start in range(0, 40, 4):
        assert modalities(shown(order, range(start, start + 4))) == dict.fromkeys(SIZES, 1)
    firsts = modalities([shown(order, range(4 * i, 4 * i + 1))[0] for i in range(200)])
    assert all(30 < firsts[m] < 70 for m in SIZES), "no modality always comes first"


def test_per_modality_epochs_show_the_same_number_of_each_mixed() -> None:
    order = order_of(CASES, Sampler(rule="per-modality", number=5), 7)
    assert order.epoch_length == 20
    epochs = [shown(order, range(20 * epoch, 20 * epoch + 20)) for epoch in range(6)]
    assert all(modalities(names) == dict.fromkeys(SIZES, 5) for names in epochs)
    assert len({tuple(name.split("_")[0] for name in names) for names in epochs}) == 6
    assert {name for names in epochs[:3] for name in names} == {case.name for case in CASES}, "12 CT cases take 3"


def test_a_fraction_is_the_same_part_of_a_modality_and_leaves_others_alone() -> None:
    kept = used(CASES, {"CT": 0.5, "US": 0.01, "MR": 0.1}, "toys")
    assert modalities([case.name for case in kept]) == {"CT": 6, "US": 1, "PET": 2, "unknown": 1}
    assert [case.name for case in used(CASES[::-1], {"CT": 0.5, "US": 0.01}, "toys")][::-1] == [c.name for c in kept]
    smaller = {case.name for case in used(CASES, {"CT": 0.25}, "toys") if case.modality == "CT"}
    assert smaller < {case.name for case in kept}
    assert len(smaller) == 3


def test_a_fraction_of_zero_leaves_the_modality_out() -> None:
    assert "CT" not in modalities([case.name for case in used(CASES, {"CT": 0.0}, "toys")])
    with pytest.raises(BenchError, match=r"'toys': `sampler.fractions` leaves none of its 3 cases"):
        used(entries({"CT": 3}), {"CT": 0.0}, "toys")


def test_a_case_stays_on_its_side_whatever_is_added() -> None:
    few, many = entries({"CT": 20}), entries({"CT": 400, "US": 100})
    held = {part: {case.name for case in part_of(many, 0.2, part, "toys")} for part in ("train", "validation")}
    assert len(held["validation"]) == pytest.approx(100, abs=25)
    assert held["train"] | held["validation"] == {case.name for case in many}
    assert not held["train"] & held["validation"]
    for part in ("train", "validation"):
        assert {case.name for case in part_of(few, 0.2, part, "toys")} <= held[part]


@pytest.mark.parametrize("share", [1e-9, 0.5, 1 - 1e-9])
@pytest.mark.parametrize("count", [2, 3, 10])
def test_each_side_has_a_case(share: float, count: int) -> None:
    cases = entries({"CT": count})
    sides = [{case.name for case in part_of(cases, share, part, "toys")} for part in ("train", "validation")]
    assert all(sides)
    assert sorted(sides[0] | sides[1]) == [case.name for case in cases]
    assert not sides[0] & sides[1]


def test_what_is_held_out_and_what_a_fraction_keeps_are_independent() -> None:
    cases = entries({"CT": 1000})
    train = part_of(cases, 0.2, "train", "toys")
    half = {case.name for case in used(cases, {"CT": 0.5}, "toys")}
    assert sum(case.name in half for case in train) / len(train) == pytest.approx(0.5, abs=0.05)


def test_what_cannot_be_held_out_is_said() -> None:
    with pytest.raises(BenchError, match=r"'toys' has 1 case, too few to hold some out"):
        part_of(entries({"CT": 1}), 0.1, "train", "toys")
    with pytest.raises(BenchError, match=r"'toys': no case is held out.*`validation.share`"):
        part_of(CASES, 0.0, "validation", "toys")
