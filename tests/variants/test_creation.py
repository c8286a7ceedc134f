"""Creating models: seeds, evaluation mode, hyperparameters, training from scratch."""

from __future__ import annotations

import pytest
import torch

import variants
from tests.variants import published
from variants.registry import built_in

TINY = "litemedsam_tiny"


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    one, same, other = (variants.to_published(variants.create(TINY, seed=seed)) for seed in (3, 3, 4))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["image_encoder.neck.0.weight"], other["image_encoder.neck.0.weight"])


def test_creating_a_model_leaves_torchs_random_state_alone():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    variants.create(TINY, seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_new_model_is_in_evaluation_mode_and_has_the_published_parts():
    model = variants.create(TINY)
    assert not model.training
    assert model.input_size == 256
    assert [name for name, _ in model.named_children()] == ["image_encoder", "mask_decoder", "prompt_encoder"]


@pytest.mark.parametrize("name", [spec.name for spec in built_in() if spec.name.endswith("_tiny")])
def test_the_registered_parameter_count_is_that_of_the_model(name):
    counted = sum(parameter.numel() for parameter in variants.create(name).parameters())
    assert counted == variants.spec(name).params


@pytest.mark.parametrize("patch_stride", [1, 2, 4])
def test_every_patch_stride_gives_the_embedding_grid(patch_stride):
    model = variants.create(TINY, patch_stride=patch_stride, widths=[8, 16, 24, 32])
    with torch.inference_mode():
        assert model.encode(torch.zeros(1, 3, 256, 256)).image.shape == (1, 64, 64, 64)


@pytest.mark.parametrize("mode_when_loading", [True, False], ids=["train", "eval"])
def test_weights_loaded_in_either_mode_give_the_same_embedding(mode_when_loading):
    source = variants.create(TINY, seed=1)
    for name, parameter in source.named_parameters():
        if name.endswith("attention_biases"):
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    image = published.inputs().image
    target = variants.create(TINY, seed=2).train(mode_when_loading)
    target.load_state_dict(source.state_dict())
    with torch.inference_mode():
        expected, got = source.encode(image).image, target.eval().encode(image).image
    assert torch.equal(expected, got)


def test_a_fresh_model_learns_a_box_in_a_few_steps():
    model = variants.create(TINY, depths=[1, 1, 1, 1], windows=[7, 7, 7], patch_stride=4).train()
    image, boxes = published.inputs().image, published.inputs().boxes[:1]
    truth = torch.zeros(1, 1, 256, 256)
    truth[..., 60:200, 40:180] = 1
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(8):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(image, boxes)[0], truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_every_parameter_gets_a_gradient_but_those_of_unused_prompts():
    model = variants.create(TINY).train()
    prompts = published.inputs()
    logits, iou = model.decode(model.encode(prompts.image), prompts.boxes[:1], multimask=True)
    single, single_iou = model.decode(model.encode(prompts.image), prompts.boxes[:1])
    (logits.mean() + iou.sum() + single.mean() + single_iou.sum()).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert {name.split(".")[0] for name in without} == {"prompt_encoder"}
    assert all(
        ".mask_downscaling." in n or "point_embeddings.0" in n or "point_embeddings.1" in n or "not_a_point" in n
        for n in without
    )


def test_initial_weights_do_not_depend_on_the_number_of_threads() -> None:
    import torch

    import variants

    before = torch.get_num_threads()
    drawn = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            drawn.append(variants.to_published(variants.create("litemedsam_tiny", seed=5)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(value, drawn[1][key]) for key, value in drawn[0].items())
