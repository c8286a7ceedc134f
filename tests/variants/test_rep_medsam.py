"""Rep-MedSAM: the stage table, squeeze-and-excitation, the published costs, equality with timm's blocks, training."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

import variants
from tests.variants import published
from variants.compat import make_timm_importable
from variants.encoders.repvit import Block, RepDepthwise, SqueezeExcite
from variants.errors import VariantError

TINY = "rep_medsam_tiny"


def spread(module: nn.Module) -> nn.Module:
    """Every entry filled as the goldens' weights are, so that no branch is zero or the identity."""
    state = module.state_dict()
    filled = {key: published.fill(key, tuple(value.shape)) for key, value in state.items()}
    module.load_state_dict({k: state[k] if v is None else torch.from_numpy(v) for k, v in filled.items()})
    return module.eval()


def gated(encoder: nn.Module) -> list[int]:
    """Which blocks, counted from 1, have squeeze-and-excitation."""
    blocks = [module for module in encoder.features if isinstance(module, Block)]
    return [i for i, b in enumerate(blocks, 1) if any(isinstance(part, SqueezeExcite) for part in b.token_mixer)]


@pytest.mark.parametrize(("name", "params"), [("rep_medsam", 10_570_092), (TINY, 304_144)])
def test_the_registered_parameter_count_is_that_of_the_model(name, params):
    counted = sum(parameter.numel() for parameter in variants.create(name).parameters())
    assert counted == variants.spec(name).params == params


def test_ten_of_the_26_blocks_have_squeeze_and_excitation():
    encoder = variants.create("rep_medsam").image_encoder
    assert len(encoder.features) == 1 + 26
    assert gated(encoder) == [1, 5, 9, 11, 13, 15, 17, 19, 21, 25]


def test_the_tiny_size_has_every_kind_of_block():
    encoder = variants.create(TINY).image_encoder
    blocks = encoder.features[1:]
    assert gated(encoder)
    assert any(not isinstance(block.token_mixer[0], RepDepthwise) for block in blocks), "stride 2"
    assert any(isinstance(block.channel_mixer, nn.Sequential) for block in blocks), "channels change at stride 1"


def test_squeeze_and_excitation_is_an_axis():
    assert gated(variants.create(TINY, se=False).image_encoder) == []


@pytest.mark.parametrize("patch_stride", [1, 2, 4])
def test_every_patch_stride_gives_the_embedding_grid(patch_stride):
    model = variants.create(TINY, patch_stride=patch_stride, widths=[4, 8, 12, 16])
    with torch.inference_mode():
        assert model.encode(torch.zeros(1, 3, 256, 256)).image.shape == (1, 64, 64, 64)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"depths": [2, 0, 2, 2]}, r"depths must be at least 1 everywhere, not \[2, 0, 2, 2\]"),
        ({"widths": [1, 8, 8, 8]}, "widths must begin with at least 2, of which the stem has half, not 1"),
        ({"patch_stride": 3}, "patch_stride must be 1, 2 or 4, not 3"),
        ({"decoder_heads": 5}, "decoder_heads must divide half of embed_dim"),
        ({"se": 1}, "se must be true or false, not 1"),
    ],
)
def test_hyperparameters_that_do_not_fit_are_refused(overrides, message):
    with pytest.raises(VariantError, match=message):
        variants.resolve(TINY, overrides)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # fvcore traces modules
def test_the_backbone_without_the_neck_costs_what_468_g_for_16_images_means(caplog):
    from fvcore.nn import FlopCountAnalysis

    caplog.set_level(logging.ERROR)
    encoder = variants.create("rep_medsam").image_encoder

    def giga(module: nn.Module) -> float:
        return round(float(FlopCountAnalysis(module, torch.zeros(1, 3, 256, 256)).total()) / 1e9, 3)

    assert giga(encoder) == 31.531
    assert giga(variants.fuse(variants.create("rep_medsam"), verify=False).image_encoder) == 31.110
    assert giga(encoder.features.train()) == 29.225


@pytest.mark.parametrize("channels", [16, 48, 56, 112, 224, 448])
def test_squeeze_and_excitation_equals_timms(channels):
    make_timm_importable()
    from timm.layers import SqueezeExcite as TimmSqueezeExcite

    ours, theirs = spread(SqueezeExcite(channels)), TimmSqueezeExcite(channels, rd_ratio=0.25).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, channels, 6, 5, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("se", [True, False])
def test_a_block_of_equal_channels_equals_timms(se):
    make_timm_importable()
    from timm.models.repvit import RepViTBlock

    ours = spread(Block(24, 24, stride=1, se=se))
    theirs = RepViTBlock(24, mlp_ratio=2, kernel_size=3, use_se=se, act_layer=nn.GELU).eval()
    # Other names, the same order.
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x = torch.randn(2, 24, 9, 7, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)


def test_a_fresh_model_begins_with_identity_channel_mixers_and_trains():
    model = variants.create(TINY, seed=0).train()
    image = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    boxes, which = torch.tensor([[10.0, 20, 100, 120], [30, 40, 200, 90]]), torch.tensor([0, 1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        # In the first step nothing gets behind the normalisations that start at zero.
        optimizer.zero_grad()
        logits, _ = model(image, boxes, which)
        logits.square().mean().backward()
        optimizer.step()
    for name, parameter in model.image_encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.ndim < 2 or parameter.grad.abs().max() > 0, name
