"""Checkpoints in the layout the papers publish: read safely, load strictly.

Accepted are a plain state dict, the wrappers `{"model": …}` and `{"state_dict": …}` of training scripts, the prefix
`module.` of data-parallel training, and `.safetensors`.  Nothing in a file is ever executed: pickles are read with
torch's weights-only reader, which refuses everything but tensors and plain containers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from variants.errors import VariantError

WRAPPERS = ("model", "state_dict")
PREFIX = "module."


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file by name, wrapper and prefix taken off, on the CPU.

    Raises:
        VariantError: if the file is missing, damaged, holds more than tensors, or holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise VariantError(f"checkpoint {path} does not exist or is not a file")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    state = _unwrap(path, content)
    if all(key.startswith(PREFIX) for key in state):
        state = {key.removeprefix(PREFIX): value for key, value in state.items()}
    return state


def load_into(model: nn.Module, path: str | Path, name: str) -> None:
    """Load a checkpoint file into a model: every name, shape and kind of number must fit, or nothing is loaded.

    Args:
        model: takes the weights.
        path: of the checkpoint.
        name: of the variant, for the message.

    Raises:
        VariantError: as `read_state_dict`, or naming the first key of each kind that does not fit.
    """
    state = read_state_dict(path)
    expected = model.state_dict()
    problems = _differences(state, expected)
    if problems:
        raise VariantError(f"checkpoint {path} does not fit variant {name!r}: {'; '.join(problems)}")
    model.load_state_dict(state, strict=True)


def _differences(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """What keeps `state` from being loaded as `expected`: at most one phrase for each kind of difference."""
    problems = []
    for title, keys in (
        ("missing", [key for key in expected if key not in state]),
        ("unexpected", [key for key in state if key not in expected]),
    ):
        if keys:
            problems.append(f"{len(keys)} {title} key{'s' * (len(keys) > 1)}, first {keys[0]!r}")
    shared = [key for key in expected if key in state]
    shapes = [key for key in shared if state[key].shape != expected[key].shape]
    if shapes:
        key = shapes[0]
        got, wanted = tuple(state[key].shape), tuple(expected[key].shape)
        problems.append(f"{len(shapes)} of another shape, first {key!r}: {got} instead of {wanted}")
    kinds = [key for key in shared if state[key].is_floating_point() != expected[key].is_floating_point()]
    if kinds:
        key = kinds[0]
        problems.append(f"{len(kinds)} of another type, first {key!r}: {state[key].dtype}, not {expected[key].dtype}")
    return problems


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise VariantError(f"checkpoint {path} is damaged or not a safetensors file: {_first_line(error)}") from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # Damaged files raise whatever the reader stumbles over; every failure of this one call is the file's.
    except Exception as error:
        if "weights" in str(error).lower() and "only" in str(error).lower():
            raise VariantError(
                f"checkpoint {path} holds objects other than tensors and is not loaded, because that could run code; "
                "save its state_dict alone"
            ) from error
        raise VariantError(f"checkpoint {path} is damaged or not a torch file: {_first_line(error)}") from error


def _unwrap(path: Path, content: Any) -> dict[str, Tensor]:
    """The state dict in `content`, which may be wrapped once."""
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not content:
        raise VariantError(f"checkpoint {path} holds no state dict: expected names and tensors, or 'model' with them")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise VariantError(
                f"checkpoint {path} holds no state dict: {key!r} is {type(value).__name__}, not a tensor"
            )
    return dict(content)


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
