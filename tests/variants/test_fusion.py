"""Fusing: the published fused model, what it leaves alone, and outcomes it refuses."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import variants
from tests.variants import published
from tests.variants.test_rep_medsam import spread
from variants.encoders.layers import ConvBN, convolution, fold
from variants.encoders.repvit import RepDepthwise, Residual, SqueezeExcite
from variants.errors import VariantError
from variants.sam import LayerNorm2d


@pytest.fixture(scope="module")
def rep() -> nn.Module:
    return variants.create("rep_medsam")


@pytest.fixture(scope="module")
def fused(rep) -> nn.Module:
    return variants.fuse(rep, verify=False)


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    return spread(variants.create("rep_medsam_tiny"))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_names_order_and_shapes_are_those_of_the_fused_published_model(fused):
    manifest = json.loads((published.GOLDENS / "rep_medsam_fused.manifest.json").read_text())["state_dict"]
    wanted = [(key, tuple(entry["shape"]), entry["dtype"]) for key, entry in manifest.items()]
    got = [(k, tuple(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in fused.state_dict().items()]
    assert got == wanted
    assert sum(parameter.numel() for parameter in fused.parameters()) == 10_528_400


def test_normalisation_and_branches_are_gone_and_all_else_stays(rep, fused):
    def count(model: nn.Module, kind: type) -> int:
        return sum(isinstance(module, kind) for module in model.modules())

    assert count(fused, nn.BatchNorm2d) == count(fused, ConvBN) == count(fused, RepDepthwise) == 0
    for kind in (SqueezeExcite, Residual, nn.GELU, LayerNorm2d, nn.Linear):
        assert count(fused, kind) == count(rep, kind) > 0, kind


def test_the_model_itself_stays_as_it_was(tiny):
    before = {key: value.clone() for key, value in tiny.state_dict().items()}
    fused = variants.fuse(tiny)
    after = tiny.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    ours = {value.data_ptr() for value in after.values()}
    assert ours.isdisjoint(value.data_ptr() for value in fused.state_dict().values())


def test_fusing_leaves_torchs_random_state_alone(tiny):
    before = torch.get_rng_state()
    variants.fuse(tiny)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_fused_model_is_in_evaluation_mode_and_encodes_the_same(tiny):
    fused = variants.fuse(tiny)
    assert not any(module.training for module in fused.modules())
    with torch.inference_mode():
        image = published.inputs().image
        torch.testing.assert_close(fused.encode(image).image, tiny.encode(image).image, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("salt", ["b", "c"])
def test_weights_whose_float32_rounding_is_large_are_not_taken_for_a_mistake(salt):
    model = variants.create("rep_medsam")
    model.load_state_dict(published.state_dict("rep_medsam", salt))
    variants.fuse(model)


def test_other_families_fuse_by_the_same_call():
    model = spread(variants.create("litemedsam_tiny"))
    fused = variants.fuse(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.image_encoder.modules())
    with torch.inference_mode():
        image = published.inputs().image
        torch.testing.assert_close(fused.encode(image).image, model.encode(image).image, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["medsam_vit_tiny", "dummy"])
def test_a_model_without_such_modules_has_nothing_to_fuse(name):
    with pytest.raises(VariantError, match="has nothing to fuse"):
        variants.fuse(variants.create(name))


def test_a_fused_model_has_nothing_to_fuse(tiny):
    with pytest.raises(VariantError, match="has nothing to fuse"):
        variants.fuse(variants.fuse(tiny, verify=False))


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(VariantError, match="training mode cannot be fused"):
        variants.fuse(variants.create("rep_medsam_tiny").train())


def test_one_part_in_training_mode_is_refused():
    model = variants.create("rep_medsam_tiny")
    model.image_encoder.features[0].train()
    with pytest.raises(VariantError, match="training mode cannot be fused"):
        variants.fuse(model)


class Wrong(ConvBN):
    """Its fused form forgets the shift of the normalisation."""

    def fused(self) -> nn.Conv2d:
        right = super().fused()
        return convolution(right, right.weight, right.bias - self.bn.bias)


class Lost(ConvBN):
    """Its fused form gives no numbers."""

    def fused(self) -> nn.Conv2d:
        right = super().fused()
        return convolution(right, right.weight, right.bias * torch.nan)


class Coarse(ConvBN):
    """Its fused form is rounded to half precision on the way."""

    def fused(self) -> nn.Conv2d:
        right = super().fused()
        return right if right.weight.dtype == torch.float64 else right.half().float()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Wrong, r"fusing changes the image encoder's outcome by \d"),
        (Lost, "fusing changes the image encoder's outcome by nan"),
        (Coarse, r"fusing loses digits in features\.0\.2\.weight of the image encoder"),
    ],
)
def test_an_outcome_that_differs_is_refused(kind, message):
    model = variants.create("rep_medsam_tiny")
    model.image_encoder.features[0][2] = kind(8, 16, 3)
    spread(model)
    with pytest.raises(VariantError, match=message):
        variants.fuse(model)
    # Where fused weights are loaded next, only the structure matters.
    assert isinstance(variants.fuse(model, verify=False).image_encoder.features[0][2], nn.Conv2d)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(6, 4, 3, bias=False),
        nn.Conv2d(6, 4, 1, bias=True),
        nn.Conv2d(6, 12, 3, stride=2, padding=1, groups=6),
        nn.Conv2d(6, 4, (1, 3), padding=(0, 2), dilation=(1, 2)),
    ],
    ids=["plain", "bias", "depthwise, stride 2", "dilated"],
)
def test_a_convolution_and_its_normalisation_become_one_convolution(conv):
    bn = spread(nn.BatchNorm2d(conv.out_channels))
    bn.eps = 0.1
    x = noise(2, 6, 9, 8)
    with torch.inference_mode():
        torch.testing.assert_close(fold(conv, bn)(x), bn(conv(x)), rtol=0, atol=1e-5)


def test_branches_become_one_depthwise_convolution_that_differs_by_rounding_alone():
    module = spread(RepDepthwise(8)).double()
    fused = module.fused()
    assert (fused.kernel_size, fused.groups, fused.padding) == ((3, 3), 8, (1, 1))
    x = noise(2, 8, 9, 7).double()
    with torch.inference_mode():
        torch.testing.assert_close(fused(x), module(x), rtol=0, atol=1e-12)
