"""The published workload: the 14 efficiency cases whose runtimes the papers print, by name, size and number of objects.

SwiftMedSAM (Table 5), Rep-MedSAM (Table 6) and Gray's Anatomy (Table 5) time the same 14 cases of the challenge's
validation set; Swin-LiteMedSAM prints means over modalities only.  The papers agree on all names, sizes and numbers of
objects, as far as they print them: Rep-MedSAM's Table 6 has no number for 2DBox_US_0525 and 2DBox_Fundus_0003 where the
others have 1.  The images themselves are the challenge's and are not printed; here they are phantoms.

What no paper prints is how many slices an object spans, although LiteMedSAM's time is proportional to it: its script
encodes once per object and slice.  It can be had from the times: that of a case divided by that of 2DBox_US_0525, which
is one encoding and one box, is about the number of *object-slices* (slices summed over objects).  LiteMedSAM's times in
two of the papers, 0.40 s and 0.88 s for that image, give nearly the same numbers; those of the third, 1.8 s, do not:

    ==============  ==============  ==========  ===========  =====  =============
    case            Gray's Anatomy  Rep-MedSAM  SwiftMedSAM  here   most possible
    ==============  ==============  ==========  ===========  =====  =============
    3DBox_CT_0566   527             497         277          512    6 x 287
    3DBox_CT_0888   133             131         63           132    6 x 237
    3DBox_CT_0860   19              19          10           19     246
    3DBox_MR_0621   208             199         350          203    6 x 115
    3DBox_MR_0121   128             135         66           132    6 x 64
    3DBox_MR_0179   17              17          10           17     84
    3DBox_PET_0001  9               10          18           9      264
    ==============  ==============  ==========  ===========  =====  =============

Here: the mean of the first two.  The third paper's baseline takes 1.26 times as long for 3DBox_MR_0621 (630.2 s) as for
3DBox_CT_0566 (499.2 s), where the others have 0.39 and 0.40 (83.16 of 210.98 s, 174.80 of 436.97 s); and 257.5 s for
2DBox_Microscope_0016, 143 times 2DBox_US_0525, where the others have 16 times (6.27 s and 14.47 s).

``small`` keeps the 14 names, halves images in the plane, takes an eighth of the slices and a third of the objects (none
fewer than 1), so that a pass of LiteMedSAM takes at most 60 s on two cores however it is executed.  The slowest way is
eager torch with the system's allocator, one encoding per object and slice: 1.3 s an encoding, 0.07 s a box.

    ==========  =============  =========  ======  ===========================
    scale       object-slices  encodings  boxes   1.3 s and 0.07 s each
    ==========  =============  =========  ======  ===========================
    full        1024           1031       1322    1340.3 + 92.5 = 1432.8 s
    small       30             37         131     48.1 + 9.2 = 57.3 s
    ==========  =============  =========  ======  ===========================

Encodings: the object-slices and one an image; boxes: the object-slices and the objects of the images (298; small: 101).
What 14 cold processes take to start and to load the model comes on top, about 2 s each with eager torch; ways of
execution that encode a slice once for all its objects stay below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harness.schema import modality_of

if TYPE_CHECKING:
    from harness.config import WorkloadData

ENCODING_SECONDS: Final = 1.3
"""LiteMedSAM's encoder, 256 x 256, eager torch in fp32 on two cores with the system's allocator."""
BOX_SECONDS: Final = 0.07
"""Its prompt encoder and mask decoder, one box, executed likewise."""

_IN_PLANE, _ALONG_Z, _OBJECTS = 2, 8, 3
"""What ``small`` divides pixels of a side, slices and objects by."""


@dataclass(frozen=True)
class PublishedCase:
    """A case as the papers print it.

    Attributes:
        name: its name, which says modality and dimension.
        shape: as printed, (D,H,W) or (H,W,3).
        objects: number of boxes.
        object_slices: slices summed over the objects, at full and at small scale; of images none.
    """

    name: str
    shape: tuple[int, int, int]
    objects: int
    object_slices: tuple[int, int] = (0, 0)


WORKLOAD: Final[tuple[PublishedCase, ...]] = (
    PublishedCase("3DBox_CT_0566", (287, 512, 512), 6, (512, 8)),
    PublishedCase("3DBox_CT_0888", (237, 512, 512), 6, (132, 5)),
    PublishedCase("3DBox_CT_0860", (246, 512, 512), 1, (19, 2)),
    PublishedCase("3DBox_MR_0621", (115, 400, 400), 6, (203, 6)),
    PublishedCase("3DBox_MR_0121", (64, 290, 320), 6, (132, 5)),
    PublishedCase("3DBox_MR_0179", (84, 512, 512), 1, (17, 2)),
    PublishedCase("3DBox_PET_0001", (264, 200, 200), 1, (9, 2)),
    PublishedCase("2DBox_US_0525", (256, 256, 3), 1),
    PublishedCase("2DBox_X-Ray_0053", (320, 640, 3), 34),
    PublishedCase("2DBox_Dermoscopy_0003", (3024, 4032, 3), 1),
    PublishedCase("2DBox_Endoscopy_0086", (480, 560, 3), 1),
    PublishedCase("2DBox_Fundus_0003", (2048, 2048, 3), 1),
    PublishedCase("2DBox_Microscope_0008", (1536, 2040, 3), 19),
    PublishedCase("2DBox_Microscope_0016", (1920, 2560, 3), 241),
)
"""In the order of the papers' tables."""


@dataclass(frozen=True)
class WorkloadCase:
    """A case to be drawn.

    Attributes:
        name: the published name.
        seed: of the drawing.
        shape: (H,W) or (D,H,W).
        objects: number of objects.
        spans: slices of each object of a volume, all different and at least 2; of an image empty.
    """

    name: str
    seed: int
    shape: tuple[int, ...]
    objects: int
    spans: tuple[int, ...] = ()

    @property
    def modality(self) -> str:
        """The modality that the name says."""
        return modality_of(self.name)


@dataclass(frozen=True)
class Work:
    """What a pass executes that encodes once per image, and per object and slice of a volume."""

    object_slices: int
    encodings: int
    boxes: int

    def seconds(self, encoding: float = ENCODING_SECONDS, box: float = BOX_SECONDS) -> float:
        """Time of the pass, of an encoding's and of a box's time; without start, reading and writing."""
        return self.encodings * encoding + self.boxes * box


def workload_cases(spec: WorkloadData) -> list[WorkloadCase]:
    """The 14 cases at the scale and with the seed of ``spec``, sorted by name."""
    cases = [_scaled(case, spec.scale == "small", spec.seed) for case in WORKLOAD]
    return sorted(cases, key=lambda case: case.name)


def work_of(cases: list[WorkloadCase]) -> Work:
    """Object-slices, encodings and boxes of one pass over ``cases``."""
    object_slices = sum(sum(case.spans) for case in cases)
    images = [case for case in cases if not case.spans]
    return Work(object_slices, object_slices + len(images), object_slices + sum(case.objects for case in images))


def _scaled(case: PublishedCase, small: bool, seed: int) -> WorkloadCase:
    volume = case.name.startswith("3D")
    shape: tuple[int, ...] = case.shape if volume else case.shape[:2]
    objects = case.objects
    if small:
        plane = tuple(side // _IN_PLANE for side in shape[-2:])
        shape = (round(shape[0] / _ALONG_Z), *plane) if volume else plane
        objects = max(1, round(objects / _OBJECTS))
    return WorkloadCase(case.name, seed, shape, objects, spans(case.object_slices[small], objects) if volume else ())


def spans(object_slices: int, objects: int) -> tuple[int, ...]:
    """Numbers of slices of ``objects`` objects: ascending, all different, at least 2, ``object_slices`` in all.

    The least possible first, then the rest in the proportions 1:2:3…, since objects of a volume differ in size.
    """
    least = [2 + place for place in range(objects)]
    rest = object_slices - sum(least)
    if rest < 0:
        raise ValueError(f"{object_slices} slices are too few for {objects} objects of different extents")
    parts = objects * (objects + 1) // 2
    found = [low + rest * (place + 1) // parts for place, low in enumerate(least)]
    found[-1] += object_slices - sum(found)
    return tuple(found)
