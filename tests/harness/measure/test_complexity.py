"""Parameters and multiply-adds equal those measured on the published models, whole and per part."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

import variants
from harness.errors import BenchError
from harness.measure.complexity import job, multiply_adds
from harness.schema import PARTS, Record
from tests.harness.measure.support import complexity_of

# As measured on the published implementations: parameters, whole and per part; 10⁹ multiply-adds of the image encoder
# and of the whole by fvcore (eval mode, native input, one box); of the image encoder by torch's FlopCounterMode.
PUBLISHED = {
    "litemedsam": ((9_791_300, 5_726_740, 6_220, 4_058_340), "37.816", "39.639", "37.474"),
    "swiftmedsam_v1": ((6_996_636, 5_102_700, 6_220, 1_887_716), "34.491", "35.743", "34.167"),
    "swiftmedsam_v2": ((5_942_388, 4_442_436, 6_220, 1_493_732), "28.793", "30.042", "28.560"),
    "swin_litemedsam": ((36_767_846, 10_564_748, 6_220, 26_196_878), "48.933", "55.085", "48.729"),
    "rep_medsam": ((10_570_092, 6_505_532, 6_220, 4_058_340), "31.531", "33.354", "31.145"),
    "efficientvit_sam_l0": ((34_792_784, 30_728_224, 6_220, 4_058_340), "16.981", "18.804", "16.948"),
    # 486.417 as published: fvcore counts an einsum to four digits, and here an einsum takes some of the heads at once.
    "medsam_vit_b": ((93_735_472, 89_670_912, 6_220, 4_058_340), "486.416", "488.239", "486.039"),
}
NEVER_EXECUTED = {"swin_litemedsam": 21_129_002}
IN_FAST_TESTS = ("swiftmedsam_v2",)


@pytest.mark.parametrize(
    "name", [name if name in IN_FAST_TESTS else pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED]
)
def test_figures_of_the_published_models(name: str, tmp_path: Path) -> None:
    found = complexity_of(name, tmp_path)
    params, encoder, whole, second = PUBLISHED[name]
    assert tuple(found["params", phase].value for phase in (None, *PARTS)) == params
    assert found["params_unused", None].value == NEVER_EXECUTED.get(name, 0)
    assert f"{found['flops', 'image_encoder'].value / 1e9:.3f}" == encoder
    assert f"{found['flops', None].value / 1e9:.3f}" == whole
    assert f"{found['flops_cross_check', 'image_encoder'].value / 1e9:.3f}" == second
    assert json.loads(found["flops_cross_check", None].detail)["unexplained"] == 0
    if name == "swin_litemedsam":
        assert f"{found['flops_with_prompts', None].value / 1e9:.3f}" == "55.136"
        assert "one box + points + scribble" in json.loads(found["flops_with_prompts", None].detail)["convention"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str | None], Record]:
    """What a tiny size costs."""
    return complexity_of("litemedsam_tiny", tmp_path_factory.mktemp("tiny"))


def test_the_parts_make_up_the_whole_and_the_uncounted_operators_are_told(tiny: dict) -> None:
    found = tiny
    for metric in ("params", "flops"):
        parts = sum(found[metric, part].value for part in PARTS)
        assert parts == pytest.approx(found[metric, None].value, rel=1e-3)
    uncounted = json.loads(found["uncounted_operators", None].detail)
    assert found["uncounted_operators", None].value == sum(uncounted.values())
    assert uncounted["softmax"] > 0
    assert not {"conv", "linear", "matmul", "bmm", "einsum", "addmm"} & uncounted.keys()
    assert json.loads(found["flops", None].detail)["convention"] == (
        "fvcore; 1 multiply-add = 1; eval; batch 1; 256 × 256; one box"
    )
    assert all(record.status == "ok" for record in found.values())


def test_only_a_variant_that_is_given_more_than_a_box_is_counted_with_all_its_prompts() -> None:
    model = variants.create("swin_litemedsam_tiny")
    less = {(r.metric, r.phase): r.value for r in job.flop_records(model, ("box",))}
    more = {(r.metric, r.phase): r.value for r in job.flop_records(model, ("box", "points", "scribble"))}
    assert more["flops_with_prompts", None] > more["flops", None] == less["flops", None]
    assert ("flops_with_prompts", None) not in less


def test_hyperparameters_of_the_suite_are_counted(tmp_path: Path, tiny: dict) -> None:
    less = complexity_of("litemedsam_tiny", tmp_path, decoder_depth=1)
    for metric in ("params", "flops"):
        assert less[metric, "mask_decoder"].value < tiny[metric, "mask_decoder"].value


def test_counting_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        complexity_of("litemedsam_tiny", tmp_path)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_a_variant_without_torch_has_parameters_and_says_why_it_has_no_flops(tmp_path: Path) -> None:
    found = complexity_of("dummy", tmp_path, published=True)
    assert found["params", None].value == 0
    assert found["flops", None].status == "unsupported"
    assert "not a torch module" in found["flops", None].reason


def test_a_model_that_cannot_be_traced_keeps_its_other_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*model: object) -> None:
        raise RuntimeError("tracing failed\nwith a long story")

    monkeypatch.setattr(multiply_adds, "count_flops", broken)
    found = complexity_of("litemedsam_tiny", tmp_path)
    assert found["params", None].value > 0
    assert found["activation_peak", None].value > 0
    assert found["flops", None].status == "crashed"
    assert found["flops", None].reason == "fvcore cannot trace the model: RuntimeError: tracing failed"


def test_an_unknown_variant_ends_the_job_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="litemedsan"):
        complexity_of("litemedsan", tmp_path)
