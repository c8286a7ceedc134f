"""A made-up run with everything a real one may show: notes, failures, skipped sandboxes, ablations, two deployments."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.schema import MODALITIES, PARTS, PHASES, VOLUME_MODALITIES, Record
from harness.store import FolderStore, records_key, seal

LOOP = "litemedsam-2024-05-23"
NO_DOCKER = "no Docker engine answers at unix:///var/run/docker.sock; start one and run the suite again"
OOM = "killed at the memory limit of 8.0 GiB while encoding slice 143 of 287"

VARIANTS: dict[str, dict[str, Any]] = {
    "dummy": {"name": "dummy", "family": "reference", "summary": "fills the box with an ellipse", "source": "none"},
    "litemedsam": {
        "name": "litemedsam",
        "family": "litemedsam",
        "summary": "TinyViT encoder, the challenge's baseline",
        "source": "CVPR 2024 MedSAM on Laptop, baseline",
    },
    "swiftmedsam_v1": {"name": "swiftmedsam_v1", "family": "swiftmedsam", "source": "SwiftMedSAM, section 2"},
    "swiftmedsam_v2": {"name": "swiftmedsam_v2", "family": "swiftmedsam", "source": "SwiftMedSAM, section 2"},
    "tiny": {"name": "litemedsam_tiny", "family": "litemedsam", "tiny": True, "source": "LiteMedSAM with small widths"},
    "tiny-depth2": {
        "name": "litemedsam_tiny",
        "family": "litemedsam",
        "tiny": True,
        "set": {"depth": 2},
        "base": "tiny",
        "ablation": "depth",
        "source": "LiteMedSAM with small widths",
    },
}
QUALITY = {"dummy": 0.71, "litemedsam": 0.42, "swiftmedsam_v1": 0.5, "swiftmedsam_v2": 0.47, "tiny": 0.63}
PARAMS = {"litemedsam": 9_791_300, "swiftmedsam_v1": 6_996_636, "swiftmedsam_v2": 5_942_388, "tiny": 812_340}
FLOPS = {"litemedsam": 39.6e9, "swiftmedsam_v1": 33.2e9, "swiftmedsam_v2": 27.4e9, "tiny": 2.1e9}
STEPS = {"litemedsam": 12, "swiftmedsam_v2": 12, "tiny": 120, "tiny-depth2": 120}


class SyntheticRun:
    """Builds ``root/runs/<id>/run.json`` and ``root/store``; change `data` or `records`, then `write`."""

    def __init__(self, root: Path, run_id: str = "20260102-030405-quickstart", cases_per_modality: int = 1) -> None:
        self.folder = root / "runs" / run_id
        self.store = root / "store"
        self.random = random.Random(7)
        self.records: dict[str, list[Record]] = {}
        self.cases = [
            (f"{'3DBox' if m in VOLUME_MODALITIES else '2DBox'}_{m.replace('-', '')}_{i:04d}", m)
            for m in MODALITIES
            for i in range(cases_per_modality)
        ]
        self.data: dict[str, Any] = self._head(run_id)
        for label in VARIANTS:
            self._jobs_of(label)

    def write(self) -> tuple[Path, Path]:
        """Write everything; returns the run folder and the root of the store."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "run.json").write_text(json.dumps(self.data, indent=1))
        store = FolderStore(self.store)
        (self.store / "records").mkdir(parents=True, exist_ok=True)
        for digest, records in self.records.items():
            # Not put_if_absent: its fsync, thirty times a test, is most of the time the tests take.
            store.path(records_key(digest)).write_bytes(seal(records))
        return self.folder, self.store

    def job(self, kind: str, variant: str, **match: Any) -> dict[str, Any]:
        """The job of the run with these fields."""
        wanted = {"kind": kind, "variant": variant, **match}
        found = [j for j in self.data["jobs"] if all(j[k] == v for k, v in wanted.items())]
        assert len(found) == 1, f"{len(found)} jobs match {wanted}"
        return found[0]

    def replace(self, digest: str, records: Sequence[Record]) -> None:
        """Other records for a job."""
        self.records[digest] = list(records)

    def scale(self, kind: str, variant: str, metric: str, factor: float, **match: Any) -> None:
        """Multiply the values of one metric in the matching jobs."""
        for job in self.data["jobs"]:
            if job["kind"] == kind and job["variant"] == variant and all(job[k] == v for k, v in match.items()):
                old = self.records.get(job["digest"], [])
                self.records[job["digest"]] = [_scaled(r, factor) if r.metric == metric else r for r in old]

    def _head(self, run_id: str) -> dict[str, Any]:
        defaults = {"set": {}, "summary": "", "source": "", "tiny": False, "base": None, "ablation": None}
        return {
            "format": 1,
            "id": run_id,
            "suite": {
                "name": "quickstart",
                "title": "Quick start",
                "description": "Every part of the bench once, in minutes on two cores.",
                "path": "suites/quickstart.yaml",
            },
            "status": "finished",
            "started": "2026-01-02T03:04:05Z",
            "finished": "2026-01-02T03:09:47Z",
            "seconds": 342.1,
            "command": ["bench", "run", "suites/quickstart.yaml", "budget.steps=12"],
            "overrides": ["budget.steps=12"],
            "provenance": {
                "git": {"commit": "4f1c2d9a7be0c4a55e6f7d8c9b0a1f2e3d4c5b6a", "dirty": True},
                "versions": {"medsam-bench": "0.1.0", "numpy": "2.4.6", "python": "3.11.9", "torch": "2.13.0"},
                "machine": {
                    "fingerprint": "b3c1a0ffeedd0011",
                    "cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
                    "cores": 2,
                    "memory_bytes": 16 * 1024**3,
                    "isa": ["avx2", "avx512f", "amx_bf16"],
                    "os": "Debian GNU/Linux 12",
                    "kernel": "6.1.0-18-cloud-amd64",
                    "docker": None,
                },
                "seeds": [0],
                "datasets": {
                    "phantoms": {
                        "digest": sha256(b"phantoms").hexdigest(),
                        "kind": "phantoms",
                        "cases": len(self.cases),
                        "description": "generated cases of all modalities",
                    }
                },
            },
            "gates": [
                {"metric": "dsc", "variants": ["*"], "protocol": "strict", "max_drop": 0.02},
                {"metric": "wall", "variants": ["*"], "protocol": None, "max_ratio": 1.2},
            ],
            "variants": {label: {**defaults, **v} for label, v in VARIANTS.items()},
            "jobs": [],
        }

    def _add(self, kind: str, variant: str, records: list[Record] | None, **fields: Any) -> str:
        name = json.dumps([kind, variant, fields.get("deployment"), fields.get("sandbox")])
        digest = sha256(name.encode()).hexdigest()
        job = {"digest": digest, "kind": kind, "variant": variant, "deployment": None, "dataset": None, "sandbox": None}
        job |= {"seed": 0, "needs": [], "state": "done", "reason": None, "settings": {}, **fields}
        self.data["jobs"].append(job)
        if records is not None:
            self.records[digest] = records
        return digest

    def _jobs_of(self, label: str) -> None:
        needs: list[str] = []
        if label == "swiftmedsam_v1":
            reason = "training stopped: the loss is not a number at step 3; lower `learning_rate`"
            needs = [self._add("train", label, None, state="failed", reason=reason, settings={"steps": 12})]
            blocked = {"needs": needs, "state": "skipped", "reason": "its training failed", "dataset": "phantoms"}
            settings = {"protocols": ["strict", "cvpr24"]}
            self._add("accuracy", label, None, deployment="default", settings=settings, **blocked)
        elif label in STEPS:
            needs = [self._add("train", label, self._train(STEPS[label]), settings={"steps": STEPS[label]})]
        if label != "swiftmedsam_v1":
            common = {"deployment": "default", "dataset": "phantoms", "needs": needs}
            self._add(
                "accuracy",
                label,
                self._accuracy(label),
                settings={"protocols": ["strict", "cvpr24"], "loop": LOOP},
                **common,
            )
            for deployment in ("default", "keep pages") if label == "litemedsam" else ("default",):
                common["deployment"] = deployment
                settings = {"protocol": "strict"}
                timed = self._runtime(label, 0.8 if deployment == "keep pages" else 1)
                self._add("runtime", label, timed, sandbox="process", settings=settings, **common)
                skipped = {"state": "skipped", "reason": NO_DOCKER, **common}
                self._add("runtime", label, None, sandbox="docker", settings=settings, **skipped)
        self._add("complexity", label, self._complexity(label))

    def _train(self, steps: int) -> list[Record]:
        losses = [2.1 * (0.35 + 0.65 / (1 + i / 9)) + self.random.gauss(0, 0.06) for i in range(steps)]
        curve = [Record("train_loss", loss, repeat=i) for i, loss in enumerate(losses)]
        return [*curve, Record("train_steps", float(steps)), Record("converged", 0.0)]

    def _accuracy(self, label: str) -> list[Record]:
        quality = QUALITY.get(label, 0.59)
        records = []
        for case, modality in self.cases:
            about: dict[str, Any] = {"case": case, "modality": modality, "ndim": 3 if case.startswith("3D") else 2}
            if label == "swiftmedsam_v2" and modality == "PET":
                reason = "the decoder returned values that are not finite"
                records += [
                    Record(m, None, protocol=p, status="invalid-output", reason=reason, **about)
                    for p in ("strict", "cvpr24")
                    for m in ("dsc", "nsd")
                ]
                continue
            values = [min(1.0, max(0.02, self.random.gauss(quality, 0.12))) for _ in range(self.random.randint(2, 5))]
            for i, value in enumerate(values, 1):
                records.append(Record("dsc", value, object=i, protocol="strict", **about))
                records.append(Record("nsd", value * 0.8, object=i, protocol="strict", **about))
            mean = sum(values) / len(values)
            records.append(Record("dsc", mean, protocol="cvpr24", **about))
            records.append(Record("nsd", mean * 1.1 if mean > 0.2 else 0.0, protocol="cvpr24", **about))
        return records

    def _runtime(self, label: str, factor: float) -> list[Record]:
        cost = factor * (0.02 + FLOPS.get(label, FLOPS["tiny"] if label != "dummy" else 0) / 30e9)
        records = [Record("memory_limit", 8.0 * 1024**3, protocol="strict"), Record("cpu_limit", 2, protocol="strict")]
        for case, modality in self.cases[:8]:
            about: dict[str, Any] = {"case": case, "modality": modality, "protocol": "strict"}
            about["ndim"] = 3 if case.startswith("3D") else 2
            if label == "litemedsam" and modality == "CT":
                for metric in ("wall", "peak_memory"):
                    records.append(Record(metric, None, status="oom", reason=OOM, repeat=0, **about))
                continue
            for repeat in range(2):
                records += self._one_cold_run(label, cost * (12 if about["ndim"] == 3 else 1), repeat, about)
        return records

    def _one_cold_run(self, label: str, cost: float, repeat: int, about: dict[str, Any]) -> list[Record]:
        fixed = {"start": 0.03, "interpreter": 0.05, "imports": 1.2 if label != "dummy" else 0.1, "read": 0.01}
        fixed |= {"model load": 0.3 if label != "dummy" else 0.0, "preprocess": 0.02, "encode": cost}
        fixed |= {"decode": 0.1 * cost + 0.05, "postprocess": 0.03, "write": 0.01, "exit": 0.03}
        fixed |= {"stop": 0.04, "unaccounted": 0.02}
        times = {p: fixed[p] * self.random.uniform(0.95, 1.1) for p in PHASES}
        rows = [Record("phase", times[p], phase=p, repeat=repeat, **about) for p in PHASES]
        rows.append(Record("wall", sum(times.values()), repeat=repeat, **about))
        rows.append(Record("peak_memory", (180 + 400 * cost) * 1e6, repeat=repeat, **about))
        rows.append(Record("peak_anonymous", (120 + 400 * cost) * 1e6, repeat=repeat, **about))
        return [*rows, Record("encodes", 12.0 if about["ndim"] == 3 else 1.0, repeat=repeat, **about)]

    def _complexity(self, label: str) -> list[Record]:
        if label == "dummy":
            why = "dummy has no network to count"
            return [Record(m, None, status="unsupported", reason=why) for m in ("params", "flops")]
        params, flops = PARAMS.get(label, 640_000), FLOPS.get(label, 1.6e9)
        share = dict(zip(PARTS, (0.58, 0.0007, 0.4193), strict=True))
        records = [Record("params", float(params)), Record("flops", flops)]
        records += [Record("params", float(round(params * share[p])), phase=p) for p in PARTS]
        records += [Record("flops", flops * s, phase=p) for p, s in zip(PARTS, (0.96, 0.0, 0.04), strict=True)]
        detail = json.dumps({"aten::gelu": 22, "aten::softmax": 9})
        return [*records, Record("uncounted_operators", 31.0, detail=detail)]


def _scaled(record: Record, factor: float) -> Record:
    values = {name: getattr(record, name) for name in record.__dataclass_fields__}
    if values["value"] is not None:
        values["value"] *= factor
    return Record(**values)
