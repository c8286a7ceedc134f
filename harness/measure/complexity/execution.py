"""What one call of a model executes and holds, seen operator by operator, without computing anything.

The model is rebuilt of torch's fake tensors: every operator is dispatched with its shapes, none is computed, so the
outcome is the same on every machine and a model of any size takes a second.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from harness.measure.complexity.inputs import example
from harness.schema import PARTS
from variants import Embedding, VariantError

PEAK_METHOD = (
    "outputs of operators alive at once in one eager forward, inputs included; weights and the scratch memory inside "
    "operators left out; float32, batch 1, one box"
)
UNUSED_RULE = (
    "no call of encode and decode reads them: boxes, points, boxes with points and scribble, one mask or three; "
    "a list of embeddings counts as one table"
)
_CALLS: tuple[tuple[tuple[str, ...], bool], ...] = (
    (("box",), False),
    (("box",), True),
    (("points",), False),
    (("box", "points", "scribble"), False),
)
"""Prompts and `multimask` of the calls that make up the public interface; the first is the common convention's."""


@dataclass(frozen=True)
class Execution:
    """What running a model shows.

    Attributes:
        activation_peak: bytes, of the whole call (``None``) and while each part of ``PARTS`` runs.
        cross_check: FLOPs as torch's FlopCounterMode counts them (2 per multiply-add), whole and per part.
        never: parameters that no call of the public interface reads, per module.
        not_with_one_box: number of parameters that other calls read, but not one box with one mask.
    """

    activation_peak: Mapping[str | None, int]
    cross_check: Mapping[str | None, int]
    never: Mapping[str, int]
    not_with_one_box: int


def execution(model: Any) -> Execution:
    """Run the calls of the public interface on shapes alone.

    Args:
        model: a torch variant with the parts as children; it is left as it is.

    Raises:
        Exception: whatever an operator raises that needs values and not shapes.
    """
    with shapes_only(model) as shapes:
        first, *others = _CALLS
        watch, counted, embedding = _watched_call(shapes, *first)
        one_box = watch.read
        read = set(one_box)
        for prompts, multimask in others:
            read |= _read_by(shapes, embedding, prompts, multimask)
    never = _unread(shapes, read)
    missing = sum(_unread(shapes, one_box).values()) - sum(never.values())
    return Execution(dict(watch.peaks), counted, never, missing)


@contextmanager
def shapes_only(model: Any) -> Iterator[Any]:
    """A copy of a model in eval mode whose tensors have shapes and no values, and so have all that are made inside."""
    fake = FakeTensorMode()
    stand_ins: dict[int, Any] = {}
    for parameter in model.parameters():
        stand_ins[id(parameter)] = nn.Parameter(fake.from_tensor(parameter.detach()), requires_grad=False)
    for buffer in model.buffers():
        stand_ins[id(buffer)] = fake.from_tensor(buffer)
    with torch.no_grad(), fake:
        yield copy.deepcopy(model, stand_ins).eval()


def _watched_call(
    model: Any, prompts: tuple[str, ...], multimask: bool
) -> tuple[_Watch, dict[str | None, int], Embedding]:
    """Encode and decode, with the parts of the model known to the watch and torch's own counter running."""
    watch = _Watch(_storages(model))
    hooks = []
    for part in PARTS:
        module = getattr(model, part)
        hooks.append(module.register_forward_pre_hook(lambda *_, part=part: watch.enter(part)))
        hooks.append(module.register_forward_hook(lambda *_, part=part: watch.leave(part)))
    try:
        with FlopCounterMode(display=False) as counter, watch:
            embedding = _Call(model)(example(model, prompts), multimask)
    finally:
        for hook in hooks:
            hook.remove()
    return watch, _by_part(counter, model), embedding


class _Call(nn.Module):
    """Encodes and decodes, and gives the embedding back; as a module, because torch's counter names by modules."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, given: dict[str, Any], multimask: bool) -> Embedding:
        embedding: Embedding = self.model.encode(given["image"])
        self.decode(embedding, given, multimask)
        return embedding

    def decode(self, embedding: Embedding, given: Mapping[str, Any], multimask: bool) -> None:
        prompts = {name: value for name, value in given.items() if name not in ("image", "boxes")}
        self.model.decode(embedding, given.get("boxes"), **prompts, multimask=multimask)


def _read_by(model: Any, embedding: Embedding, prompts: tuple[str, ...], multimask: bool) -> set[int]:
    """Storages of parameters that a decoding reads; none if the model takes no such prompts."""
    watch = _Watch(_storages(model))
    try:
        with watch:
            _Call(model).decode(embedding, example(model, prompts), multimask)
    except (VariantError, TypeError):
        return set()
    return watch.read


def _storages(model: nn.Module) -> set[int]:
    return {_key(t) for t in (*model.parameters(), *model.buffers())}


def _key(tensor: Tensor) -> int:
    """Identity of a tensor's storage: views of one tensor share it, also where there is no memory behind it."""
    return int(tensor.untyped_storage()._cdata)


@dataclass
class _Live:
    """Bytes alive now, and the most there ever were, for the whole and for every part that runs."""

    now: int = 0
    running: list[str | None] = field(default_factory=lambda: [None])
    peaks: dict[str | None, int] = field(default_factory=lambda: dict.fromkeys((None, *PARTS), 0))

    def add(self, size: int) -> None:
        self.now += size
        for part in self.running:
            self.peaks[part] = max(self.peaks[part], self.now)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator: which of the known storages it reads, and which new ones live until when."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.read: set[int] = set()
        self._known = known
        self._live = _Live()
        self._alive: dict[int, weakref.ref[Any]] = {}

    @property
    def peaks(self) -> dict[str | None, int]:
        return self._live.peaks

    def enter(self, part: str) -> None:
        self._live.running.append(part)
        self._live.add(0)

    def leave(self, part: str) -> None:
        self._live.running.remove(part)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.read.update(key for key in map(_key, _tensors((args, kwargs))) if key in self._known)
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            self._note(tensor)
        return out

    def _note(self, tensor: Tensor) -> None:
        storage, key = tensor.untyped_storage(), _key(tensor)
        if key in self._known or key in self._alive:
            return
        size = storage.nbytes()
        self._alive[key] = weakref.ref(storage, lambda _: self._freed(key, size))
        self._live.add(size)

    def _freed(self, key: int, size: int) -> None:
        del self._alive[key]
        self._live.add(-size)


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _unread(model: nn.Module, read: set[int]) -> dict[str, int]:
    """Parameters outside ``read``, summed per child of each part (``mask_decoder.prompt1``)."""
    tables = [
        f"{name}."
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and all(isinstance(m, nn.Embedding) for m in module)
    ]
    parameters = list(model.named_parameters())
    known = {table for table in tables if any(n.startswith(table) and _key(p) in read for n, p in parameters)}
    found: dict[str, int] = {}
    for name, parameter in parameters:
        if _key(parameter) not in read and not name.startswith(tuple(known)):
            module = ".".join(name.split(".")[:2])
            found[module] = found.get(module, 0) + parameter.numel()
    return found


def _by_part(counter: FlopCounterMode, model: Any) -> dict[str | None, int]:
    """FLOPs of torch's own counter, whole and per part: matrix products and convolutions, 2 per multiply-add."""
    by_module = {name: int(sum(count.values())) for name, count in counter.get_flop_counts().items()}
    found: dict[str | None, int] = {None: int(counter.get_total_flops())}
    for part in PARTS:
        found[part] = _inclusive(getattr(model, part), f"{_Call.__name__}.model.{part}", by_module)
    return found


def _inclusive(module: nn.Module, name: str, counts: Mapping[str, int]) -> int:
    """FLOPs of a module and its children, which may also be called past it (the prompt encoder's positions are)."""
    children = sum(_inclusive(child, f"{name}.{key}", counts) for key, child in module.named_children())
    return max(counts.get(name, 0), children)
