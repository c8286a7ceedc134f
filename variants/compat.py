"""Makes `import timm` work beside a CPU-only torch.

timm imports torchvision, and torchvision describes its compiled operators `nms` and `qnms` to torch while it is
imported.  The torchvision of PyPI is built for CUDA: beside a CPU-only torch its library of operators does not load,
the description finds nothing to describe (`operator torchvision::nms does not exist`), and the import fails.  timm uses
neither operator, so it is enough to declare them.

The declarations are made only where the operators are missing after an attempt to load the library; with a torchvision
that fits, nothing is changed.  Calling a declared operator raises torch's own "not implemented" error.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.library import Library

SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}

# A declaration lives as long as its library object.
_declared: list[Library] = []


def make_timm_importable() -> tuple[str, ...]:
    """Declare torchvision's operators where they are missing; call it before `import timm`.

    Returns:
        The names declared by this call: none where torchvision works or is not installed, or when called again.
    """
    import torch

    found = find_spec("torchvision")
    if found is None or found.origin is None:
        return ()
    _load_operators(Path(found.origin).parent)
    missing = tuple(name for name in SCHEMAS if not _exists(name))
    if missing:
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for name in missing:
            library.define(SCHEMAS[name])  # type: ignore[no-untyped-call]
        _declared.append(library)
    return missing


def _load_operators(package: Path) -> None:
    """Load torchvision's compiled operators if they fit this torch; torchvision itself would do the same."""
    import torch

    for library in sorted(package.glob("_C*.so")):
        try:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        except OSError:
            continue  # Built for another torch: the operators stay missing, which is what the caller looks at.


def _exists(operator: str) -> bool:
    import torch

    return hasattr(torch.ops.torchvision, operator)
