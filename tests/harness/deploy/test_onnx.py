"""Deployments on onnxruntime: exported once, quantised and optimised ahead, equal to torch where nothing is rounded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from harness.deploy import onnx, quantise
from harness.inference.ort_session import open_graph
from tests.harness.deploy.support import Exported, Ready, agreement, samples, toy


def test_fp32_agrees_with_torch_and_takes_any_number_of_images_and_prompts(ready: Callable[..., Ready]) -> None:
    made = ready(backend="onnxruntime")
    assert made.made.files == {"encoder": "encoder.onnx", "decoder": "decoder.onnx"}
    assert made.made.facts["batch"] == "any"
    assert made.made.facts["checked"] == {"encoder": [1, 3, 17], "decoder": [1, 3, 17]}
    assert made.made.facts["file_size"] == sum(path.stat().st_size for path in made.folder.iterdir())
    assert agreement(made.session(), toy()) >= 0.9999


def test_the_graph_is_optimised_ahead_and_computes_what_optimising_while_loading_would(
    exported: Exported, ready: Callable[..., Ready]
) -> None:
    made = ready(backend="onnxruntime")
    image = {"image": samples()[0].image}
    ahead = open_graph(made.folder / "encoder.onnx", 1)
    loading = open_graph(exported.folder / "encoder.onnx", 1, optimise=True)
    np.testing.assert_array_equal(ahead.run(None, image)[0], loading.run(None, image)[0])
    import onnx as library

    kinds = {node.op_type for node in library.load(str(made.folder / "decoder.onnx")).graph.node}
    assert kinds - {node.op_type for node in library.load(str(exported.folder / "decoder.onnx")).graph.node}


def test_dynamic_int8_reaches_linear_layers_and_convolutions_and_says_so(ready: Callable[..., Ready]) -> None:
    made = ready(backend="onnxruntime", precision="int8")
    reached = made.made.facts["quantised"]
    assert reached["layers_by_part"]["image_encoder"] == {"quantised": 2, "of": 2}
    assert reached["share_by_part"]["image_encoder"] == 1.0
    # the two transposed convolutions stay, and so do products of attention
    own = reached["layers_by_part"]["mask_decoder"]
    assert own["of"] - own["quantised"] == 2
    assert 0.2 < reached["share_by_part"]["mask_decoder"] < 1
    assert agreement(made.session(), toy()) > 0.8


def test_static_int8_is_what_the_optimised_graph_computes_in_int8(ready: Callable[..., Ready]) -> None:
    made = ready(backend="onnxruntime", precision="int8", quantisation="static")
    reached = made.made.facts["quantised"]
    assert reached["layers_by_part"]["image_encoder"] == {"quantised": 2, "of": 2}
    assert "static" in reached["scheme"]
    assert agreement(made.session(), toy()) > 0.8


def test_coordinates_are_not_quantised(exported: Exported) -> None:
    """Eight bits of a coordinate would be whole pixels."""
    import onnx as library

    graph = library.load(str(exported.folder / "decoder.onnx")).graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    kept = set(quantise.excluded(exported.folder / "decoder.onnx"))
    coordinates = [n.name for n in graph.node if n.op_type == "MatMul" and weights.get(n.input[1]) == (2, 8)]
    assert coordinates
    assert set(coordinates) <= kept


def test_a_renamed_quantised_node_is_an_error_and_not_a_wrong_fact(exported: Exported, tmp_path) -> None:
    import onnx as library

    from harness.errors import BenchError

    model = library.load(str(exported.folder / "encoder.onnx"))
    node = model.graph.node[0]
    node.op_type, node.name = "QLinearConv", "something else"
    library.save(model, str(tmp_path / "encoder.onnx"))
    with pytest.raises(BenchError, match=r"encoder\.onnx: this onnxruntime renames quantised nodes"):
        quantise.statically_quantised(exported.folder / "encoder.onnx", tmp_path / "encoder.onnx")


def test_the_exported_axes_have_names(exported: Exported) -> None:
    assert [i.shape for i in open_graph(exported.folder / "encoder.onnx", 1).get_inputs()] == [["B", 3, 64, 64]]
    shapes = {i.name: i.shape for i in open_graph(exported.folder / "decoder.onnx", 1).get_inputs()}
    assert shapes == {"image_embedding": [1, 16, 16, 16], "boxes": ["N", 4]}


def test_modules_are_named_with_the_command_that_installs_them() -> None:
    from harness.errors import UnavailableError

    with pytest.raises(UnavailableError, match="nowhere_to_be_found is not installed; `pip install it`"):
        onnx.need("numpy", "nowhere_to_be_found", install="it")
