"""Figures that papers print come out to the last digit, each by its own convention."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import variants
from harness.measure.complexity import job, published
from harness.measure.conventions import Figure, all_figures
from tests.harness.measure.support import complexity_of

FLOPS = {
    ("litemedsam", "39.98 G"),
    ("swiftmedsam_v2", "30.04 G"),
    ("swin_litemedsam", "47.70 G"),
    ("swin_litemedsam", "55.20 G"),
    ("rep_medsam", "468 G"),
    ("efficientvit_sam_l0", "602 G"),
}
PARAMS = {
    ("litemedsam", "9.79 M"),
    ("swiftmedsam_v2", "5.94 M"),
    ("swin_litemedsam", "10.51 M"),
    ("swin_litemedsam", "36.77 M"),
    ("rep_medsam", "10.57 M"),
    ("efficientvit_sam_l0", "34.79 M"),
    ("medsam_vit_b", "93.7 M"),
}


def quantity(name: str) -> list[Figure]:
    return [figure for figure in all_figures() if figure.quantity == name]


def in_speed(figures: list[Figure]) -> list[object]:
    """The figures of many images at once need minutes and 2 GB on a busy machine; the teacher is slow to build."""
    return [
        pytest.param(f, id=f.printed, marks=pytest.mark.slow if f.batch > 1 or f.variant == "medsam_vit_b" else ())
        for f in figures
    ]


def test_every_printed_figure_is_there() -> None:
    assert {(f.variant, f.printed) for f in quantity("flops")} == FLOPS
    assert {(f.variant, f.printed) for f in quantity("params")} == PARAMS


@pytest.mark.parametrize("figure", in_speed(quantity("flops")))
def test_published_flops_to_the_printed_digit(figure: Figure) -> None:
    value = published.recompute(variants.create(figure.variant), figure)
    assert figure.as_printed(value) == figure.printed


@pytest.mark.parametrize("figure", in_speed(quantity("params")))
def test_published_parameters_to_the_printed_digit(figure: Figure) -> None:
    value = published.recompute(variants.create(figure.variant), figure)
    assert figure.as_printed(value) == figure.printed


def test_other_conventions_give_other_figures() -> None:
    model = variants.create("litemedsam_tiny")
    common = Figure(variant="litemedsam_tiny", quantity="flops", printed="1 G", source="none", counter="fvcore")

    def value(**changed: object) -> float:
        return published.recompute(model, Figure.model_validate(common.model_dump() | changed))

    encoder = value(part="image_encoder")
    assert value(part="image_encoder.neck") < encoder < value(part="image_encoder", mode="train")
    # All but the positional encoding of the grid, which images share.
    assert value(batch=2, prompts=("box", "points")) == pytest.approx(2 * value(prompts=("box", "points")), rel=1e-3)
    assert value(counter="torch", part="image_encoder") / 2 < encoder
    assert not model.training


def test_counting_in_training_mode_leaves_the_model_as_it_was() -> None:
    model = variants.create("litemedsam_tiny")
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    figure = Figure(variant="x", quantity="flops", printed="1 G", source="none", counter="fvcore", mode="train")
    published.recompute(model, figure)
    assert all(buffer.equal(before[name]) for name, buffer in model.named_buffers())


def test_a_figure_of_the_fused_model_is_counted_on_the_fused_model() -> None:
    model = variants.create("rep_medsam_tiny")
    figure = Figure(variant="x", quantity="params", printed="1 M", source="none", counter="parameters")
    fused = Figure.model_validate(figure.model_dump() | {"fused": True})
    assert (
        published.recompute(model, fused)
        < published.recompute(model, figure)
        == variants.spec("rep_medsam_tiny").params
    )


@pytest.mark.parametrize(
    ("found", "what"),
    [("missing", "which is not installed"), ("2.2.3", "ultralytics-thop 2.2.3 counts by other rules")],
)
def test_without_its_counter_a_figure_is_unsupported_and_says_how_to_mend_it(
    found: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "version", lambda name: found)
    figures = [f for f in all_figures() if f.counter == "thop"]
    records = list(job.published_records(variants.create("swin_litemedsam_tiny"), figures, lambda *_: None))
    assert [r.metric for r in records] == ["published_params", "published_flops"]
    for record in records:
        assert record.status == "unsupported"
        assert what in record.reason
        assert "pip install 'ultralytics-thop==2.0.*'" in record.reason
        assert json.loads(record.detail)["printed"] in ("10.51 M", "47.70 G")


def test_a_figure_that_cannot_be_counted_takes_no_other_with_it() -> None:
    base = {"variant": "x", "quantity": "params", "printed": "1 M", "source": "none", "counter": "parameters"}
    figures = [Figure.model_validate(base | {"part": "no_such_part"}), Figure.model_validate(base)]
    records = list(job.published_records(variants.create("litemedsam_tiny"), figures, lambda *_: None))
    assert [r.status for r in records] == ["crashed", "ok"]
    assert "no_such_part" in records[0].reason


def test_the_records_name_the_convention_and_say_whether_the_figure_came_out() -> None:
    found = [f for f in all_figures() if f.variant == "swiftmedsam_v2" and f.quantity == "params"]
    wrong = [f.model_copy(update={"printed": "5.95 M"}) for f in found]
    first, second = job.published_records(variants.create("swiftmedsam_v2"), [*found, *wrong], lambda *_: None)
    detail = json.loads(first.detail)
    assert (first.value, detail["recomputed"], detail["agrees"]) == (5_942_388, "5.94 M", True)
    assert detail["source"] == "SwiftMedSAM paper, Table 3"
    assert json.loads(second.detail)["agrees"] is False


def test_published_figures_are_recomputed_only_where_a_suite_asks_for_them(tmp_path: Path) -> None:
    # A tiny size is no model of a paper: it has none, also where they are asked for.
    found = complexity_of("litemedsam_tiny", tmp_path, published=True)
    assert not [metric for metric, _ in found if metric.startswith("published")]
