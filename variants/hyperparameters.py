"""Hyperparameters in the types they have, and the rules that several families share; torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping

from variants.errors import VariantError
from variants.registry import Hyperparameter

SAM: dict[str, Hyperparameter] = {
    "decoder_depth": 2,
    "decoder_mlp_dim": 2048,
    "decoder_heads": 8,
    "iou_head_depth": 3,
    "embed_dim": 256,
    "pe_scale": 1.0,
}
"""Prompt encoder and mask decoder as published with SAM (Kirillov et al. 2023, appendix A); see `variants.sam.build`.

decoder_depth, decoder_mlp_dim, decoder_heads: blocks of the two-way transformer, hidden width of their MLP, attention
heads; iou_head_depth: linear layers of the head that predicts the IoU; embed_dim: channels of the embedding and the
tokens; pe_scale: frequencies of a fresh positional encoding, where lower ones make a box easier to learn from scratch
(loaded weights bring their own).
"""


def integer(values: Mapping[str, Hyperparameter], key: str) -> int:
    """The hyperparameter `key`, known to be an integer."""
    value = values[key]
    assert isinstance(value, int)
    return value


def integers(values: Mapping[str, Hyperparameter], key: str) -> tuple[int, ...]:
    """The hyperparameter `key`, known to be a list of integers."""
    value = values[key]
    assert isinstance(value, tuple)
    return value


def number(values: Mapping[str, Hyperparameter], key: str) -> float:
    """The hyperparameter `key`, known to be a number."""
    value = values[key]
    assert isinstance(value, float)
    return value


def plain(value: Hyperparameter) -> object:
    """The value as a suite writes it: lists, not tuples."""
    return list(value) if isinstance(value, tuple) else value


def check_positive(values: Mapping[str, Hyperparameter]) -> None:
    """Raise `VariantError` where an integer, alone or in a list, is below 1; true and false are no integers."""
    for key, value in values.items():
        several = value if isinstance(value, tuple) else (value,)
        if any(isinstance(one, int) and not isinstance(one, bool) and one < 1 for one in several):
            raise VariantError(f"{key} must be at least 1 everywhere, not {plain(value)}")


def check_one_of(values: Mapping[str, Hyperparameter], key: str, known: tuple[int, ...]) -> None:
    """Raise `VariantError` where a hyperparameter is none of the values that the code knows."""
    if values[key] not in known:
        *others, last = map(str, known)
        raise VariantError(f"{key} must be {', '.join(others)} or {last}, not {values[key]}")


def check_sam(values: Mapping[str, Hyperparameter]) -> None:
    """Raise `VariantError` where the hyperparameters of prompt encoder and mask decoder, those of `SAM`, do not fit."""
    check_positive({key: values[key] for key in SAM})
    embed_dim, heads, pe_scale = (
        integer(values, "embed_dim"),
        integer(values, "decoder_heads"),
        number(values, "pe_scale"),
    )
    if embed_dim % 8:
        raise VariantError(f"embed_dim must be a multiple of 8, not {embed_dim}")
    if (embed_dim // 2) % heads:
        raise VariantError(
            f"decoder_heads must divide half of embed_dim, the width of cross-attention: {heads} does not divide "
            f"{embed_dim // 2}"
        )
    if not 0 < pe_scale < math.inf:
        raise VariantError(f"pe_scale must be greater than 0, not {pe_scale}")
