"""What `encode` and `decode` promise, on the smallest model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import variants
from tests.variants import published

BOXES = published.inputs().boxes


@pytest.fixture(scope="module")
def model():
    return variants.create("litemedsam_tiny")


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 256, 256, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def embedding(model, images):
    with torch.inference_mode():
        return model.encode(images)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.inference_mode():
        yield


def test_prompts_of_different_images_in_one_call_equal_one_image_at_a_time(model, images, embedding):
    index = torch.tensor([2, 0, 2])
    logits, iou = model.decode(embedding, BOXES, image_index=index)
    for i, image in enumerate(index):
        alone, alone_iou = model.decode(model.encode(images[image : image + 1]), BOXES[i : i + 1])
        torch.testing.assert_close(logits[i : i + 1], alone, rtol=0, atol=1e-4)
        torch.testing.assert_close(iou[i : i + 1], alone_iou, rtol=0, atol=1e-4)


def test_without_image_index_every_prompt_belongs_to_image_0(model, embedding):
    logits, _ = model.decode(embedding, BOXES)
    expected, _ = model.decode(embedding, BOXES, image_index=torch.zeros(3, dtype=torch.int64))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_forward_is_encode_and_decode(model, images, embedding):
    logits, _ = model(images[:1], BOXES)
    torch.testing.assert_close(logits, model.decode(embedding, BOXES)[0], rtol=0, atol=1e-4)


def test_an_embedding_is_indexed_by_image(embedding):
    assert len(embedding) == 3
    assert embedding[1].image.shape == (1, 64, 64, 64)
    assert torch.equal(embedding[-1].image, embedding.image[2:])
    assert torch.equal(embedding[[2, 0]].image, embedding.image[[2, 0]])
    assert len(embedding[1:]) == 2
    assert embedding.nbytes == 3 * 64 * 64 * 64 * 4 == 3 * embedding[0].nbytes
    with pytest.raises(IndexError, match="image 3 of an embedding of 3"):
        embedding[3]


def test_every_prompt_changes_the_masks(model, embedding):
    prompts = published.inputs()
    one = BOXES[:1]
    plain, _ = model.decode(embedding, one)
    for more in ({"points": prompts.points}, {"scribble": prompts.scribble}):
        logits, iou = model.decode(embedding, one, **more)
        assert logits.shape == (1, 1, 256, 256)
        assert iou.shape == (1, 1)
        assert not torch.equal(logits, plain)


def test_an_empty_scribble_is_not_the_same_as_none(model, embedding):
    empty, _ = model.decode(embedding, BOXES[:1], scribble=torch.zeros(1, 1, 256, 256))
    assert not torch.equal(empty, model.decode(embedding, BOXES[:1])[0])


def test_points_work_without_a_box(model, embedding):
    logits, _ = model.decode(embedding, None, points=published.inputs().points)
    assert logits.shape == (1, 1, 256, 256)


def test_multimask_gives_three_masks_a_prompt(model, embedding):
    logits, iou = model.decode(embedding, BOXES, multimask=True)
    assert logits.shape == (3, 3, 256, 256)
    assert iou.shape == (3, 3)


def test_no_prompt_gives_no_mask(model, embedding):
    logits, iou = model.decode(embedding, torch.zeros(0, 4))
    assert logits.shape == (0, 1, 256, 256)
    assert iou.shape == (0, 1)


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ({"boxes": torch.zeros(2, 1, 4)}, r"boxes must be \(N, 4\)"),
        ({"boxes": None}, "needs boxes or points"),
        ({"boxes": BOXES, "points": torch.zeros(1, 4, 2)}, r"points must be \(N, P, 2\) with N = 3"),
        ({"boxes": BOXES[:1], "scribble": torch.zeros(1, 1, 64, 64)}, r"scribble must be \(N, 1, 256, 256\)"),
        ({"boxes": BOXES, "image_index": torch.zeros(2, dtype=torch.int64)}, r"image_index must be \(N,\)"),
    ],
)
def test_prompts_of_a_wrong_shape_are_refused_with_the_shape_wanted(model, embedding, prompts, said):
    with pytest.raises(variants.VariantError, match=said):
        model.decode(embedding, **prompts)


def test_images_of_a_wrong_shape_are_refused(model):
    with pytest.raises(variants.VariantError, match=r"images must be \(B, 3, 256, 256\), not \(1, 3, 128, 256\)"):
        model.encode(torch.zeros(1, 3, 128, 256))


def test_channels_last_gives_the_same_masks(images, embedding):
    laid_out = variants.create("litemedsam_tiny").to(memory_format=torch.channels_last)
    image = laid_out.encode(images.to(memory_format=torch.channels_last)).image
    torch.testing.assert_close(image, embedding.image, rtol=0, atol=1e-4)


def test_an_embedding_is_indexed_by_arrays_and_tensors_as_by_numbers(embedding):
    for index in (torch.tensor(1), np.int64(1)):
        assert torch.equal(embedding[index].image, embedding[1].image)
    for several in (torch.tensor([2, 0]), np.array([2, 0])):
        assert torch.equal(embedding[several].image, embedding[[2, 0]].image)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.float16])
def test_boxes_and_points_of_any_number_type_give_the_same_masks(model, embedding, dtype):
    points = published.inputs().points
    expected, _ = model.decode(embedding, BOXES[:1], points=points)
    got, _ = model.decode(embedding, BOXES[:1].to(dtype), points=points.to(dtype))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_a_scribble_of_the_inputs_size_is_reduced_to_the_masks_size():
    teacher = variants.create("medsam_vit_tiny")
    side = 4 * teacher.prompt_encoder.grid
    teacher.input_size = 2 * side  # what a scribble is drawn at; the image plays no part here
    embedding = variants.Embedding(torch.rand(1, 64, side // 4, side // 4))
    small, large = torch.zeros(1, 1, side, side), torch.zeros(1, 1, 2 * side, 2 * side)
    small[..., 100, 40:90] = 1
    large[..., 201, 80:180] = 1  # one pixel wide
    expected, _ = teacher.decode(embedding, BOXES[:1], scribble=small)
    got, _ = teacher.decode(embedding, BOXES[:1], scribble=large)
    torch.testing.assert_close(got, expected)


def test_boxes_keep_their_place_in_half_precision(model):
    boxes = torch.tensor([[200.0, 210, 201, 240]])
    exact, _ = model.prompt_encoder(boxes, None, None)
    with torch.autocast("cpu", torch.bfloat16):
        rough, _ = model.prompt_encoder(boxes, None, None)
    torch.testing.assert_close(rough.float(), exact, rtol=0, atol=1e-5)
