"""EfficientViT-SAM: the cost that was published, blocks that timm has too, and everything a variant must survive."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace

import pytest
import torch

import variants
from tests.variants import published
from variants.compat import make_timm_importable
from variants.efficientvit_sam import build
from variants.encoders.efficientvit import GRID, Backbone, LinearAttention

TINY = "efficientvit_sam_tiny"
BOXES = published.inputs().boxes


@pytest.fixture(scope="module")
def l0():
    return variants.create("efficientvit_sam_l0")


@pytest.fixture(scope="module")
def tiny():
    return variants.create(TINY)


def drawn(shapes: dict[str, torch.Size]) -> dict[str, torch.Tensor]:
    """Weights and statistics for which no normalisation is the identity."""
    filled = {key: published.fill(key, tuple(shape)) for key, shape in shapes.items()}
    return {key: torch.tensor(0) if value is None else torch.from_numpy(value) for key, value in filled.items()}


def count(module: torch.nn.Module, *inputs: torch.Tensor) -> dict[str, Counter[str]]:
    """Multiply-adds by module and kind of operator, as fvcore counts them; it uses what torch is about to drop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(module, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return dict(analysis.by_module_and_operator())


def giga(counts: Counter[str]) -> float:
    """To the printed digit."""
    return round(counts.total() / 1e9, 3)


def images(several: int, size: int = 256) -> torch.Tensor:
    return torch.rand(several, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_the_model_costs_what_the_official_one_costs(l0):
    counts = count(l0, images(1), BOXES[:1], torch.tensor([0]))
    assert giga(counts[""]) == 18.804
    assert giga(counts["image_encoder"]) == 16.981
    # Linear attention: four blocks, 32 heads, two products of 33 x 32 values with 64 pixels.
    assert counts["image_encoder"]["matmul"] == 4 * 32 * 2 * 33 * 32 * 64


@pytest.mark.slow
@pytest.mark.parametrize(("size", "cost"), [(512, 34.856), (1024, 106.357)])
def test_other_input_sizes_give_the_same_grid_at_the_official_cost(size, cost):
    model = build(replace(variants.spec("efficientvit_sam_l0"), input_size=size)).eval()
    assert giga(count(model.image_encoder, images(1, size))[""]) == cost


@pytest.mark.parametrize("size", [64, 512])
def test_every_input_size_gives_logits_of_one_size(size):
    model = build(replace(variants.spec(TINY), input_size=size)).eval()
    with torch.inference_mode():
        logits, _ = model(images(1, size), BOXES[:1] * (size / 256))
    assert logits.shape == (1, 1, 4 * GRID, 4 * GRID)


def test_an_input_size_that_the_encoder_cannot_halve_five_times_is_refused():
    with pytest.raises(variants.VariantError, match="input_size must be a multiple of 32, not 250"):
        build(replace(variants.spec(TINY), input_size=250))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"head_dim": 24}, "head_dim must divide the last of widths, but 24 does not divide 64"),
        ({"depths": [1, 1, 0, 1, 1]}, r"depths must be at least 1 everywhere, not \[1, 1, 0, 1, 1\]"),
        ({"embed_dim": 30}, "embed_dim must be a multiple of 8"),
    ],
)
def test_hyperparameters_that_do_not_fit_together_are_refused(overrides, said):
    with pytest.raises(variants.VariantError, match=said):
        variants.resolve(TINY, overrides)


def test_every_normalisation_of_the_encoder_has_the_published_epsilon(l0):
    assert {module.eps for module in l0.image_encoder.modules() if hasattr(module, "eps")} == {1e-6}


def test_the_backbone_equals_timms():
    make_timm_importable()
    from timm.models.efficientvit_mit import EfficientVitLarge

    widths, depths = (16, 16, 24, 32, 64), (1, 1, 1, 2, 2)
    ours = Backbone(widths, depths, (16, 16, 16, 24), (4, 4, 4, 6), head_dim=32).eval()
    theirs = EfficientVitLarge(widths=widths, depths=depths, head_dim=32, head_widths=(8, 8), norm_eps=1e-6).eval()
    weights = drawn({key: value.shape for key, value in ours.state_dict().items()})
    ours.load_state_dict(weights)
    names = [key for key in theirs.state_dict() if not key.startswith("head.")]
    missing, unexpected = theirs.load_state_dict(dict(zip(names, weights.values(), strict=True)), strict=False)
    assert all(key.startswith("head.") for key in missing)
    assert not unexpected
    with torch.inference_mode():
        got, expected = ours(images(1))[-1], theirs.forward_features(images(1))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4 * float(expected.std()))


def test_linear_attention_is_computed_in_float32_under_autocast():
    torch.manual_seed(0)
    attention = LinearAttention(32, head_dim=16).eval()
    seen = []
    attention._attend = lambda heads: seen.append((heads.dtype, (heads @ heads.mT).dtype)) or heads[:, :, :16]
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        attention(torch.rand(1, 32, 8, 8))
    assert seen == [(torch.float32, torch.float32)]


def test_autocast_changes_the_embedding_by_rounding_only(tiny):
    with torch.inference_mode():
        plain = tiny.encode(images(1)).image
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = tiny.encode(images(1)).image.float()
    assert 0 < float((rounded - plain).std()) < 0.05 * float(plain.std())


def test_fusing_folds_every_normalisation_and_changes_nothing():
    tiny = variants.create(TINY)
    tiny.load_state_dict(drawn({key: value.shape for key, value in tiny.state_dict().items()}))
    encoder = tiny.image_encoder
    layers = {name: module for name, module in encoder.named_modules() if hasattr(module, "fused")}
    with torch.inference_mode():
        before = encoder(images(2))
        for name, layer in layers.items():
            encoder.set_submodule(name, layer.fused())
        after = encoder(images(2))
    assert layers
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in encoder.modules())
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4)


def test_one_step_of_training_reaches_every_weight_that_the_mask_depends_on():
    model = variants.create(TINY).train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    logits, iou = model(images(2), BOXES[:2], torch.tensor([0, 1]))
    (logits.sigmoid().mean() + iou.mean()).backward()
    torch.optim.SGD(model.parameters(), 1.0).step()
    unchanged = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    assert not {name for name in unchanged if name.startswith("image_encoder")}
    # No point and no scribble was given, and one mask was asked for, not three.
    assert all(name.startswith("prompt_encoder") or "hypernetworks" in name for name in unchanged)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


def test_the_encoder_is_exported_once_for_every_number_of_images(tiny):
    encoder, dynamic = tiny.image_encoder, {0: torch.export.Dim("images", min=1, max=64)}
    with torch.no_grad():
        exported = torch.export.export(encoder, (images(2),), dynamic_shapes=(dynamic,)).module()
        for several in (1, 3):
            torch.testing.assert_close(exported(images(several)), encoder(images(several)), rtol=0, atol=1e-5)
