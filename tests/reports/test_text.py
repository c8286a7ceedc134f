from __future__ import annotations

import pytest

from reports import text


@pytest.mark.parametrize(
    ("function", "value", "shown"),
    [
        (text.score, 0.72553, "0.726"),
        (text.score, float("nan"), "–"),
        (text.score, None, "–"),
        (text.count, 9_791_300.0, "9,791,300"),
        (text.scaled, 9_791_300, "9.79 M"),
        (text.scaled, 37.8e9, "37.8 G"),
        (text.scaled, 569, "569"),
        (text.scaled, -172_340, "−172 k"),
        (text.seconds, 0.39577, "0.396"),
        (text.seconds, 3.3716, "3.37"),
        (text.seconds, 152.04, "152"),
        (text.seconds, 0, "0.00"),
        (text.size, 8 * 1024**3, "8.00 GiB"),
        (text.size, 276e6, "263 MiB"),
        (text.duration, 42.4, "42 s"),
        (text.duration, 342.1, "5 min 42 s"),
        (text.duration, 11_220, "3 h 07 min"),
    ],
)
def test_numbers_are_shown_as_people_read_them(function, value: float | None, shown: str) -> None:
    assert function(value) == shown


def test_a_value_is_shown_in_the_unit_of_its_metric() -> None:
    assert text.of_metric("wall", 3.37) == "3.37 s"
    assert text.of_metric("peak_memory", 2**30) == "1.00 GiB"
    assert text.of_metric("dsc", -0.0891) == "−0.089"
    assert text.of_metric("flops", None) == "–"


def test_words_are_listed_as_a_person_would() -> None:
    assert text.listed([]) == ""
    assert text.listed(["a"]) == "a"
    assert text.listed(["a", "b", "c"]) == "a, b and c"
    assert text.plural(1, "case") == "1 case"
    assert text.plural(1200, "case") == "1,200 cases"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.0, "1.0000"), (0.99999999, "0.9999"), (0.98996, "0.9899"), (0.9999, "0.9999"), (0.0, "0.0000"), (None, "–")],
)
def test_an_agreement_is_never_rounded_up(value: float | None, shown: str) -> None:
    assert text.agreement(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (1.84, "1.8"), (0.1097, "0.11"), (0.00123, "0.0012"), (3.2e-5, "3.2·10⁻⁵"), (12.0, "12"), (None, "–")],
)
def test_a_difference_has_two_figures_at_any_magnitude(value: float | None, shown: str) -> None:
    assert text.tiny(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.07, "7.0 %"), (0.004, "0.4 %"), (0.0, "0 %"), (1, "100 %"), (None, "–")]
)
def test_a_share_is_shown_in_percent(value: float | None, shown: str) -> None:
    assert text.percent(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(0.524, "×0.52"), (1.0, "×1.00"), (12.04, "×12.0"), (None, "–")])
def test_a_ratio_of_times_is_a_factor(value: float | None, shown: str) -> None:
    assert text.times(value) == shown
