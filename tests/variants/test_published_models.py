"""The published models: same names, same sizes, same outputs as the official code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import variants
from tests.variants import published

PARAMETERS = {
    "litemedsam": 9_791_300,
    "swiftmedsam_v1": 6_996_636,
    "swiftmedsam_v2": 5_942_388,
    "swin_litemedsam": 36_767_846,
    "rep_medsam": 10_570_092,
    "efficientvit_sam_l0": 34_792_784,
    "medsam_vit_b": 93_735_472,
}
NOISY = 1e-3
"""Rep-MedSAM's filled encoder has large inner values: its noise between numbers of threads is 1.4e-4."""
GOLDENS = {name: (name, False) for name in PARAMETERS} | {"rep_medsam_fused": ("rep_medsam", True)}


@dataclass
class Loaded:
    """A published model with its golden outputs, the image encoded once."""

    name: str
    model: torch.nn.Module
    goldens: dict[str, np.ndarray]
    tolerance: float
    inputs: published.Inputs
    embedding: variants.Embedding

    @property
    def swin(self) -> bool:
        return self.name == "swin_litemedsam"

    def decode(self, boxes: torch.Tensor, **prompts) -> tuple[np.ndarray, np.ndarray]:
        if self.swin and not prompts.pop("box_only", False):
            prompts = {"points": self.inputs.points, "scribble": self.inputs.scribble} | prompts
        with torch.inference_mode():
            logits, iou = self.model.decode(self.embedding, boxes, **prompts)
        return logits.numpy(), iou.numpy()

    def assert_equal(self, got: np.ndarray | torch.Tensor, golden: str) -> None:
        got = got.detach().numpy() if isinstance(got, torch.Tensor) else got
        np.testing.assert_allclose(got, self.goldens[golden], rtol=0, atol=self.tolerance, err_msg=golden)


def load(golden: str, folder) -> Loaded:
    name, fused = GOLDENS[golden]
    path = folder / f"{name}.pth"
    torch.save(published.state_dict(name), path)
    model = variants.load_published(name, path)
    if fused:
        model = variants.fuse(model)
    inputs = published.inputs(model.input_size)
    with torch.inference_mode():
        embedding = model.encode(inputs.image)
    file = "rep_medsam_fused" if fused else published.FILES[name]
    tolerance = NOISY if name == "rep_medsam" else 1e-4
    return Loaded(name, model, published.goldens(file), tolerance, inputs, embedding)


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=pytest.mark.slow) if n == "medsam_vit_b" else n for n in GOLDENS],
)
def loaded(request, tmp_path_factory):
    return load(request.param, tmp_path_factory.mktemp("published"))


def test_the_published_model_gives_the_official_outputs(loaded):
    assert_the_embedding_is_official(loaded)
    assert_the_prompt_encodings_are_official(loaded)
    assert_one_box_gives_the_official_mask(loaded)
    assert_multimask_gives_the_three_official_alternatives(loaded)
    if not loaded.swin:  # the official Swin-LiteMedSAM takes one box a call
        assert_three_boxes_at_once_give_the_official_masks(loaded)


def assert_the_embedding_is_official(loaded: Loaded) -> None:
    image = loaded.embedding.image.numpy()
    assert image.shape == (1, 256, 64, 64)
    loaded.assert_equal(image[:, ::8, ::4, ::4], "image_embedding_sample")
    loaded.assert_equal(image.mean((0, 2, 3)), "image_embedding_channel_mean")
    loaded.assert_equal(image.std((0, 2, 3)), "image_embedding_channel_std")
    for number, skip in enumerate(loaded.embedding.skips):
        loaded.assert_equal(skip[:, ::16, ::8, ::8], f"skip{number}_sample")


def assert_the_prompt_encodings_are_official(loaded: Loaded) -> None:
    encoder, inputs = loaded.model.prompt_encoder, loaded.inputs
    given = (inputs.points, inputs.scribble) if loaded.swin else (None, None)
    with torch.inference_mode():
        tokens, dense = encoder(inputs.boxes[:1], *given)
        positions = encoder.dense_positions()
    loaded.assert_equal(tokens, "sparse_embeddings")
    loaded.assert_equal(dense.expand(1, 256, 64, 64)[:, ::8, ::4, ::4], "dense_embeddings_sample")
    loaded.assert_equal(positions[:, ::8, ::4, ::4], "image_pe_sample")


def assert_one_box_gives_the_official_mask(loaded: Loaded) -> None:
    logits, iou = loaded.decode(loaded.inputs.boxes[:1])
    loaded.assert_equal(logits, "low_res_logits")
    loaded.assert_equal(iou, "iou_pred")


def assert_multimask_gives_the_three_official_alternatives(loaded: Loaded) -> None:
    logits, iou = loaded.decode(loaded.inputs.boxes[:1], multimask=True)
    loaded.assert_equal(logits[..., ::4, ::4], "multimask_logits_sample")
    loaded.assert_equal(iou, "multimask_iou_pred")


def assert_three_boxes_at_once_give_the_official_masks(loaded: Loaded) -> None:
    logits, iou = loaded.decode(loaded.inputs.boxes)
    loaded.assert_equal(logits[..., ::4, ::4], "multibox_low_res_logits_sample")
    loaded.assert_equal(iou, "multibox_iou_pred")


def test_several_boxes_in_one_call_give_what_one_box_a_call_gives(loaded):
    together, iou = loaded.decode(loaded.inputs.boxes, **({"box_only": True} if loaded.swin else {}))
    for place in range(3):
        box = loaded.inputs.boxes[place : place + 1]
        alone, iou_alone = loaded.decode(box, **({"box_only": True} if loaded.swin else {}))
        np.testing.assert_allclose(together[place], alone[0], rtol=0, atol=loaded.tolerance)
        np.testing.assert_allclose(iou[place], iou_alone[0], rtol=0, atol=loaded.tolerance)


@pytest.mark.parametrize("name", PARAMETERS)
def test_names_order_shapes_types_and_parameters_are_the_published_ones(name):
    model = variants.create(name)
    ours = {k: (tuple(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in model.state_dict().items()}
    assert list(ours.items()) == list(published.manifest(name).items())
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted == variants.spec(name).params == PARAMETERS[name]


@pytest.mark.parametrize("name", [name for name in PARAMETERS if name != "swin_litemedsam"])
def test_points_and_scribble_are_encoded_alike_by_every_family(name):
    model = variants.create(name)
    state = {k: v for k, v in published.state_dict("litemedsam").items() if k.startswith("prompt_encoder.")}
    model.prompt_encoder.load_state_dict({k.removeprefix("prompt_encoder."): v for k, v in state.items()})
    scale = model.input_size / 256
    inputs, golden = published.inputs(), published.goldens("prompts")
    with torch.inference_mode():
        # Pixel centres lie half a pixel in, so a point of a larger input is not simply scaled.
        points, boxes = ((p + 0.5) * scale - 0.5 for p in (inputs.points, inputs.boxes[:1]))
        tokens, dense = model.prompt_encoder(boxes, points, inputs.scribble)
    np.testing.assert_allclose(tokens.numpy(), golden["sparse_embeddings"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(dense[:, ::8, ::4, ::4].numpy(), golden["dense_embeddings_sample"], rtol=0, atol=1e-4)
