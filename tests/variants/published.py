"""Files in the published layout, with the weights and inputs that the golden outputs were made with."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import variants

GOLDENS = Path(__file__).parents[1] / "goldens"
FILES = {
    "litemedsam": "lite_medsam",
    "swiftmedsam_v1": "swift_medsam_v1",
    "swiftmedsam_v2": "swift_medsam_v2",
    "swin_litemedsam": "swin_lite_medsam",
    "rep_medsam": "rep_medsam",
    "efficientvit_sam_l0": "efficientvit_sam_l0_medsam",
    "medsam_vit_b": "medsam_vit_b",
}
KEPT = ("num_batches_tracked", "upper_lower_mask", "left_right_mask")
TABLES = ("pos_embed", "attention_biases", "pos_embedding", "rel_pos_h", "rel_pos_w", "prompt_param")
EMBEDDINGS = ("point_embeddings.", "not_a_point_embed.", "no_mask_embed.", "iou_token.", "mask_tokens.")


def fill(key: str, shape: tuple[int, ...], salt: str = "") -> np.ndarray | None:
    """The value of one entry, drawn from its name alone; `None` for entries that stay as constructed.

    Another salt gives other, equally valid weights.
    """
    leaf = key.rsplit(".", 1)[-1]
    if leaf in KEPT:
        return None
    normal = np.random.default_rng(zlib.crc32((salt + key).encode())).standard_normal(shape)
    if leaf == "running_mean":
        value = 0.1 * normal
    elif leaf == "running_var":
        value = 0.5 + np.abs(normal)
    elif leaf == "positional_encoding_gaussian_matrix" or (leaf == "weight" and any(e in key for e in EMBEDDINGS)):
        value = normal
    elif leaf in TABLES:
        value = 0.2 * normal
    elif leaf == "weight" and len(shape) == 1:
        value = 1 + 0.1 * normal
    elif len(shape) >= 2:
        value = normal / np.sqrt(np.prod(shape[1:]))
    else:
        value = 0.1 * normal
    return value.astype(np.float32)


def manifest(variant: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name → shape and type of the published state dict, in its order."""
    entries = json.loads((GOLDENS / f"{FILES[variant]}.manifest.json").read_text())["state_dict"]
    return {key: (tuple(entry["shape"]), entry["dtype"]) for key, entry in entries.items()}


def state_dict(variant: str, salt: str = "") -> dict[str, torch.Tensor]:
    """The filled weights in the published layout; entries that stay as constructed come from a new model."""
    shapes = manifest(variant)
    filled = {key: fill(key, shape, salt) for key, (shape, _) in shapes.items()}
    masks = any(value is None and "mask" in key for key, value in filled.items())
    constructed = variants.to_published(variants.create(variant)) if masks else {}
    return {
        key: constructed.get(key, torch.tensor(0)) if value is None else torch.from_numpy(value)
        for key, value in filled.items()
    }


def goldens(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDENS / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays}


@dataclass(frozen=True)
class Inputs:
    image: torch.Tensor
    boxes: torch.Tensor
    points: torch.Tensor
    scribble: torch.Tensor


def inputs(size: int = 256) -> Inputs:
    """The inputs of the goldens; the first of the three boxes is the single one.  Boxes follow the input's size."""
    image = np.random.default_rng(0).random((1, 3, size, size)).astype(np.float32)
    boxes = torch.tensor([[40.0, 60, 180, 200], [10, 20, 90, 250], [128, 128, 140, 136]]) * (size / 256)
    points = torch.tensor([[[75.0, 95], [75, 165], [145, 165], [145, 95]]])
    scribble = torch.zeros(1, 1, 256, 256)
    scribble[0, 0, 120:126, 70:150] = 1
    scribble[0, 0, 90:170, 100:104] = 1
    return Inputs(torch.from_numpy(image), boxes, points, scribble)
