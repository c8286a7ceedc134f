"""Rep-MedSAM, fused too, and MedSAM as exported programs, with any number of images and of prompts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import variants

pytestmark = pytest.mark.slow


class Encode(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model.encode(image).image


class Decode(Encode):
    def forward(self, embedding: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.decode(variants.Embedding(embedding), boxes)


@pytest.mark.parametrize("name", ["rep_medsam_tiny", "rep_medsam_tiny fused", "medsam_vit_tiny"])
def test_the_exported_program_gives_the_same_for_every_number_of_images_and_prompts(name):
    model = variants.create(name.split()[0])
    if "fused" in name:
        model = variants.fuse(model)
    first = {0: torch.export.Dim.DYNAMIC}
    with torch.inference_mode():
        embedding = model.encode(torch.rand(1, 3, 256, 256)).image
    encode = torch.export.export(Encode(model), (torch.rand(2, 3, 256, 256),), dynamic_shapes=(first,)).module()
    decode = torch.export.export(
        Decode(model), (embedding.clone(), 256 * torch.rand(3, 4)), dynamic_shapes=(None, first)
    ).module()
    with torch.no_grad():
        for images in (1, 3):
            batch = torch.rand(images, 3, 256, 256)
            torch.testing.assert_close(encode(batch), model.encode(batch).image, rtol=0, atol=1e-5)
        for prompts in (1, 3, 17):
            boxes = 256 * torch.rand(prompts, 4)
            expected = model.decode(variants.Embedding(embedding), boxes)
            torch.testing.assert_close(decode(embedding, boxes), expected, rtol=0, atol=1e-5)
