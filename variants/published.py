"""What the authors of a variant publish: the name of their file and how it wraps the weights.  Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from variants.registry import VariantSpec, built_in


@dataclass(frozen=True)
class PublishedFile:
    """A file of weights as its authors distribute it.

    Attributes:
        file: its name; `None` where none was published and the layout is that of the family.
        source: where it was published, and which script reads it.
        wrap: the key that holds the state dict; `None`: the file is the state dict.
        note: what else one has to know.
    """

    file: str | None
    source: str
    wrap: str | None = None
    note: str = ""


FILES: dict[str, PublishedFile] = {
    "litemedsam": PublishedFile(
        "lite_medsam.pth",
        "bowang-lab/MedSAM, branch LiteMedSAM",
        note="training checkpoints of the same scripts hold the weights under 'model'",
    ),
    "swiftmedsam_v1": PublishedFile(
        None, "SwiftMedSAM paper, Table 1: no weights are public", note="LiteMedSAM's layout"
    ),
    "swiftmedsam_v2": PublishedFile(
        None, "SwiftMedSAM paper, Table 1: no weights are public", note="LiteMedSAM's layout"
    ),
    "swin_litemedsam": PublishedFile(
        "Swin_LiteMedSAM.pth",
        "RuochenGao/Swin_LiteMedSAM, infer.py",
        note="Swin_encoder.pth is the image encoder of the first stage alone and is no checkpoint of the model",
    ),
    "rep_medsam": PublishedFile(
        "rep_medsam.pth",
        "mxWe1/CVPR24-Challenge",
        note="as trained; fusing is a deployment and happens after loading",
    ),
    "efficientvit_sam_l0": PublishedFile(
        "efficientvit_sam_best.pth",
        "Ninebell/GraysAnatomySAM, callback/checkpoint.py",
        wrap="model",
        note="float32; the authors quantise in memory only",
    ),
    "medsam_vit_b": PublishedFile("medsam_vit_b.pth", "bowang-lab/MedSAM, branch main"),
}


def published_file(spec: VariantSpec) -> PublishedFile | None:
    """What the authors publish for a variant; for a variant of another size, the layout of its family.

    Returns:
        `None` for a variant of no paper: its layout is a plain state dict.
    """
    if spec.name in FILES:
        return FILES[spec.name]
    for name, file in FILES.items():
        if name in built_in() and built_in().get(name).factory == spec.factory:
            return PublishedFile(None, f"the layout of {name}", file.wrap)
    return None
