"""Swin-LiteMedSAM: its ablations, skip connections, constants and unused parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import variants
from tests.variants import published
from variants.encoders.swin import WindowAttention

PROMPTS = published.inputs()
BOX = PROMPTS.boxes[:1]
UNUSED = {"mask_decoder.prompt1": 10_633_861, "mask_decoder.prompt2": 10_495_141}


@dataclass
class Loaded:
    model: torch.nn.Module
    goldens: dict[str, np.ndarray]
    embedding: variants.Embedding


@pytest.fixture(scope="module")
def loaded():
    """The published weights, without those that nothing reads."""
    model = variants.create("swin_litemedsam", unused=False)
    state = model.state_dict()
    filled = {key: published.fill(key, tuple(value.shape)) for key, value in state.items()}
    model.load_state_dict(
        {key: torch.from_numpy(filled[key]) if filled[key] is not None else state[key] for key in state}
    )
    with torch.inference_mode():
        return Loaded(model, published.goldens("swin_lite_medsam"), model.encode(PROMPTS.image))


@pytest.fixture(scope="module")
def tiny():
    return variants.create("swin_litemedsam_tiny")


@pytest.fixture
def carrying():
    """The tiny size with the unused parameters of the published file."""
    return variants.create("swin_litemedsam_tiny", unused=True)


def images(count):
    return torch.rand(count, 3, 256, 256, generator=torch.Generator().manual_seed(1))


def prompts(count):
    """Boxes, points and scribbles that all differ."""
    draw = torch.Generator().manual_seed(2)
    corner, side = torch.rand(2, count, 2, generator=draw) * 120
    boxes = torch.cat((corner, corner + side + 5), dim=1)
    points = torch.rand(count, 4, 2, generator=draw) * 250
    scribble = (torch.rand(count, 1, 256, 256, generator=draw) > 0.9).float()
    return {"boxes": boxes, "points": points, "scribble": scribble}


@pytest.mark.parametrize(
    ("golden", "given"),
    [
        ("box_only", {}),
        ("box_points", {"points": PROMPTS.points}),
        ("box_scribble", {"scribble": PROMPTS.scribble}),
        ("box_zero_scribble", {"scribble": torch.zeros_like(PROMPTS.scribble)}),
    ],
)
def test_each_choice_of_prompts_gives_the_official_mask(loaded, golden, given):
    with torch.inference_mode():
        logits, iou = loaded.model.decode(loaded.embedding, BOX, **given)
    np.testing.assert_allclose(logits.numpy(), loaded.goldens[f"{golden}_low_res_logits"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(iou.numpy(), loaded.goldens[f"{golden}_iou_pred"], rtol=0, atol=1e-4)


def test_stage_outputs_have_the_official_statistics(loaded):
    shapes = [(1, 128, 128, 128), (1, 160, 64, 64), (1, 320, 64, 64), (1, 320, 64, 64)]
    assert [tuple(skip.shape) for skip in loaded.embedding.skips] == shapes
    for number, skip in enumerate(loaded.embedding.skips):
        values = skip.double()
        found = [values.mean(), values.std(), values.sum(), values.abs().max()]
        np.testing.assert_allclose(found, loaded.goldens[f"skip{number}_stats"], rtol=1e-4)


def test_two_boxes_in_one_call_give_what_one_box_a_call_gives(loaded):
    with torch.inference_mode():
        together, iou = loaded.model.decode(loaded.embedding, PROMPTS.boxes[:2])
        for i in range(2):
            alone, alone_iou = loaded.model.decode(loaded.embedding, PROMPTS.boxes[i : i + 1])
            torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-5)
            torch.testing.assert_close(iou[i : i + 1], alone_iou, rtol=0, atol=1e-5)


def test_prompts_of_several_images_in_one_call_meet_the_skips_of_their_own_image(tiny):
    given, index = prompts(5), torch.tensor([2, 0, 2, 1, 0])
    with torch.inference_mode():
        embedding = tiny.encode(images(3))
        together, iou = tiny.decode(embedding, image_index=index, **given)
        for i, image in enumerate(index.tolist()):
            one = {name: value[i : i + 1] for name, value in given.items()}
            alone, alone_iou = tiny.decode(embedding[image], **one)
            torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-5)
            torch.testing.assert_close(iou[i : i + 1], alone_iou, rtol=0, atol=1e-5)


def test_without_image_index_the_skips_are_those_of_image_0(tiny):
    given = prompts(2)
    with torch.inference_mode():
        embedding = tiny.encode(images(2))
        of_first, _ = tiny.decode(embedding, **given)
        said, _ = tiny.decode(embedding, image_index=torch.zeros(2, dtype=torch.int64), **given)
    torch.testing.assert_close(of_first, said, rtol=0, atol=1e-5)


def test_every_stage_reaches_the_mask(tiny):
    with torch.inference_mode():
        embedding = tiny.encode(images(1))
        mask, _ = tiny.decode(embedding, BOX)
        for number, skip in enumerate(embedding.skips):
            skips = list(embedding.skips)
            skips[number] = torch.zeros_like(skip)
            other, _ = tiny.decode(variants.Embedding(embedding.image, tuple(skips)), BOX)
            assert not torch.allclose(mask, other, atol=1e-4), f"stage {number + 1}"


def test_skip_connections_of_a_fresh_decoder_are_a_tenth_as_loud_as_its_own_channels():
    decoder = variants.create("swin_litemedsam_tiny", seed=0).mask_decoder
    for name, own in (("output_upscaling1", 64), ("output_upscaling2", 32)):
        weight = decoder.get_submodule(name)[0].weight.detach()
        assert weight.shape[1] > own
        assert weight[:, own:].std() / weight[:, :own].std() == pytest.approx(0.1, rel=0.1)


def test_no_prompt_gives_no_mask(tiny):
    with torch.inference_mode():
        logits, iou = tiny.decode(tiny.encode(images(1)), torch.zeros(0, 4))
    assert logits.shape == (0, 1, 256, 256)
    assert iou.shape == (0, 1)


def test_an_embedding_of_another_model_is_refused(tiny):
    embedding = tiny.encode(images(1))
    with pytest.raises(variants.VariantError, match="has 0 further outputs and this decoder reads 4"):
        tiny.decode(variants.Embedding(embedding.image), BOX)


def test_an_embedding_indexed_by_image_carries_the_skips_of_that_image(tiny):
    with torch.inference_mode():
        embedding = tiny.encode(images(2))
    assert all(torch.equal(a[1:], b) for a, b in zip(embedding.skips, embedding[1].skips, strict=True))
    assert embedding.nbytes == 2 * 4 * (64 * 64 * (64 + 32 + 48 + 48) + 128 * 128 * 16)


def test_without_skips_the_decoder_is_that_of_sam():
    plain = variants.create("swin_litemedsam", skips=False)
    sam = {key: value.shape for key, value in variants.create("litemedsam").mask_decoder.state_dict().items()}
    assert {key: value.shape for key, value in plain.mask_decoder.state_dict().items()} == sam
    assert sum(parameter.numel() for parameter in plain.parameters()) == 10_564_748 + 6_220 + 4_058_340
    assert plain.unused_parameters() == 0


def test_without_skips_an_embedding_is_an_image_and_nothing_else():
    plain = variants.create("swin_litemedsam_tiny", skips=False)
    with torch.inference_mode():
        embedding = plain.encode(PROMPTS.image)
        logits, _ = plain.decode(embedding, PROMPTS.boxes)
    assert embedding.skips == ()
    assert logits.shape == (3, 1, 256, 256)


def test_the_model_tells_which_parameters_never_run(tiny):
    model = variants.create("swin_litemedsam")
    assert model.unused_modules() == UNUSED
    assert model.unused_parameters() == sum(UNUSED.values()) == 21_129_002
    assert tiny.unused_parameters() == variants.create("litemedsam_tiny").unused_parameters() == 0


def test_no_output_depends_on_an_unused_parameter(carrying):
    given = prompts(2)
    with torch.inference_mode():
        expected, iou = carrying.decode(carrying.encode(images(1)), **given)
        for name in carrying.unused_modules():
            for parameter in carrying.get_submodule(name).parameters():
                parameter.fill_(float("nan"))
        got, got_iou = carrying.decode(carrying.encode(images(1)), **given)
    assert torch.equal(got, expected)
    assert torch.equal(got_iou, iou)


def test_without_unused_parameters_all_else_is_as_published():
    model = variants.create("swin_litemedsam", unused=False)
    kept = {key: entry for key, entry in published.manifest("swin_litemedsam").items() if ".prompt" not in key}
    assert list(model.state_dict()) == list(kept)
    assert sum(parameter.numel() for parameter in model.parameters()) == 36_767_846 - 21_129_002 == 15_638_844


def test_shift_masks_are_constants_of_the_published_layout():
    model = variants.create("swin_litemedsam")
    masks = {name: value for name, value in model.named_parameters() if name.endswith("_mask")}
    assert len(masks) == 12
    assert sum(mask.numel() for mask in masks.values()) == 49_152
    assert not any(mask.requires_grad for mask in masks.values())
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 36_718_694
    place = np.arange(64)
    row, column = place // 8, place % 8
    for name, mask in masks.items():
        part = row >= 4 if "upper_lower" in name else column >= 4
        expected = np.where(part[:, None] != part[None, :], -np.inf, 0)
        assert np.array_equal(mask.numpy(), expected), name


def test_another_memory_format_is_possible_with_unused_parameters_and_changes_no_mask(carrying):
    given = prompts(2)
    with torch.inference_mode():
        expected, _ = carrying.decode(carrying.encode(images(1)), **given)
        carrying.to(memory_format=torch.channels_last)
        got, _ = carrying.decode(carrying.encode(images(1).to(memory_format=torch.channels_last)), **given)
    assert carrying.mask_decoder.prompt1.prompt_param.shape == (1, 5, 32, 128, 128)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shifted", [False, True])
def test_attention_is_that_of_timm_with_one_turned_table_for_all_heads(shifted):
    from variants.compat import make_timm_importable

    make_timm_importable()
    from timm.models.swin_transformer import SwinTransformerBlock

    dim, heads, head_dim, window, grid = 12, 3, 8, 4, 12
    torch.manual_seed(0)
    ours = WindowAttention(dim, heads, head_dim, window, shifted)
    block = SwinTransformerBlock(
        dim, (grid, grid), heads, head_dim, window, window // 2 if shifted else 0, qkv_bias=False
    ).eval()
    block.norm1 = block.norm2 = nn.Identity()
    with torch.no_grad():
        ours.pos_embedding.normal_()
        block.attn.qkv.weight.copy_(ours.to_qkv.weight)
        block.attn.proj.load_state_dict(ours.to_out.state_dict())
        turned = ours.pos_embedding.flip(0, 1).flatten()[:, None]
        block.attn.relative_position_bias_table.copy_(turned.expand(-1, heads))
        x = torch.randn(2, grid, grid, dim)
        torch.testing.assert_close(ours(x), block._attn(x), rtol=0, atol=1e-5)


def test_training_reaches_every_trainable_parameter_of_encoder_and_decoder():
    model = variants.create("swin_litemedsam_tiny").train()
    given, index = prompts(2), torch.arange(2)
    logits, iou = model.decode(model.encode(images(2)), image_index=index, multimask=False, **given)
    alternatives, more = model.decode(model.encode(images(2)), image_index=index, multimask=True, **given)
    (logits.square().mean() + iou.sum() + alternatives.square().mean() + more.sum()).backward()
    for part in (model.image_encoder, model.mask_decoder):
        for name, parameter in part.named_parameters():
            if name.endswith("_mask"):
                assert parameter.grad is None, name
            else:
                assert parameter.grad is not None, name
                assert torch.isfinite(parameter.grad).all(), name
                assert parameter.grad.abs().max() > 0, name


def test_a_fresh_encoder_neither_fades_nor_explodes():
    model = variants.create("swin_litemedsam_tiny").train()
    with torch.no_grad():
        embedding = model.encode(images(2))
    for output in (embedding.image, *embedding.skips):
        assert 0.1 < output.std() < 10


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"depths": [2, 2, 5, 2]}, "depths must be even"),
        ({"window": 7}, "window must divide the grid"),
        ({"patch_stride": 4}, "patch_stride must be 1 or 2"),
        ({"patch_channels": 15}, "patch_channels must be even"),
        ({"head_dim": 0}, "head_dim must be at least 1"),
        ({"embed_dim": 60}, "embed_dim must be a multiple of 8"),
        ({"skips": 1}, "skips must be true or false"),
    ],
)
def test_hyperparameters_that_do_not_fit_are_refused(overrides, said):
    with pytest.raises(variants.VariantError, match=said):
        variants.resolve("swin_litemedsam", overrides)


def test_the_rows_of_table_5_are_settings():
    rows = [
        {"skips": False, "prompts": "box"},
        {"prompts": "box"},
        {"prompts": "box+points"},
        {"prompts": "box+points+scribble"},
    ]
    resolved = [variants.resolve("swin_litemedsam", row) for row in rows]
    assert [spec.prompts for spec in resolved] == [
        ("box",),
        ("box",),
        ("box", "points"),
        ("box", "points", "scribble"),
    ]
    assert [spec.params for spec in resolved[1:]] == [36_767_846] * 3
    own = variants.spec("swin_litemedsam")
    assert resolved[-1] == own
    assert (own.prompt_rule, own.loop, own.preprocess) == ("code", "swin", "longest-side")


@pytest.mark.slow
def test_encoder_and_decoder_export_with_any_number_of_images_and_prompts(tiny):
    class Decoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = tiny

        def forward(self, image, skips, image_index, boxes, points, scribble):
            embedding = variants.Embedding(image, tuple(skips))
            return self.model.decode(embedding, boxes, image_index, points, scribble)

    images_dim, prompts_dim = {0: torch.export.Dim("B", min=1)}, {0: torch.export.Dim("N", min=1)}
    with torch.no_grad():
        encoder = torch.export.export(tiny.image_encoder, (images(2),), dynamic_shapes=(images_dim,))
        image, *skips = tiny.image_encoder(images(2))
        decoder = torch.export.export(
            Decoder(),
            (image, skips, torch.tensor([1, 0, 1]), *prompts(3).values()),
            dynamic_shapes=(images_dim, [images_dim] * 4, *[prompts_dim] * 4),
        )
        for batch, count in ((1, 1), (3, 5)):
            image, *skips = encoder.module()(images(batch))
            for got, expected in zip((image, *skips), tiny.image_encoder(images(batch)), strict=True):
                torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
            given, index = prompts(count), torch.arange(count) % batch
            got, _ = decoder.module()(image, skips, index, *given.values())
            expected, _ = tiny.decode(variants.Embedding(image, tuple(skips)), image_index=index, **given)
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
