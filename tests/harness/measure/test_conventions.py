"""Published figures are data, checked where they are read."""

from __future__ import annotations

from pathlib import Path

import pytest

import variants
from harness.errors import BenchError
from harness.measure.conventions import Figure, all_figures, figures_of, read_figures

GOOD = {"variant": "litemedsam", "quantity": "flops", "printed": "39.98 G", "source": "a paper", "counter": "fvcore"}


def written(folder: Path, text: str) -> Path:
    path = folder / "figures.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("printed", "value", "same"),
    [
        ("39.98 G", 39_977_754_368, "39.98 G"),
        ("468 G", 467_593_957_376, "468 G"),
        ("93.7 M", 93_735_472, "93.7 M"),
        ("5.94 M", 5_949_000, "5.95 M"),
    ],
)
def test_a_value_is_written_with_the_digits_of_the_printed_figure(printed: str, value: float, same: str) -> None:
    figure = Figure.model_validate(GOOD | {"printed": printed})
    assert figure.as_printed(value) == same
    assert figure.agrees(value) == (same == printed)


def test_a_convention_reads_as_a_line() -> None:
    prompts = ["box", "points", "scribble"]
    assert Figure.model_validate(GOOD | {"mode": "train", "prompts": prompts}).convention == (
        "fvcore; whole model; train; batch 1; one box + 4 points + scribble"
    )
    assert Figure.model_validate(GOOD | {"part": "image_encoder", "batch": 16, "counter": "thop"}).convention == (
        "thop; image encoder; eval; batch 16"
    )
    assert Figure.model_validate(GOOD | {"quantity": "params", "counter": "parameters"}).convention == (
        "all parameters; whole model"
    )


def test_every_figure_is_of_a_known_variant_and_names_its_source() -> None:
    assert {figure.variant for figure in all_figures()} <= set(variants.names())
    assert all(figure.source for figure in all_figures())


def test_figures_belong_to_the_model_and_not_to_its_name_or_prompts() -> None:
    assert [f.printed for f in figures_of(variants.spec("litemedsam"))] == ["9.79 M", "39.98 G"]
    shallow = {"depths": [1, 2, 2, 2], "decoder_depth": 1, "decoder_mlp_dim": 256, "decoder_heads": 4}
    same_as_v2 = variants.resolve("litemedsam", shallow | {"iou_head_depth": 2})
    assert [f.variant for f in figures_of(same_as_v2)] == ["swiftmedsam_v2"] * 2
    assert len(figures_of(variants.resolve("swin_litemedsam", {"prompts": "box"}))) == 4
    assert figures_of(variants.resolve("litemedsam", {"decoder_depth": 1})) == ()
    assert figures_of(variants.spec("litemedsam_tiny")) == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("figures: [{variant: a}]", "quantity of a figure"),
        (f"figures: [{GOOD | {'printed': '39,98G'}}]", "such as '39.98 G'"),
        (f"figures: [{GOOD | {'modes': 'train'}}]", "modes of a figure"),
        ("other: []", "must hold a list `figures`"),
        ("figures: [", "must hold a list `figures`"),
    ],
)
def test_a_malformed_file_is_named_with_the_field(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"figures\.yaml: ") as caught:
        read_figures(written(tmp_path, text))
    assert said in str(caught.value)
