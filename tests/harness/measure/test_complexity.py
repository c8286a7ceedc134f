"""Parameters and FLOPs equal those measured on the published models, whole and per part."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

import variants
from harness.config import VariantRef
from harness.errors import BenchError
from harness.jobs import JobSpec
from harness.measure import complexity
from harness.schema import PARTS, Record
from tests.harness.measure.support import PlainContext

# fvcore, eval mode, 256×256, one box; parameters and 10⁹ multiply-adds, as measured on the published implementations.
PUBLISHED = {
    "litemedsam": ((9_791_300, 5_726_740, 6_220, 4_058_340), "37.816", "39.639"),
    "swiftmedsam_v1": ((6_996_636, 5_102_700, 6_220, 1_887_716), "34.491", "35.743"),
    "swiftmedsam_v2": ((5_942_388, 4_442_436, 6_220, 1_493_732), "28.793", "30.042"),
}


def measured(name: str, folder: Path, **overrides: object) -> dict[tuple[str, str | None], Record]:
    context = PlainContext(folder)
    spec = JobSpec(kind="complexity", variant=VariantRef(name=name, set=overrides))
    complexity.run(spec, context)
    complexity.run(spec, context)
    assert list(context.units) == ["complexity"]
    return {(record.metric, record.phase): record for record in context.records}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_flops_of_the_published_models(name: str, tmp_path: Path) -> None:
    found = measured(name, tmp_path)
    params, encoder, whole = PUBLISHED[name]
    assert tuple(found["params", phase].value for phase in (None, *PARTS)) == params
    assert f"{found['flops', 'image_encoder'].value / 1e9:.3f}" == encoder
    assert f"{found['flops', None].value / 1e9:.3f}" == whole


def test_the_parts_make_up_the_whole_and_the_uncounted_operators_are_told(tmp_path: Path) -> None:
    found = measured("litemedsam_tiny", tmp_path)
    for metric in ("params", "flops"):
        parts = sum(found[metric, part].value for part in PARTS)
        assert parts == pytest.approx(found[metric, None].value, rel=1e-3)
    uncounted = json.loads(found["uncounted_operators", None].detail)
    assert found["uncounted_operators", None].value == sum(uncounted.values())
    assert uncounted["softmax"] > 0
    assert not {"conv", "linear", "matmul", "bmm", "einsum", "addmm"} & uncounted.keys()
    assert "eval" in json.loads(found["flops", None].detail)["convention"]
    assert all(record.status == "ok" for record in found.values())


def test_hyperparameters_of_the_suite_are_counted(tmp_path: Path) -> None:
    name, value = "decoder_depth", 1
    if name not in variants.spec("litemedsam_tiny").hyperparameters:
        pytest.fail(f"the variant has no hyperparameter {name}")
    less = measured("litemedsam_tiny", tmp_path / "a", **{name: value})
    more = measured("litemedsam_tiny", tmp_path / "b")
    assert less["params", "mask_decoder"].value < more["params", "mask_decoder"].value


def test_counting_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        measured("litemedsam_tiny", tmp_path)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_a_variant_without_torch_has_parameters_and_says_why_it_has_no_flops(tmp_path: Path) -> None:
    found = measured("dummy", tmp_path)
    assert found["params", None].value == 0
    assert found["flops", None].status == "unsupported"
    assert "not a torch module" in found["flops", None].reason


def test_a_model_that_cannot_be_traced_keeps_its_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: object) -> None:
        raise RuntimeError("tracing failed\nwith a long story")

    monkeypatch.setattr(complexity, "count_flops", broken)
    found = measured("litemedsam_tiny", tmp_path)
    assert found["params", None].value > 0
    assert found["flops", None].status == "crashed"
    assert found["flops", None].reason == "fvcore cannot trace the model: RuntimeError: tracing failed"


def test_an_unknown_variant_ends_the_job_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="litemedsan"):
        measured("litemedsan", tmp_path)
