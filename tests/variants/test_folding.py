"""Folding the mask decoder changes the work, not the function."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import variants
from variants import VariantError
from variants.sam.transformer import TwoWayTransformer

TINY = ("litemedsam_tiny", "swin_litemedsam_tiny", "rep_medsam_tiny", "efficientvit_sam_tiny", "medsam_vit_tiny")
BOXES = torch.tensor([[20.0, 30, 120, 140], [0, 0, 255, 255], [100, 90, 130, 200]])


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("count", [1, 3])
def test_a_folded_model_gives_the_logits_of_the_model(name: str, count: int):
    model = variants.create(name, seed=1).eval()
    folded = variants.fold_decoder(model)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, model.input_size, model.input_size, generator=generator)
    prompts = {}
    if "points" in variants.spec(name).prompts:
        prompts["points"] = torch.rand(count, 4, 2, generator=generator) * model.input_size
        prompts["scribble"] = (torch.rand(count, 1, 256, 256, generator=generator) > 0.9).float()
    with torch.inference_mode():
        embedding = model.encode(image)
        expected = model.decode(embedding, BOXES[:count], **prompts)
        found = folded.decode(embedding, BOXES[:count], **prompts)
    for got, reference in zip(found, expected, strict=True):
        assert torch.allclose(got, reference, atol=1e-4 * float(reference.abs().max()))
    assert found[0].shape == (count, 1, 256, 256)


def test_prompts_of_one_image_give_what_each_gives_alone():
    model = variants.create("litemedsam_tiny", seed=1).eval()
    with torch.inference_mode():
        embedding = model.encode(torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)))
        together = model.decode(embedding, BOXES)[0]
        alone = torch.cat([model.decode(embedding, box[None])[0] for box in BOXES])
    assert torch.allclose(together, alone, atol=1e-5)


def test_the_transformer_of_a_published_size_needs_less_than_half_the_multiply_adds():
    def work(transformer: torch.nn.Module) -> int:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            transformer(torch.zeros(1, 256, 64, 64), torch.zeros(1, 256, 64, 64), torch.zeros(1, 7, 256))
        return counter.get_total_flops()

    model = variants.create("litemedsam", seed=0).eval()
    folded = variants.fold_decoder(model)
    assert work(folded.mask_decoder.transformer) < 0.5 * work(model.mask_decoder.transformer)


@pytest.mark.parametrize("name", ["litemedsam_tiny", "swin_litemedsam_tiny"])
def test_only_the_masks_that_are_asked_for_are_computed_and_are_the_same(name: str):
    model = variants.create(name, seed=1).eval()
    folded = variants.fold_decoder(model)
    prompts = {}
    if "points" in variants.spec(name).prompts:
        prompts = {"points": torch.full((3, 4, 2), 80.0), "scribble": torch.zeros(3, 1, 256, 256)}
    with torch.inference_mode():
        embedding = model.encode(torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)))
        expected = model.decode(embedding, BOXES, multimask=True, **prompts)
        found = folded.decode(embedding, BOXES, multimask=True, **prompts)
    assert found[0].shape == (3, 3, 256, 256)
    for got, reference in zip(found, expected, strict=True):
        assert torch.allclose(got, reference, atol=1e-4 * float(reference.abs().max()))


def test_masks_are_upscaled_without_a_transposed_convolution():
    model = variants.create("litemedsam_tiny", seed=1).eval()
    kinds = {type(module) for module in variants.fold_decoder(model).mask_decoder.modules()}
    assert torch.nn.ConvTranspose2d not in kinds
    assert torch.nn.ConvTranspose2d in {type(module) for module in model.mask_decoder.modules()}


def test_the_model_that_was_folded_stays_as_it_was():
    model = variants.create("litemedsam_tiny", seed=1).eval()
    before = list(model.state_dict())
    variants.fold_decoder(model)
    assert list(model.state_dict()) == before
    assert isinstance(model.mask_decoder.transformer, TwoWayTransformer)


def test_a_model_without_such_a_decoder_is_refused():
    with pytest.raises(VariantError, match="no attention between tokens and image to fold"):
        variants.fold_decoder(variants.create("dummy"))
