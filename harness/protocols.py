"""The measuring protocols and the 3D loops of the authors' scripts, by name: data alone, cheap to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

PROTOCOLS: dict[str, str] = {
    "strict": (
        "every label counted; DSC and NSD per object; both masks empty: undefined, one empty: 0; NSD on contours (2D, "
        "2 px) or surfaces (3D, 2 mm) with spacing in array-axis order; cold runs with limits read back, no network"
    ),
    "cvpr24": (
        "the challenge to the letter: DSC over labels 1..max, NSD at tolerance 2, 2D images as slabs, NSD 0 unless "
        "DSC > 0.2, spacing as stored, case values to four decimals; wall time of the whole `docker run`, 8 GB"
    ),
}

LoopName = Literal[
    "litemedsam-2024-05-23",
    "litemedsam-2024-04-24",
    "litemedsam-2024-04",
    "swin",
    "rep-2024-06-11",
    "rep-2024-06-19",
    "gray",
]
DEFAULT_LOOP: LoopName = "litemedsam-2024-05-23"
BOX_SHIFT = 3
"""Network pixels by which the box around the mask of the slice before is widened on each side."""
PUBLISHED: Literal["published"] = "published"
"""Instead of the name of a loop: each variant is run with the loop of its own authors."""


@dataclass(frozen=True)
class Loop:
    """How a script goes through a volume: which slices of an object, and where the box of the next slice comes from.

    All start at the middle slice, ``middle_slice``, with the given box, go up, then down from the slice below it.  On
    further slices the box is the bounding box of what is labelled on the slice before, reduced to network size and
    widened; the given box where nothing is.

    Attributes:
        name: key in ``LOOPS``.
        source: whose script, and when it was in force.
        ends: ``inclusive`` z_min..z_max; ``exclusive`` z_min+1..z_max-1 (and the middle slice, if that is z_min), so
            that the two outer slices of an object stay empty.
        neighbour: what is labelled on the slice before: ``own``, the mask of this object alone, or ``merged``, the
            label map with the finished objects, whichever they are.  An object's masks enter the label map when all its
            slices are done, so ``merged`` shows object 1 nothing (always the given box) and object n the others' masks,
            never its own.
        fallback_down: the given box on the way down: ``truncated`` to whole network pixels, as it always is on the way
            up, or ``float``, as scaled.
        stops_at_one: the way down ends at slice 1, so that slice 0 is done only as the middle slice.
        encodes: what the script encodes: ``visit``, one encoding per object and slice, or ``slice``, every slice from
            the smallest z_min to the largest z_max of all boxes once, ahead.  Masks are the same.
        labels: type of the script's label map, which is what is reduced to network size, and rounded.  Labels above
            255 are carried as uint16 all the same: the scripts' uint8 would wrap.
    """

    name: LoopName
    source: str
    ends: Literal["inclusive", "exclusive"] = "inclusive"
    neighbour: Literal["own", "merged"] = "own"
    fallback_down: Literal["truncated", "float"] = "truncated"
    stops_at_one: bool = False
    encodes: Literal["visit", "slice"] = "visit"
    labels: Literal["uint8", "uint16"] = "uint8"

    def slices(self, z_min: int, z_max: int, depth: int) -> tuple[range, range]:
        """Slices of an object on the way up, which begins in the middle, and on the way down, inside the volume.

        A box of one slice has none in an ``exclusive`` loop.
        """
        middle = middle_slice(z_min, z_max)
        inclusive = self.ends == "inclusive"
        last = min(z_max if inclusive else z_max - 1, depth - 1)
        first = max(z_min if inclusive else z_min + 1, 1 if self.stops_at_one else 0)
        return range(middle, last + 1), range(middle - 1, first - 1, -1)


def middle_slice(z_min: int, z_max: int) -> int:
    """Where a loop starts in an object that reaches from slice ``z_min`` to ``z_max``."""
    return int((z_max - z_min) / 2 + z_min)


LOOPS: dict[str, Loop] = {
    loop.name: loop
    for loop in (
        Loop("litemedsam-2024-05-23", "LiteMedSAM baseline since 2024-05-23"),
        Loop(
            "litemedsam-2024-04-24",
            "LiteMedSAM baseline, 2024-04-24 to 2024-05-14",
            ends="exclusive",
            fallback_down="float",
        ),
        Loop(
            "litemedsam-2024-04",
            "LiteMedSAM baseline until 2024-04-24",
            ends="exclusive",
            neighbour="merged",
            fallback_down="float",
        ),
        Loop("swin", "Swin-LiteMedSAM, infer.py", ends="exclusive", fallback_down="float"),
        Loop(
            "rep-2024-06-11",
            "Rep-MedSAM, baseline_infer.py of 2024-06-11; presumably the paper's timing",
            stops_at_one=True,
        ),
        Loop("rep-2024-06-19", "Rep-MedSAM since 2024-06-19, embeddings cached", encodes="slice"),
        Loop(
            "gray",
            "Gray's Anatomy, module/inference.py",
            ends="exclusive",
            neighbour="merged",
            fallback_down="float",
            labels="uint16",
        ),
    )
}


def loop_rows() -> list[dict[str, Any]]:
    """The loops for a listing, one row each, in words."""
    return [
        {
            "name": loop.name,
            "slices": ("z_min..z_max" if loop.ends == "inclusive" else "z_min+1..z_max-1")
            + (", slice 0 left out" if loop.stops_at_one else ""),
            "box from": "own mask" if loop.neighbour == "own" else "masks of earlier objects",
            "fallback on the way down": loop.fallback_down,
            "script encodes": "each slice once" if loop.encodes == "slice" else "each slice of each object",
            "source": loop.source,
        }
        for loop in LOOPS.values()
    ]
