"""What a call executes and holds: parameters never executed, activation peak, and a second counter of multiply-adds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import variants
from harness.measure.complexity import execution, job
from harness.measure.complexity.inputs import example
from harness.schema import PARTS
from tests.harness.measure.support import complexity_of
from variants import Embedding, VariantError


def test_the_two_counters_differ_by_normalisation_and_by_digits_of_einsum_alone(tmp_path: Path) -> None:
    found = complexity_of("swin_litemedsam_tiny", tmp_path)
    for phase in (None, *PARTS):
        detail = json.loads(found["flops_cross_check", phase].detail)
        assert found["flops_cross_check", phase].value == detail["flops"] / 2
        assert detail["unexplained"] == 0
        assert detail["fvcore_minus_this"] == detail["normalisation"] + detail["einsum_rounding"]


def test_the_prompt_modules_of_swin_litemedsam_are_never_executed(tmp_path: Path) -> None:
    model = variants.create("swin_litemedsam")
    records = {r.phase: r for r in job.execution_records(model) if r.metric == "params_unused"}
    assert records[None].value == records["mask_decoder"].value == 21_129_002
    detail = json.loads(records[None].detail)
    assert detail["never"] == {"mask_decoder.prompt1": 10_633_861, "mask_decoder.prompt2": 10_495_141}
    assert detail["not_with_one_box"] > 0


def test_the_activation_peak_is_that_of_a_call_that_computes() -> None:
    model = variants.create("litemedsam_tiny").requires_grad_(False)
    watch = execution._Watch(execution._storages(model))
    with torch.no_grad(), watch:
        execution._Call(model)(example(model), multimask=False)
    promised = execution.execution(model).activation_peak[None]
    # Kernels differ in the few floats of statistics that normalisation gives back.
    assert promised == pytest.approx(watch.peaks[None], rel=1e-3)


class Encoder(nn.Module):
    """Holds at most the image, one map of four channels and one of two at once."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 4, 1, bias=False)
        self.narrow = nn.Conv2d(4, 2, 1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        x = self.wide(image)
        x = self.narrow(x)
        return x[:, :, ::4, ::4].contiguous()


class Prompts(nn.Module):
    grid = 4

    def __init__(self) -> None:
        super().__init__()
        self.kinds = nn.ModuleList(nn.Embedding(1, 5) for _ in range(3))
        self.point = nn.Parameter(torch.zeros(7))
        self.scribble = nn.Conv2d(1, 1, 1)

    def forward(self, boxes: Tensor | None, points: Tensor | None, scribble: Tensor | None) -> Tensor:
        total = self.kinds[1].weight.sum()
        if boxes is None:
            total = total + self.point.sum()
        if scribble is not None:
            raise VariantError("this model takes no scribble")
        return total


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.single = nn.Linear(2, 1)
        self.several = nn.Linear(2, 3)
        self.forgotten = nn.Linear(10, 10)

    def forward(self, pooled: Tensor, multimask: bool) -> Tensor:
        return self.several(pooled) if multimask else self.single(pooled)


class Toy(nn.Module):
    """A model small enough to count by hand."""

    input_size = 16

    def __init__(self) -> None:
        super().__init__()
        self.image_encoder, self.prompt_encoder, self.mask_decoder = Encoder(), Prompts(), Decoder()

    def encode(self, image: Tensor) -> Embedding:
        return Embedding(self.image_encoder(image))

    def decode(self, emb: Embedding, boxes: Tensor | None, points=None, scribble=None, multimask=False):
        prompt = self.prompt_encoder(boxes, points, scribble)
        masks = self.mask_decoder(emb.image.mean((2, 3)) + prompt, multimask)
        return masks, masks


def test_a_parameter_is_unused_only_if_no_call_of_the_interface_reads_it() -> None:
    seen = execution.execution(Toy())
    assert seen.never == {"mask_decoder.forgotten": 110, "prompt_encoder.scribble": 2}
    assert seen.not_with_one_box == 7 + 9  # the vector of a missing box, the layer of three masks


def test_the_peak_counts_what_is_alive_at_once_and_no_weights() -> None:
    peaks = execution.execution(Toy()).activation_peak
    pixels = 16 * 16 * 4
    assert peaks["image_encoder"] == (3 + 4 + 2) * pixels + 16  # image, two maps, and the box beside them
    assert peaks["mask_decoder"] < peaks[None] == peaks["image_encoder"]


def test_a_model_is_left_as_it_was() -> None:
    model = Toy().train()
    before = {name: (p.device, p.requires_grad, id(p)) for name, p in model.named_parameters()}
    execution.execution(model)
    assert model.training
    assert {name: (p.device, p.requires_grad, id(p)) for name, p in model.named_parameters()} == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_model_whose_flow_depends_on_values_says_so() -> None:
    class Moody(Toy):
        def encode(self, image: Tensor) -> Embedding:
            return super().encode(image if image.sum() > 0 else image + 1)

    records = {(r.metric, r.phase): r for r in job.execution_records(Moody())}
    for metric in ("params_unused", "activation_peak", "flops_cross_check"):
        assert records[metric, None].status == "crashed"
        assert "the model cannot be run on shapes alone: DataDependent" in records[metric, None].reason
