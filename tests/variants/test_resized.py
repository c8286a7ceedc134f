"""Images of another side than the network's: what progressive resizing trains on."""

from __future__ import annotations

import pytest
import torch

import variants
from variants import VariantError
from variants.sam.model import SamModel

FAMILIES = ("litemedsam_tiny", "swin_litemedsam_tiny", "rep_medsam_tiny", "efficientvit_sam_tiny", "medsam_vit_tiny")


def made(name: str) -> SamModel:
    model = variants.create(name, seed=0)
    assert isinstance(model, SamModel)
    return model.eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_half_the_side_gives_half_the_grid_and_logits_of_four_times_that(name: str) -> None:
    model = made(name)
    side, grid = model.input_size, model.prompt_encoder.grid
    box = torch.tensor([[10.0, 20.0, side / 2, side / 2]])
    prompts = {"points": torch.full((1, 4, 2), side / 3), "scribble": torch.zeros(1, 1, side, side)}
    with torch.inference_mode():
        embedding = model.encode_resized(torch.rand(1, 3, side // 2, side // 2))
        logits, iou = model.decode(embedding, box, **prompts)
    assert embedding.image.shape[-2:] == (grid // 2, grid // 2)
    assert logits.shape[-2:] == (2 * grid, 2 * grid)
    assert iou.shape == (1, 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_whole_side_is_what_encode_computes(name: str) -> None:
    model = made(name)
    image = torch.rand(1, 3, model.input_size, model.input_size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(model.encode_resized(image).image, model.encode(image).image)


def test_the_positions_of_a_smaller_grid_are_the_centres_of_its_cells() -> None:
    encoder = made("litemedsam_tiny").prompt_encoder
    centre = encoder.pe_layer(torch.tensor([(0.5 + 1) / 32, (0.5 + 2) / 32]))
    torch.testing.assert_close(encoder.dense_positions(32)[0, :, 2, 1], centre)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [((1, 3, 130, 130), "have no whole grid"), ((1, 3, 64, 128), "must be square"), ((3, 64, 64), "must be square")],
)
def test_a_side_without_a_whole_grid_is_refused(shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(VariantError, match=sentence):
        made("litemedsam_tiny").encode_resized(torch.zeros(shape))
