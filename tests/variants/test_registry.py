"""The registry: names, hyperparameters, mistakes, third-party packages."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import variants
from variants.registry import Registry, built_in, registry

THIRD_PARTY = Path(__file__).parent / "third_party"
FAMILIES = (
    "litemedsam",
    "swiftmedsam_v1",
    "swiftmedsam_v2",
    "swin_litemedsam",
    "rep_medsam",
    "efficientvit_sam_l0",
    "medsam_vit_b",
)
TINY = ("litemedsam_tiny", "swin_litemedsam_tiny", "rep_medsam_tiny", "efficientvit_sam_tiny", "medsam_vit_tiny")


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Installs packages that offer variants: writes their metadata where Python looks for it."""

    def install(package: str, module: str) -> None:
        metadata = tmp_path / f"{package.replace('-', '_')}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[medsam_bench.variants]\n{module} = {module}\n")
        registry.cache_clear()

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(THIRD_PARTY)
    yield install
    registry.cache_clear()


def test_the_built_in_variants_are_listed():
    assert {"dummy", *FAMILIES, *TINY} <= set(variants.names())


def test_a_specification_says_everything_and_can_be_pickled():
    spec = variants.spec("litemedsam")
    assert spec.input_size == 256
    assert spec.prompts == ("box",)
    assert spec.hyperparameters["depths"] == (2, 2, 6, 2)
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert not variants.spec("dummy").needs_torch


def test_swiftmedsam_differs_from_litemedsam_in_table_1_of_its_paper_alone():
    table = {
        "litemedsam": ((2, 2, 6, 2), 2, 2048, 8, 3),
        "swiftmedsam_v1": ((2, 2, 4, 2), 1, 1024, 8, 2),
        "swiftmedsam_v2": ((1, 2, 2, 2), 1, 256, 4, 2),
    }
    rows = ("depths", "decoder_depth", "decoder_mlp_dim", "decoder_heads", "iou_head_depth")
    fixed = []
    for name, values in table.items():
        hyperparameters = variants.spec(name).hyperparameters
        assert tuple(hyperparameters[row] for row in rows) == values
        fixed.append({key: value for key, value in hyperparameters.items() if key not in rows})
    assert fixed[0] == fixed[1] == fixed[2]


@pytest.mark.parametrize("name", TINY)
def test_the_tiny_size_says_that_it_is_no_model_of_a_paper(name):
    assert "not a model of any paper" in variants.spec(name).summary


def test_a_rule_is_overridden_like_a_hyperparameter_and_keeps_the_parameter_count():
    resolved = variants.resolve("swin_litemedsam", {"prompts": "box+points", "prompt_rule": "code"})
    assert resolved.prompts == ("box", "points")
    assert resolved.prompt_rule == "code"
    assert resolved.params == 36_767_846
    assert variants.resolve("efficientvit_sam_l0", {"preprocess": "gray-code"}).preprocess == "gray-code"


def test_a_rule_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(variants.VariantError, match="prompts cannot be 'mask'; known: box, box\\+points"):
        variants.resolve("swin_litemedsam", {"prompts": "mask"})


def test_changing_a_returned_specification_changes_no_other():
    variants.spec("litemedsam").hyperparameters["decoder_depth"] = 99
    assert variants.spec("litemedsam").hyperparameters["decoder_depth"] == 2


def test_overrides_replace_hyperparameters_and_forget_the_parameter_count():
    resolved = variants.resolve("litemedsam", {"depths": [2, 2, 2, 2], "decoder_depth": 1})
    assert resolved.hyperparameters["depths"] == (2, 2, 2, 2)
    assert resolved.hyperparameters["decoder_mlp_dim"] == 2048
    assert resolved.params is None
    assert variants.resolve("litemedsam", {"decoder_depth": 2}).params == 9_791_300


def test_overrides_that_make_a_registered_model_know_its_parameter_count():
    assert variants.resolve("litemedsam", variants.spec("swiftmedsam_v2").hyperparameters).params == 5_942_388


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("litemedsan", {}, "no variant 'litemedsan'; did you mean 'litemedsam'"),
        ("nothing_like_it", {}, "known: dummy, litemedsam"),
        ("litemedsam", {"dephts": [1, 1, 1, 1]}, "has no hyperparameter 'dephts'; did you mean 'depths'"),
        ("dummy", {"depths": [1, 1, 1, 1]}, "has no hyperparameter 'depths'; it has none"),
        ("litemedsam", {"depths": [1, 1, 1]}, r"depths must be a list of 4 integers such as \[2, 2, 6, 2\]"),
        ("litemedsam", {"depths": [1, 1, 1, True]}, "depths must be a list of 4 integers"),
        ("litemedsam", {"decoder_depth": "2"}, "decoder_depth must be an integer such as 2, not '2'"),
        ("litemedsam", {"decoder_depth": True}, "decoder_depth must be an integer"),
        ("litemedsam", {"decoder_depth": 0}, "'litemedsam': decoder_depth must be at least 1"),
        ("litemedsam", {"depths": [0, 1, 1, 1]}, r"depths must be at least 1 everywhere, not \[0, 1, 1, 1\]"),
        ("litemedsam", {"decoder_heads": 3}, "decoder_heads must divide half of embed_dim"),
        ("litemedsam", {"encoder_heads": [4, 5, 7]}, "7 does not divide 320"),
        ("litemedsam", {"embed_dim": 100}, "embed_dim must be a multiple of 8"),
        ("litemedsam", {"patch_stride": 3}, "patch_stride must be 1, 2 or 4, not 3"),
    ],
)
def test_a_mistake_is_said_in_one_sentence(name, overrides, said):
    with pytest.raises(variants.VariantError, match=said) as caught:
        variants.resolve(name, overrides)
    assert "\n" not in str(caught.value)


def test_two_variants_of_one_name_are_refused():
    ours = Registry()
    spec = variants.spec("dummy")
    ours.add(spec)
    with pytest.raises(
        variants.VariantError, match=r"'dummy' is registered twice: by variants\.dummy:build and by x:y"
    ):
        ours.add(replace(spec, factory="x:y"))


@pytest.mark.parametrize("change", [{"name": "no spaces"}, {"hyperparameters": {"seed": 1}}])
def test_names_that_cannot_be_used_are_refused(change):
    with pytest.raises(variants.VariantError, match="name"):
        Registry().add(replace(variants.spec("dummy"), **change))


def test_a_third_party_package_adds_a_variant_in_one_small_file(installed):
    assert len((THIRD_PARTY / "example_variant.py").read_text().splitlines()) <= 25
    installed("example-package", "example_variant")
    assert variants.names() == [*built_in().names(), "whole_box"]
    model = variants.create("whole_box")
    logits, _ = model.decode(model.encode(np.zeros((1, 3, 256, 256), np.float32)), [[10, 20, 19, 39]])
    assert (logits > 0).sum() == 10 * 20


def test_a_broken_third_party_package_is_named_and_the_others_stay(installed, tmp_path):
    (tmp_path / "broken_variants.py").write_text("raise RuntimeError('needs a licence')\n")
    installed("broken-package", "broken_variants")
    installed("example-package", "example_variant")
    with pytest.warns(variants.VariantWarning, match="package 'broken-package'.*needs a licence"):
        assert variants.names() == [*built_in().names(), "whole_box"]


def test_a_third_party_package_that_takes_a_built_in_name_is_left_out_as_a_whole(installed, tmp_path):
    code = "from dataclasses import replace\nfrom variants import spec\ndef register(registry):\n"
    code += "    registry.add(replace(spec('dummy'), name='fine'))\n    registry.add(spec('dummy'))\n"
    (tmp_path / "greedy_variants.py").write_text(code)
    installed("greedy-package", "greedy_variants")
    with pytest.warns(variants.VariantWarning, match="'greedy-package'.*'dummy' is registered twice"):
        assert variants.names() == built_in().names()


def test_a_factory_that_cannot_be_imported_is_named():
    lost = Registry()
    lost.add(replace(variants.spec("dummy"), name="lost", factory="no_such_module:build"))
    with pytest.raises(variants.VariantError, match="cannot import 'no_such_module:build'"):
        variants.registry.load_object(lost.get("lost").factory)
