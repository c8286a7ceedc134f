"""What a quantisation reached is counted, not assumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import variants
from harness.deploy.export import graphs
from harness.deploy.reach import Product, of_torch, summary
from harness.deploy.torch_backend import quantisation_facts
from tests.harness.deploy.support import SPEC, deploy, toy


def test_shares_are_of_multiply_adds_and_layers_are_those_with_weights() -> None:
    told = summary(
        [
            Product("image_encoder", 70, layer=True, quantised=False),
            Product("mask_decoder", 20, layer=True, quantised=True),
            Product("mask_decoder", 10, layer=False, quantised=False),
        ]
    )
    assert (told["layers"], told["layers_of"]) == (1, 2)
    assert told["layers_by_part"]["mask_decoder"] == {"quantised": 1, "of": 1}
    assert told["share"] == pytest.approx(0.2)
    assert told["share_by_part"] == {"image_encoder": 0.0, "mask_decoder": pytest.approx(2 / 3)}


def test_multiply_adds_of_a_layer_are_counted_by_hand() -> None:
    told = of_torch(graphs(toy(), SPEC), ())
    first, second = 16 * 16 * 16 * (3 * 4 * 4), 16 * 16 * 16 * (16 * 3 * 3)
    assert told["macs_by_part"]["image_encoder"] == first + second
    assert told["layers"] == 0


def test_dynamic_int8_reaches_all_linear_layers_and_no_convolution(tmp_path: Path) -> None:
    facts = deploy(toy(), tmp_path, precision="int8").made.facts
    linear = sum(isinstance(module, nn.Linear) for module in toy().modules())
    assert facts["quantised"]["layers"] == linear
    assert facts["quantised"]["layers_by_part"]["image_encoder"] == {"quantised": 0, "of": 2}
    assert "torch.ao" in facts["quantised"]["scheme"]


def test_the_dynamic_quantisation_of_grays_anatomy_reaches_47_decoder_layers_and_7_percent_of_the_work() -> None:
    """Its encoder has no linear layer, so the published 3 to 5 times cannot come from quantisation alone."""
    model, spec = variants.create("efficientvit_sam_l0"), variants.spec("efficientvit_sam_l0")
    facts = quantisation_facts(model, spec)
    reached = facts["quantised"]
    assert reached["layers"] == 47
    assert reached["layers_by_part"]["image_encoder"]["quantised"] == 0
    assert reached["layers_by_part"]["mask_decoder"]["quantised"] == 47
    assert reached["share"] == pytest.approx(0.0727, abs=5e-4)
    whole = sum(reached["macs_by_part"].values())
    assert whole == pytest.approx(18.76e9, rel=2e-3)  # the whole model's 18.804 G less what fvcore counts for norms
    assert facts["file_size"] / facts["file_size_fp32"] == pytest.approx(1 - 0.085, abs=1e-3)


@pytest.mark.parametrize("name", ["litemedsam_tiny", "swin_litemedsam_tiny"])
def test_the_parts_add_up_to_what_torch_counts_for_the_whole(name: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model, spec = variants.create(name), variants.spec(name)
    made = graphs(model, spec)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        for graph in made:
            graph.module(*graph.batch(1).values())
    assert sum(of_torch(made, ())["macs_by_part"].values()) == counter.get_total_flops() // 2
