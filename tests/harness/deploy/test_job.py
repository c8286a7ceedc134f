"""The deploy job: prepared files, how far they are from the reference, and reasons where it does not apply."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from harness.config import AccuracySettings, Deployment, FidelitySettings, PhantomData, VariantRef
from harness.deploy.job import run
from harness.inference import InputRules, open_session
from harness.jobs import JobSpec
from harness.measure import accuracy

SETTINGS = FidelitySettings(images=1, repeats=1).model_dump(mode="json")


@dataclass
class Context:
    """A job context with a store of artifacts in a folder."""

    root: Path
    journal: dict = field(default_factory=dict)
    digest: str = "prepared"

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def alone(self):
        return nullcontext()

    def done(self, key):
        return key in self.journal

    def append(self, key, records):
        self.journal[key] = list(records)

    def progress(self, fraction, message):
        assert 0 <= fraction <= 1
        assert message

    def artifact(self, name):
        path = self.root / "artifacts" / name
        return path if path.is_file() else None

    def put_artifact(self, name, path):
        target = self.root / "artifacts" / self.digest / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())

    def value(self, metric, phase=None):
        return next(r for r in self.journal["deployment"] if r.metric == metric and r.phase == phase)


def deploy(root: Path, variant: str, **deployment) -> Context:
    context = Context(root)
    run(spec_of(variant, **deployment), context)
    return context


def spec_of(variant: str, settings: dict = SETTINGS, **deployment) -> JobSpec:
    chosen = Deployment(threads=1, **deployment)
    return JobSpec(kind="deploy", variant=VariantRef(name=variant), deployment=chosen, settings=settings)


@pytest.fixture(scope="module")
def onnxruntime(tmp_path_factory) -> Context:
    return deploy(tmp_path_factory.mktemp("onnxruntime"), "litemedsam_tiny", backend="onnxruntime")


def test_a_deployment_is_prepared_compared_and_stored(onnxruntime):
    context = onnxruntime
    assert context.value("mask_agreement").value >= 0.9999
    assert context.value("logit_difference").value < 1e-4
    assert context.value("speed_ratio").detail is not None
    description = json.loads(context.artifact("prepared/deployment.json").read_text())
    assert description["unsupported"] is None
    for name in description["files"].values():
        assert context.artifact(f"prepared/{name}") is not None


def test_prepared_files_segment_as_torch_does(onnxruntime):
    folder = onnxruntime.artifact("prepared/deployment.json").parent
    variant = VariantRef(name="litemedsam_tiny")
    image = np.random.default_rng(0).random((1, 3, 256, 256), dtype=np.float32)
    boxes = np.array([[40, 60, 180, 200], [10, 20, 90, 250]], dtype=np.float32)
    outputs = []
    for backend, prepared in (("torch", None), ("onnxruntime", folder)):
        session = open_session(variant, Deployment(backend=backend, threads=1), prepared=prepared)
        outputs.append(session.decode(session.encode(image), boxes)[0])
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=0, atol=1e-4)


def test_volumes_are_segmented_by_both_where_they_are_asked_for(tmp_path):
    data = PhantomData(seed=3, volumes=1, size=64, volume_size=48, slices=5, modalities=("CT", "US"))
    settings = FidelitySettings(images=1, repeats=1, volumes=data).model_dump(mode="json")
    context = Context(tmp_path)
    run(spec_of("litemedsam_tiny", settings, backend="onnxruntime"), context)
    record = context.value("volume_dsc")
    assert record.value >= 0.999
    assert json.loads(record.detail)["volumes"] == 1


@pytest.mark.parametrize("fields", [{"volumes": 0}, {"volumes": 2, "modalities": ("US",)}])
def test_a_data_set_without_volumes_is_refused_where_volumes_are_compared(fields):
    with pytest.raises(ValueError, match=r"no volumes: give `volumes` at least 1 and a modality of CT, MR, PET"):
        FidelitySettings(volumes=PhantomData(**fields))


def test_what_does_not_apply_is_a_record_with_its_reason_and_stays_one_in_every_measurement(tmp_path):
    context = deploy(tmp_path, "dummy", backend="onnxruntime")
    record = context.value("mask_agreement")
    assert (record.status, record.value) == ("unsupported", None)
    assert "computes with numpy" in record.reason
    data = PhantomData(seed=3, per_modality=1, size=64, modalities=("US",))
    settings = AccuracySettings(protocols=("strict",)).model_dump(mode="json")
    spec = spec_of("dummy", backend="onnxruntime").model_copy(
        update={"kind": "accuracy", "dataset": data, "settings": settings, "deploy_job": "prepared"}
    )
    context.journal.clear()
    accuracy.run(spec, context)
    found = [record for records in context.journal.values() for record in records]
    assert {r.status for r in found} == {"unsupported"}
    assert all("computes with numpy" in r.reason for r in found)


def test_fusing_where_nothing_can_be_folded_is_unsupported(tmp_path):
    record = deploy(tmp_path, "medsam_vit_tiny", fuse=True).value("mask_agreement")
    assert record.status == "unsupported"
    assert "nothing to fuse" in record.reason


@pytest.mark.parametrize(
    "deployment", [{"channels_last": True}, {"precision": "bf16"}, {"precision": "int8"}, {"fuse": True}]
)
def test_torch_deployments_stay_close_to_the_reference(tmp_path, deployment):
    context = deploy(tmp_path, "rep_medsam_tiny", **deployment)
    assert context.value("mask_agreement").value > 0.9
    exact = deployment.get("precision", "fp32") == "fp32"
    assert not exact or context.value("mask_agreement").value >= 0.9999
    if deployment.get("precision") == "int8":
        assert context.value("quantised_layers").value > 0
        assert 0 < context.value("quantised_share").value < 1


def test_a_file_that_does_not_do_what_the_model_does_is_an_invalid_output(tmp_path, monkeypatch):
    from harness.deploy import RefusedError

    def wrong(graph, path):
        path.with_name("encoder.onnx").write_bytes(b"half")
        raise RefusedError(f"{path.name}: refused, because at N = 3 prompts logits has shape (1, 1, 256, 256)")

    monkeypatch.setattr("harness.deploy.onnx.export_onnx", wrong)
    context = deploy(tmp_path, "litemedsam_tiny", backend="onnxruntime")
    record = context.value("mask_agreement")
    assert record.status == "invalid-output"
    assert "encoder.onnx: refused" in record.reason
    stored = [path.name for path in (tmp_path / "artifacts" / "prepared").iterdir()]
    assert stored == ["deployment.json"]


def test_a_deployment_without_its_files_is_refused(tmp_path):
    from harness.errors import BenchError

    with pytest.raises(BenchError, match="prepared"):
        open_session(VariantRef(name="litemedsam_tiny"), Deployment(backend="onnxruntime"))


def test_the_rules_a_deployment_is_compared_under_are_the_variants_own():
    import variants

    assert InputRules.of(variants.spec("swin_litemedsam_tiny")).prompts == ("box", "points", "scribble")
