"""The model zoo: variants by name, from a torch-free registry.

    import variants

    variants.names()                                    # no torch yet
    model = variants.create("litemedsam", "lite_medsam.pth")
    embedding = model.encode(images)                    # float32 (B, 3, 256, 256) in [0, 1]
    logits, iou = model.decode(embedding, boxes)        # boxes (N, 4) in network pixels

Torch is imported when a torch variant is created, not before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from variants.embedding import Embedding
from variants.errors import VariantError, VariantWarning
from variants.model import PromptableModel
from variants.registry import Registry, VariantSpec, names, resolve, spec

if TYPE_CHECKING:
    from variants import checkpoints, compat, preprocess, prompts
    from variants.creation import create, load_published, to_published
    from variants.fusion import fuse
    from variants.sam.folding import fold_decoder
else:
    _LAZY = {
        "create": "creation",
        "load_published": "creation",
        "to_published": "creation",
        "fuse": "fusion",
        "fold_decoder": "sam.folding",
    }
    _LAZY |= dict.fromkeys(("checkpoints", "compat", "preprocess", "prompts"), "")

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module 'variants' has no attribute {name!r}")
        module = import_module(f"variants.{_LAZY[name] or name}")
        return getattr(module, name) if _LAZY[name] else module


__all__ = [
    "Embedding",
    "PromptableModel",
    "Registry",
    "VariantError",
    "VariantSpec",
    "VariantWarning",
    "checkpoints",
    "compat",
    "create",
    "fold_decoder",
    "fuse",
    "load_published",
    "names",
    "preprocess",
    "prompts",
    "resolve",
    "spec",
    "to_published",
]
