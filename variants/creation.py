"""From a specification to a model: seeded weights or a checkpoint, evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from variants.errors import VariantError
from variants.model import PromptableModel
from variants.registry import load_object, resolve

if TYPE_CHECKING:
    from torch import Tensor


def create(name: str, checkpoint: str | Path | None = None, *, seed: int = 0, **overrides: object) -> PromptableModel:
    """A variant's model in evaluation mode.

    Args:
        name: in the registry.
        checkpoint: weights to load, see `variants.checkpoints`; `None`: drawn from `seed`.
        seed: of the initial weights; the same seed gives the same bits, and torch's own random state is untouched.
        overrides: hyperparameters to replace.

    Raises:
        VariantError: for an unknown variant or hyperparameter, or a checkpoint that is not usable.
    """
    spec = resolve(name, overrides)
    factory = load_object(spec.factory)
    if not spec.needs_torch:
        if checkpoint is not None:
            raise VariantError(f"variant {name!r} has no weights to load: leave out the checkpoint {checkpoint}")
        unlearned: PromptableModel = factory(spec)
        return unlearned
    with _seeded(seed):
        model: Any = factory(spec)
    if checkpoint is not None:
        from variants.checkpoints import load_into

        load_into(model, checkpoint, name)
    ready: PromptableModel = model.eval()
    return ready


def load_published(name: str, path: str | Path) -> PromptableModel:
    """A variant with the weights of the file its authors publish, or of a file in the same layout: strict.

    Raises:
        VariantError: if the file is unreadable, unsafe, or does not fit the variant.
    """
    return create(name, path)


def to_published(model: PromptableModel) -> dict[str, Tensor]:
    """A copy of the model's weights under the published names, on the CPU, contiguous.

    Raises:
        VariantError: if the model has no weights.
    """
    from torch import nn

    if not isinstance(model, nn.Module):
        raise VariantError(f"{type(model).__name__} has no weights to write")
    return {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's CPU generator at `seed` inside, where it was afterwards.

    One thread, because some initialisers give other bits with another number of threads.
    """
    import torch

    state, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(1)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
        torch.set_num_threads(threads)
