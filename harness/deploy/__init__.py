"""Deployments: a variant prepared ahead for the way it is executed.  Light to import: libraries come when needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BenchError

if TYPE_CHECKING:
    from harness.config import Deployment
    from harness.deploy.samples import Sample
    from variants.registry import VariantSpec

Progress = Callable[[str], None]


class Unsupported(Exception):  # noqa: N818 (a state of a deployment, not a mistake of the user)
    """The deployment does not apply to the variant, or not on this machine; the message is the reason, one sentence."""


class RefusedError(BenchError):
    """A prepared file does not do what the model does; names the file and the number of images or prompts."""


@dataclass(frozen=True)
class Prepared:
    """What was prepared.

    Attributes:
        files: role such as ``encoder`` → file name in the folder; empty where a session needs nothing but the weights.
        facts: what is worth knowing, as JSON data: ``file_size`` (bytes of all files), ``file_sizes``, ``batch`` (how
            many images an encoder takes at once: ``any`` or ``1``), ``checked`` (numbers of images and prompts at which
            the files were compared with torch), ``quantised`` (see ``harness.deploy.reach``), and a backend's own.
    """

    files: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def prepare(
    model: Any,
    spec: VariantSpec,
    deployment: Deployment,
    folder: Path,
    calibration: Sequence[Sample],
    progress: Progress,
) -> Prepared:
    """Make what a session of ``deployment`` loads, and check it against the model.

    Args:
        model: the variant with its weights, in evaluation mode; left as it is.
        spec: the resolved specification it was built from.
        deployment: how it will be executed.
        folder: an existing folder that receives the files, and nothing else.
        calibration: prepared inputs, for static quantisation.
        progress: told what is being done.

    Raises:
        Unsupported: the deployment does not apply to this variant or this machine.
        UnavailableError: a library is not installed; says the pip command.
        RefusedError: a prepared file does not do what the model does.
    """
    if not spec.needs_torch:
        raise Unsupported(f"variant {spec.name!r} computes with numpy and has no graph to deploy otherwise")
    from harness.deploy.export import prepare_torch_variant

    return prepare_torch_variant(model, spec, deployment, folder, calibration, progress)
