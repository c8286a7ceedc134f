"""Deployments for a made-up run: faithful, flagged, slower, unsupported, failed and not compared ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.schema import Record
from tests.reports.synthetic import SyntheticRun

NO_FUSE = "variant 'litemedsam' has nothing to fuse"
NO_GRAPH = "variant 'dummy' computes with numpy and has no graph to deploy otherwise"
FROZEN = "decoder.onnx gives 3 masks for 17 boxes: the exporter froze the number of prompts"
WEIGHTS = {name: sha256(name.encode()).hexdigest() for name in ("litemedsam", "tiny", "tiny-depth2", "swiftmedsam_v2")}
DEPLOYMENTS: dict[str, dict[str, Any]] = {
    "default": {"backend": "torch", "precision": "fp32", "threads": 2, "allocator": "keep-pages"},
    "keep pages": {"backend": "torch", "precision": "fp32", "threads": 2, "allocator": "keep-pages"},
    "ort-fp32": {"backend": "onnxruntime", "precision": "fp32", "threads": 2},
    "ort-int8": {"backend": "onnxruntime", "precision": "int8", "quantisation": "dynamic", "threads": 2},
    "fused": {"backend": "torch", "precision": "fp32", "fuse": True, "threads": 2},
}
# variant, deployment → agreement, lowest of a mask, largest logit difference, time ÷ eager torch
COMPARED = {
    ("litemedsam", "ort-fp32"): (0.9999972, 0.999981, 3.2e-5, 0.53),
    ("litemedsam", "ort-int8"): (0.97124, 0.8123, 1.84, 1.32),
    ("tiny", "ort-fp32"): (1.0, 1.0, 1.1e-5, 1.41),
    ("tiny", "ort-int8"): (0.98996, 0.9411, 0.61, 0.98),
    ("tiny-depth2", "ort-int8"): (0.9962, 0.9911, 0.22, 1.04),
}


def comparison(
    agreement: float, worst: float, difference: float, ratio: float, int8: bool, weights: str = "0" * 64
) -> list[Record]:
    """The records of one deployment."""
    said = json.dumps({"weights": weights, "images": 11, "objects": 24, "worst": worst, "dsc": agreement**2})
    found = [Record("mask_agreement", agreement, detail=said), Record("logit_difference", difference, detail=said)]
    seconds = json.dumps({"seconds": 0.4, "eager_seconds": 0.75})
    found += [Record("speed_ratio", r, phase=p, detail=seconds) for p, r in (("encode", ratio), ("decode", ratio / 2))]
    found += [Record("speed_ratio", ratio, detail=seconds), Record("file_size", 39.4e6 / (3.6 if int8 else 1))]
    if int8:
        layers = {"of": 120, "by_part": {"image_encoder": 40, "prompt_encoder": 0, "mask_decoder": 47}}
        shares = {"by_part": {"image_encoder": 0.34, "prompt_encoder": 0.0, "mask_decoder": 0.91}}
        found += [Record("quantised_layers", 87.0, detail=json.dumps(layers))]
        found += [Record("quantised_share", 0.362, detail=json.dumps(shares))]
    return found


def unsupported(reason: str) -> list[Record]:
    """The records of a deployment that does not apply."""
    metrics = ("mask_agreement", "logit_difference", "speed_ratio")
    return [Record(m, status="unsupported", reason=reason) for m in metrics]


class DeployedRun(SyntheticRun):
    """The made-up run, with deployments."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.data["resolved"] = {"deployments": DEPLOYMENTS}
        for (variant, deployment), (agreement, worst, difference, ratio) in COMPARED.items():
            records = comparison(agreement, worst, difference, ratio, deployment == "ort-int8", WEIGHTS[variant])
            self.measured(variant, deployment, self.deploy(variant, deployment, records), ratio)
        for deployment in ("ort-fp32", "ort-int8"):
            self.deploy("dummy", deployment, unsupported(NO_GRAPH))
            self.deploy("swiftmedsam_v2", deployment, None, state="failed", reason=FROZEN)
        self.impossible("litemedsam", "fused", self.deploy("litemedsam", "fused", unsupported(NO_FUSE)))

    def deploy(self, variant: str, deployment: str, records: Sequence[Record] | None, **more: Any) -> str:
        """Add the job that prepares and compares a deployment; returns its digest."""
        trained = [j["digest"] for j in self.data["jobs"] if j["kind"] == "train" and j["variant"] == variant]
        return self._add("deploy", variant, records and list(records), deployment=deployment, needs=trained, **more)

    def on_volumes(self, dsc: float) -> None:
        """Compare one deployment on volumes as well, where its masks have this Dice to torch's."""
        said = {"worst": 0.97, "volumes": 2, "objects": 5, "truth": 0.61, "reference_truth": 0.63}
        records = [*comparison(1.0, 1.0, 0.1, 0.9, int8=False), Record("volume_dsc", dsc, detail=json.dumps(said))]
        self.replace(self.job("deploy", "tiny", deployment="ort-fp32")["digest"], records)

    def measured(self, variant: str, deployment: str, deploy: str, ratio: float = 1) -> None:
        """Add accuracy and times of a deployment."""
        needs = [j["digest"] for j in self.data["jobs"] if j["kind"] == "train" and j["variant"] == variant]
        common: dict[str, Any] = {"deployment": deployment, "dataset": "phantoms", "needs": [*needs, deploy]}
        both = {"protocols": ["strict", "cvpr24"]}
        self._add("accuracy", variant, self._accuracy(variant), settings=both, **common)
        strict = {"protocol": "strict"}
        self._add("runtime", variant, self._runtime(variant, ratio), sandbox="process", settings=strict, **common)

    def impossible(self, variant: str, deployment: str, deploy: str) -> None:
        """Add an accuracy job that says so case by case, and a runtime job that was left out."""
        common: dict[str, Any] = {"deployment": deployment, "dataset": "phantoms", "needs": [deploy]}
        cases = [
            Record("dsc", case=case, modality=modality, ndim=2, protocol=p, status="unsupported", reason=NO_FUSE)
            for case, modality in self.cases
            for p in ("strict", "cvpr24")
        ]
        self._add("accuracy", variant, cases, settings={"protocols": ["strict", "cvpr24"]}, **common)
        left_out = {"state": "skipped", "reason": "the deployment it needs could not be prepared"}
        self._add("runtime", variant, None, sandbox="process", settings={"protocol": "strict"}, **left_out, **common)


class CrowdedRun(DeployedRun):
    """Fifteen variants × twelve deployments."""

    def __init__(self, root: Path, variants: int = 15, deployments: int = 12) -> None:
        super().__init__(root)
        self.data["jobs"], self.records = [], {}
        names = [f"litemedsam_variant_{i:02d}" for i in range(variants)]
        template = self.data["variants"]["litemedsam"]
        self.data["variants"] = {name: {**template, "weights": "weights.safetensors"} for name in names}
        settings = [{"backend": b, "precision": p} for b in ("torch", "onnxruntime", "openvino") for p in PRECISIONS[b]]
        labels = [f"{s['backend']}-{'-'.join(str(v) for k, v in s.items() if k != 'backend')}" for s in settings]
        chosen = dict(zip(labels[:deployments], settings, strict=False))
        while len(chosen) < deployments:
            chosen[f"torch-fp32-threads-{len(chosen)}"] = {"fuse": True, "channels_last": True}
        self.data["resolved"] = {"deployments": chosen}
        for i, name in enumerate(names):
            self._add("complexity", name, self._complexity(name))
            self.scale("complexity", name, "flops", 5 * (1 + i / 3))
            for place, label in enumerate(chosen):
                self.one(name, label, place, i)

    def one(self, name: str, label: str, place: int, i: int) -> None:
        """One deployment of one variant; the first is the reference."""
        deploy = ""
        if place:
            apart = {3: unsupported(NO_FUSE), 7: unsupported(NO_GRAPH)}.get((place + i) % 11)
            agreement = 1 - 10 ** -(1.5 + (3 * place + i) % 5)
            fine = comparison(agreement, agreement - 0.01, 0.02 * place, 0.4 + 0.1 * place, place % 3 == 0, "ab" * 32)
            deploy = self.deploy(name, label, apart or fine)
            if apart:
                return
        self.measured(name, label, deploy, 1 / (place + 1))


PRECISIONS = {
    "torch": ("fp32", "bf16", "int8"),
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
}
