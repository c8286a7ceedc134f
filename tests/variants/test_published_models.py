"""The published models: same names, same sizes, same outputs as the official code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import variants
from tests.variants import published

TOLERANCE = 1e-4


@dataclass
class Loaded:
    name: str
    model: torch.nn.Module
    goldens: dict[str, np.ndarray]
    embedding: variants.Embedding


@pytest.fixture(scope="module", params=list(published.FILES))
def loaded(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / f"{request.param}.pth"
    torch.save(published.state_dict(request.param), path)
    model = variants.load_published(request.param, path)
    with torch.inference_mode():
        embedding = model.encode(published.inputs().image)
    return Loaded(request.param, model, published.goldens(published.FILES[request.param]), embedding)


def decode(loaded, boxes, **prompts):
    with torch.inference_mode():
        logits, iou = loaded.model.decode(loaded.embedding, boxes, **prompts)
    return logits.numpy(), iou.numpy()


def assert_equal(got, golden):
    got = got.detach().numpy() if isinstance(got, torch.Tensor) else got
    np.testing.assert_allclose(got, golden, rtol=0, atol=TOLERANCE)


def test_names_order_shapes_and_types_are_the_published_ones(loaded):
    state = variants.to_published(loaded.model)
    ours = {key: (tuple(value.shape), str(value.dtype).removeprefix("torch.")) for key, value in state.items()}
    assert list(ours.items()) == list(published.manifest(loaded.name).items())


def test_parameter_count_is_the_registered_and_the_published_one(loaded):
    counts = {"litemedsam": 9_791_300, "swiftmedsam_v1": 6_996_636, "swiftmedsam_v2": 5_942_388}
    counted = sum(parameter.numel() for parameter in loaded.model.parameters())
    assert counted == variants.spec(loaded.name).params == counts[loaded.name]


def test_image_embedding_equals_the_official_one(loaded):
    image = loaded.embedding.image.numpy()
    assert image.shape == (1, 256, 64, 64)
    assert_equal(image[:, ::8, ::4, ::4], loaded.goldens["image_embedding_sample"])
    assert_equal(image.mean((0, 2, 3)), loaded.goldens["image_embedding_channel_mean"])
    assert_equal(image.std((0, 2, 3)), loaded.goldens["image_embedding_channel_std"])


def test_prompt_encodings_equal_the_official_ones(loaded):
    encoder = loaded.model.prompt_encoder
    with torch.inference_mode():
        tokens, constant = encoder(published.inputs().boxes[:1], None, None)
        dense = constant.expand(1, 256, 64, 64)
        positions = encoder.dense_positions()
    assert_equal(tokens, loaded.goldens["sparse_embeddings"])
    assert_equal(dense[:, ::8, ::4, ::4], loaded.goldens["dense_embeddings_sample"])
    assert_equal(positions[:, ::8, ::4, ::4], loaded.goldens["image_pe_sample"])


def test_one_box_gives_the_official_logits_and_iou(loaded):
    logits, iou = decode(loaded, published.inputs().boxes[:1])
    assert_equal(logits, loaded.goldens["low_res_logits"])
    assert_equal(iou, loaded.goldens["iou_pred"])


def test_three_boxes_at_once_give_the_official_logits_and_iou(loaded):
    logits, iou = decode(loaded, published.inputs().boxes)
    assert_equal(logits[..., ::4, ::4], loaded.goldens["multibox_low_res_logits_sample"])
    assert_equal(iou, loaded.goldens["multibox_iou_pred"])


def test_multimask_gives_the_three_official_alternatives(loaded):
    logits, iou = decode(loaded, published.inputs().boxes[:1], multimask=True)
    assert_equal(logits[..., ::4, ::4], loaded.goldens["multimask_logits_sample"])
    assert_equal(iou, loaded.goldens["multimask_iou_pred"])


def test_points_and_scribble_are_encoded_as_the_official_prompt_encoder_does(loaded):
    prompts = published.inputs()
    golden = published.goldens("prompts")
    with torch.inference_mode():
        tokens, dense = loaded.model.prompt_encoder(prompts.boxes[:1], prompts.points, prompts.scribble)
    assert_equal(tokens, golden["sparse_embeddings"])
    assert_equal(dense[:, ::8, ::4, ::4], golden["dense_embeddings_sample"])
