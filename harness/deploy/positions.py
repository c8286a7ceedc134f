"""The encoding of coordinates, taken out of a decoder that computes in bfloat16.

A box is encoded as sines and cosines of angles of many turns (Kirillov et al. 2023, section 3).  In bfloat16, eight
significant bits, such an angle is off by half a pixel and more.  OpenVINO's hint of a precision holds for a whole
model, so these few operators become a model of their own, which is computed in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def cut_out(decoder: Any) -> Any:
    """Take the encodings of coordinates out of a decoder, in place.

    Args:
        decoder: OpenVINO model with the inputs ``boxes`` and, where it takes them, ``points``.  It gets an input
            ``positions0`` (N,P,C) for the encoding of the first, and so on.

    Returns:
        The model of what was cut out, with the outputs of these names; ``None`` if nothing encodes coordinates.
    """
    import openvino
    import openvino.opset13 as ops

    encodings = [op for op in decoder.get_ordered_ops() if _encodes(op)]
    if not encodings:
        return None
    sources = {node.get_friendly_name(): node for op in encodings for node in _parameters(op)}
    own = openvino.Model([op.output(0) for op in encodings], list(sources.values()), "positions").clone()
    for number, op in enumerate(encodings):
        name = f"positions{number}"
        own.output(number).set_names({name})
        taken = ops.parameter(op.get_output_partial_shape(0), op.get_output_element_type(0), name=name)
        taken.output(0).set_names({name})
        op.output(0).replace(taken.output(0))
        decoder.add_parameters([taken])
    decoder.validate_nodes_and_infer_types()
    return own


def _encodes(op: Any) -> bool:
    """Whether an operator joins sines and cosines of what is given at inference."""
    if op.get_type_name() != "Concat":
        return False
    kinds = {value.get_node().get_type_name() for value in op.input_values()}
    return kinds == {"Sin", "Cos"} and any(True for _ in _parameters(op))


def _parameters(op: Any) -> Iterator[Any]:
    """Inputs of the model that an operator depends on."""
    pending, seen = [op], set()
    while pending:
        node = pending.pop()
        if node.get_friendly_name() in seen:
            continue
        seen.add(node.get_friendly_name())
        if node.get_type_name() == "Parameter":
            yield node
        pending += [value.get_node() for value in node.input_values()]
