from __future__ import annotations

import re

import pytest

from reports import figures, leaderboard, tables
from reports.curves import training_curves
from reports.drawing import Figure
from reports.frame import Run


def all_figures(run: Run) -> list[Figure]:
    board = leaderboard.rows(run)
    drawn = [
        figures.accuracy_cost(board, "phantoms"),
        figures.modality_dots(tables.accuracy_by_modality(run), board, "phantoms"),
        figures.phase_bars(tables.phases(run), several=True),
        training_curves(tables.training_curves(run)),
    ]
    return [figure for figure in drawn if figure is not None]


@pytest.fixture(scope="module")
def drawn(run: Run) -> list[Figure]:
    return all_figures(run)


def test_a_full_run_has_all_four_figures(drawn: list[Figure]) -> None:
    assert [f.name for f in drawn] == ["cost-phantoms", "dots-phantoms", "phases", "training"]


def test_the_same_run_gives_the_same_bytes(run: Run, drawn: list[Figure]) -> None:
    assert all_figures(run) == drawn


def test_text_stays_text_and_brings_no_font(drawn: list[Figure]) -> None:
    for figure in drawn:
        assert "<text" in figure.svg
        assert "DejaVu" not in figure.svg
        assert len(figure.svg) < 60_000


def test_every_colour_is_a_variable_of_the_page(drawn: list[Figure]) -> None:
    for figure in drawn:
        assert not re.findall(r"#[0-9a-fA-F]{6}\b", figure.svg), figure.name
        assert "var(--ink)" in figure.svg or "var(--muted)" in figure.svg


def test_identifiers_are_unique_over_all_figures(drawn: list[Figure]) -> None:
    found = [name for figure in drawn for name in re.findall(r'\bid="([^"]*)"', figure.svg)]
    assert len(found) == len(set(found))
    for figure in drawn:
        used = set(re.findall(r'(?:href="#|url\(#)([^")]*)', figure.svg))
        assert used <= set(found)


def test_every_figure_says_what_it_shows(drawn: list[Figure]) -> None:
    for figure in drawn:
        assert 'role="img"' in figure.svg
        assert f'<title id="{figure.name}-title">' in figure.svg
        assert len(figure.alt) > 30
        assert figure.caption
    assert "tiny · default 0." in drawn[0].alt


def test_rows_with_a_training_note_are_hollow(run: Run, drawn: list[Figure]) -> None:
    assert "Hollow markers: the row carries a training note" in drawn[0].caption
    # dummy is the only row without a note; its marker is the only one with a fill of its colour.
    fills = set(re.findall(r"fill: (var\(--s\d\))", drawn[0].svg))
    assert fills == {"var(--s1)"}


def test_nothing_measured_is_no_figure(run: Run) -> None:
    assert figures.accuracy_cost([], None) is None
    assert figures.phase_bars(tables.phases(run).iloc[:0], several=False) is None
    assert training_curves(tables.training_curves(run).iloc[:0]) is None
    assert figures.modality_dots(tables.accuracy_by_modality(run).iloc[:0], [], None) is None


def test_a_label_with_markup_is_text(run: Run) -> None:
    from dataclasses import replace

    board = [replace(row, variant="<b>$x_1$ & co</b>") for row in leaderboard.rows(run)[:1]]
    figure = figures.accuracy_cost(board, "phantoms")
    assert figure is not None
    assert "<b>" not in figure.svg
    assert re.search(r"<text[^>]*>&lt;b&gt;\$x_1\$ &amp; co", figure.svg)
