"""Checkpoints in the layout the papers publish: read safely, load strictly.

Accepted are a plain state dict, the wrappers of training scripts (`WRAPPERS`, also one inside another), prefixes that
all keys share (`PREFIXES`: data-parallel training, compiled modules, an outer module), and safetensors.  Half-precision
numbers become float32 with the same values.  Nothing in a file is ever executed: pickles are read with torch's
weights-only reader, which refuses everything but tensors and plain containers; a file named `.safetensors` is never
read as a pickle.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from variants.errors import VariantError

WRAPPERS = ("model", "state_dict", "model_state_dict", "net", "network", "module", "weights", "ema", "model_ema")
"""Where training scripts put the state dict; the first that a file has is taken."""
PREFIXES = ("module.", "_orig_mod.", "model.", "sam.", "net.")
"""Taken off where every key has one and the model's own keys have not."""
CONSTANTS = ("pixel_mean", "pixel_std")
"""Segment Anything's normalisation, which some files hold as buffers: no weights, no model here reads them."""
COUNTER = "num_batches_tracked"
"""Batch normalisation's counter of training steps: files of old torch versions lack it, inference never reads it."""
_DEPTH = 3


class _Numpy:
    """Stands for a numpy number or array beside the weights (a loss, a score): skipped, numpy itself is not called."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


_NUMPY = (
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
)
_REFUSED = ("unsupported global", "unsupported class", "torchscript", "legacy .tar")


def read_state_dict(path: str | Path, expected: Collection[str] = ()) -> dict[str, Tensor]:
    """The tensors of a checkpoint file by name, wrappers and prefixes taken off, on the CPU.

    Args:
        path: of the checkpoint.
        expected: the model's own keys: a prefix that all of them have stays on.

    Raises:
        VariantError: if the file is missing, damaged, holds more than tensors, or holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise VariantError(f"checkpoint {path} does not exist or is not a file")
    try:
        start = _start(path)
    except OSError as error:
        raise VariantError(f"checkpoint {path} cannot be read: {error.strerror or error}") from error
    content = _read_safetensors(path) if _is_safetensors(path, start) else _read_torch(path, start)
    return _without_prefixes(_unwrap(path, content), expected)


def load_into(model: nn.Module, path: str | Path, name: str) -> None:
    """Load a checkpoint file into a model: every name, shape and kind of number must fit, or nothing is loaded.

    Two differences that change no result are no mismatch: `CONSTANTS` beside the weights, and a missing `COUNTER`.

    Args:
        model: takes the weights.
        path: of the checkpoint.
        name: of the variant, for the message.

    Raises:
        VariantError: as `read_state_dict`, or naming the first key of each kind that does not fit.
    """
    expected = model.state_dict()
    state = read_state_dict(path, expected)
    state = {key: value for key, value in state.items() if key in expected or key not in CONSTANTS}
    state |= {k: v for k, v in expected.items() if k not in state and k.rpartition(".")[2] == COUNTER and len(state)}
    problems = _differences(state, expected)
    if problems:
        hint = _hint(state, expected)
        raise VariantError(f"checkpoint {path} does not fit variant {name!r}: {hint}{'; '.join(problems)}")
    model.load_state_dict(state, strict=True)


def _hint(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """What kind of file it is instead, where its keys say so."""
    if _is_fused(state, expected):
        return (
            "it is fused (batch normalisation folded into convolutions), and fusing is a deployment here: take the "
            "weights as they were trained and a deployment with `fuse: true`; "
        )
    if all(f"image_encoder.{key}" in expected for key in state if key.rpartition(".")[2] != COUNTER):
        return "it holds the image encoder alone, not the whole model; "
    return ""


def _is_fused(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """Whether modules with batch normalisation inside are single layers in `state`, and nothing else differs."""
    unexpected = [key.rpartition(".") for key in state if key not in expected]
    folded = {module for module, _, leaf in unexpected if leaf in ("weight", "bias")}
    missing = [key for key in expected if key not in state and key.rpartition(".")[2] != COUNTER]
    return (
        bool(folded)
        and all(leaf in ("weight", "bias") for _, _, leaf in unexpected)
        and all(any(key.startswith(f"{module}.") for module in _parents(key) & folded) for key in missing)
        and any(key.endswith(".running_mean") for key in missing)
    )


def _parents(key: str) -> set[str]:
    """Names of all modules that a key lies in."""
    words = key.split(".")
    return {".".join(words[:count]) for count in range(1, len(words))}


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


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(9)


def _is_safetensors(path: Path, start: bytes) -> bool:
    """By name or by content (a length, then a JSON header): what is named so is never unpickled."""
    length = int.from_bytes(start[:8], "little")
    return path.suffix == ".safetensors" or (start[8:] == b"{" and length <= path.stat().st_size)


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise VariantError(f"checkpoint {path} is damaged or not a safetensors file: {_first_line(error)}") from error


def _read_torch(path: Path, start: bytes) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([(_Numpy, name) for name in _NUMPY]):
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)  # refused below, in our words
            return torch.load(path, map_location="cpu", weights_only=True)
    # Damaged files raise whatever the reader stumbles over; every failure of this one call is the file's.
    except Exception as error:
        said, archived = str(error), start[:1] == b"\x80" or start[:2] == b"PK"
        if any(phrase in said.lower() for phrase in _REFUSED) or ("nsupported operand" in said and archived):
            raise VariantError(
                f"checkpoint {path} holds objects other than tensors and is not loaded, because that could run code; "
                "save its state_dict alone"
            ) from error
        # The reader's own advice is to load without its protection: not passed on.
        why = f": {_first_line(error)}" if isinstance(error, RuntimeError) and "weights_only" not in said else ""
        raise VariantError(f"checkpoint {path} is damaged or not a torch file{why}") from error


def _unwrap(path: Path, content: Any) -> dict[str, Tensor]:
    """The state dict in `content`, which may be wrapped, also one wrapper inside another."""
    for _ in range(_DEPTH):
        if isinstance(content, Mapping):
            inner = (content[word] for word in WRAPPERS if isinstance(content.get(word), Mapping))
            content = next(inner, content)
    if not isinstance(content, Mapping) or not content:
        raise VariantError(f"checkpoint {path} holds no state dict: expected names and tensors, or 'model' with them")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise VariantError(
                f"checkpoint {path} holds no state dict: {key!r} is {type(value).__name__}, not a tensor"
            )
    return dict(content)


def _without_prefixes(state: dict[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    for _ in range(_DEPTH):
        for prefix in PREFIXES:
            own = bool(expected) and all(key.startswith(prefix) for key in expected)
            if not own and all(key.startswith(prefix) for key in state):
                state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
