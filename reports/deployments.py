"""What a deployment is called in a report, and which of them a reader must be warned of.

The one place of the rule: `flag` says what is due, `reports.tables.fidelity.notes` for which rows, and every table that
shows such a row shows the words.
"""

from __future__ import annotations

from collections.abc import Collection

from reports import text
from reports.runfile import DeploymentInfo, RunFile

# Share of the mask pixels on which a deployment must agree with eager torch in fp32; the project's own limit, no
# standard states one.  Below it a deployment has masks of its own, and what is known of the variant does not carry over
# to it.  Dynamic int8 of Rep-MedSAM's decoder keeps 0.994 on its golden input, bf16 on arbitrary weights 0.935.
AGREEMENT = 0.99
# Dice of the masks of whole volumes; the project's own limit too.  Volumes are where bf16 shows: of LiteMedSAM 0.98 to
# 0.99 on images, and 0.80 to 0.98 on a volume, by how it was trained.
VOLUMES = 0.99
# Time ÷ eager torch above which a deployment is called slower.  Timings whose repeats differ much have no ratio at all.
SLOWER = 1.05

NOT_COMPARED = "the run has no comparison of it with eager torch fp32"
RULE = (
    f"Flagged: mask agreement under {AGREEMENT:g}, DSC of volumes under {VOLUMES:g}, or slower than eager torch "
    f"(time above ×{SLOWER:g}). A disturbed timing has no ratio."
)


def flag(agreement: float | None, ratio: float | None, volumes: float | None = None) -> str:
    """The warning that accompanies every number of a deployment; empty if none is due.

    ``agreement``: share of the mask pixels, 0..1; ``ratio``: time ÷ eager torch fp32; ``volumes``: Dice of the masks
    of volumes.  What was not measured warns of nothing here.
    """
    said = [disagreement(agreement), drift(volumes), slowness(ratio)]
    return "; ".join(part for part in said if part)


def disagreement(agreement: float | None) -> str:
    """The warning of a mask agreement under `AGREEMENT`."""
    if agreement is None or text.missing(agreement) or agreement >= AGREEMENT:
        return ""
    return f"mask agreement {text.agreement(agreement)}, under {AGREEMENT:g}"


def drift(volumes: float | None) -> str:
    """The warning of a Dice of volumes under `VOLUMES`."""
    if volumes is None or text.missing(volumes) or volumes >= VOLUMES:
        return ""
    return f"DSC of volumes {text.agreement(volumes)}, under {VOLUMES:g}"


def slowness(ratio: float | None) -> str:
    """The warning of a time above `SLOWER` times eager torch's."""
    return f"slower than eager torch, {text.times(ratio)}" if ratio is not None and ratio > SLOWER else ""


def backend(info: RunFile, deployment: str | None) -> str:
    """What executes the network, ``onnxruntime``; empty if the run does not say."""
    found = info.resolved.deployments.get(deployment or "")
    return found.backend if found else ""


def settings(info: RunFile, deployment: str | None) -> str:
    """Precision and settings in words; empty if the run does not say."""
    found = info.resolved.deployments.get(deployment or "")
    return found.words if found else ""


def differing(info: RunFile, one: str, other: str, ignored: Collection[str] = ()) -> set[str]:
    """Names of the settings in which two deployments differ; ``unknown`` if the run does not state both."""
    found = info.resolved.deployments
    if one not in found or other not in found:
        return {"unknown"}
    names = [name for name in DeploymentInfo.model_fields if name not in ignored]
    return {name for name in names if getattr(found[one], name) != getattr(found[other], name)}


def plain(info: RunFile, deployment: str | None) -> bool | None:
    """Whether a deployment is the reference itself; ``None`` if the run does not say."""
    found = info.resolved.deployments.get(deployment or "")
    return found.plain if found else None
