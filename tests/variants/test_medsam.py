"""MedSAM's ViT: hyperparameters, windows and relative positions, memory, cost, equality with timm's block, training."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import variants
from tests.variants.test_rep_medsam import spread
from variants.compat import make_timm_importable
from variants.encoders.vit import Attention, Block
from variants.errors import VariantError

TINY = "medsam_vit_tiny"


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "params"), [("medsam_vit_b", 93_735_472), (TINY, 320_064)])
def test_the_registered_parameter_count_is_that_of_the_model(name, params):
    with torch.device("meta"):
        model = variants.create(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == variants.spec(name).params == params


def test_the_teacher_takes_stretched_images_of_1024_pixels():
    spec = variants.spec("medsam_vit_b")
    assert (spec.input_size, spec.preprocess, spec.prompts) == (1024, "stretch", ("box",))


def test_the_tiny_size_has_the_grid_and_the_channels_of_the_students_tiny_sizes():
    image = noise(1, 3, 256, 256)
    with torch.inference_mode():
        shapes = {name: variants.create(name).encode(image).image.shape for name in (TINY, "litemedsam_tiny")}
    assert shapes[TINY] == shapes["litemedsam_tiny"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"encoder_heads": 5}, "encoder_heads must divide width, but 5 does not divide 24"),
        ({"global_blocks": [3]}, r"global_blocks must ascend from 0 to at most 2, the last block, not \[3\]"),
        ({"depth": 1}, r"global_blocks must ascend from 0 to at most 0, the last block, not \[1\]"),
        ({"patch": 5}, "patch must be 4, 8, 16 or 32, not 5"),
        ({"window": 0}, "window must be at least 1 everywhere, not 0"),
    ],
)
def test_hyperparameters_that_do_not_fit_are_refused(overrides, message):
    with pytest.raises(VariantError, match=message):
        variants.resolve(TINY, overrides)


def test_the_first_block_may_be_global():
    blocks = variants.create(TINY, global_blocks=[0], patch=16).image_encoder.blocks
    assert [block.window for block in blocks] == [0, 14, 14]


def test_scores_depend_on_the_distance_of_rows_and_of_columns():
    side, dim = 3, 4
    attention = spread(Attention(dim, 1, side, heads_at_once=1))
    x = noise(1, side, side, dim)
    with torch.inference_mode():
        got = attention(x)
        queries, keys, values = attention.qkv(x.reshape(-1, dim)).chunk(3, dim=1)
        scores = torch.empty(side**2, side**2)
        for q in range(side**2):
            for k in range(side**2):
                row = attention.rel_pos_h[q // side - k // side + side - 1]
                column = attention.rel_pos_w[q % side - k % side + side - 1]
                scores[q, k] = queries[q] @ keys[k] / dim**0.5 + queries[q] @ (row + column)
        expected = attention.proj(scores.softmax(1) @ values)
    torch.testing.assert_close(got.reshape(-1, dim), expected, rtol=0, atol=1e-6)


def test_one_head_at_a_time_gives_what_all_heads_give():
    one, all_at_once = (spread(Attention(24, 6, 5, heads_at_once=count)) for count in (1, 6))
    some = spread(Attention(24, 6, 5, heads_at_once=4))
    x = noise(2, 5, 5, 24)
    with torch.inference_mode():
        torch.testing.assert_close(one(x), all_at_once(x), rtol=0, atol=1e-6)
        torch.testing.assert_close(some(x), all_at_once(x), rtol=0, atol=1e-6)


class Largest(TorchDispatchMode):
    """Counts the values of the largest tensor that any operator gives."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = function(*args, **(kwargs or {}))
        if isinstance(given, torch.Tensor):
            self.values = max(self.values, given.numel())
        return given


def test_a_global_block_never_holds_the_scores_of_all_heads():
    tokens = 16**2
    block = Block(24, 6, grid=16, window=0).eval()
    with torch.inference_mode(), Largest() as largest:
        block(noise(1, 16, 16, 24))
    assert largest.values == tokens**2


@pytest.mark.parametrize("window", [0, 4, 5], ids=["global", "windows", "padded windows"])
def test_a_block_equals_timms(window):
    make_timm_importable()
    from timm.models.vision_transformer_sam import Block as TimmBlock

    ours = spread(Block(24, 3, grid=8, window=window))
    side = window or 8
    norm = partial(nn.LayerNorm, eps=1e-6)
    theirs = TimmBlock(24, 3, window_size=window, use_rel_pos=True, input_size=(side, side), norm_layer=norm).eval()
    # Other names, the same order but for the two tables.
    theirs.load_state_dict({k.replace("lin", "fc"): value for k, value in ours.state_dict().items()})
    x = noise(2, 8, 8, 24)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)


def test_a_fresh_model_trains():
    model = variants.create(TINY, seed=0, patch=8).train()
    boxes, which = torch.tensor([[10.0, 20, 100, 120], [30, 40, 200, 90]]), torch.tensor([0, 1])
    logits, _ = model(noise(2, 3, 256, 256), boxes, which)
    logits.square().mean().backward()
    for name, parameter in model.image_encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A third of the bias of qkv, that of the keys, is zero but for rounding: it moves all scores of a query alike.
        assert parameter.grad.abs().max() > 0, name
