"""Warm latency: interleaved rounds, the machine's own limit beside them, and failures that are records."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.config import Deployment, LatencySettings, VariantRef
from harness.jobs import JobSpec
from harness.machine import usable_cores
from harness.measure.latency import gemm, job, pipe
from harness.measure.latency.pipe import Child, ChildError
from harness.measure.runtime.bundle import load_bundle, write_description
from harness.measure.runtime.process import environment
from harness.schema import Record
from tests.harness.measure import constant_gemm
from tests.harness.measure.support import PlainContext, complexity_of


def spec_of(variant: str, repeats: int, **deployment: Any) -> JobSpec:
    chosen = Deployment(**{"threads": 1, **deployment})
    settings = LatencySettings(repeats=repeats, threads=(chosen.threads,)).model_dump(mode="json")
    return JobSpec(kind="latency", variant=VariantRef(name=variant), deployment=chosen, settings=settings)


def of_metric(context: PlainContext, metric: str, phase: str | None = None) -> list[Record]:
    return [r for r in context.records if r.metric == metric and r.phase == phase]


def detail(record: Record) -> dict[str, Any]:
    return json.loads(record.detail or "{}")


@pytest.fixture
def constant(monkeypatch: pytest.MonkeyPatch) -> None:
    """A matrix product that takes no time."""
    monkeypatch.setattr(job, "GEMM", "tests.harness.measure.constant_gemm")
    monkeypatch.setattr(job, "PAUSE_S", 0.0)


@pytest.mark.usefixtures("constant")
def test_every_round_times_an_encoding_a_decoding_and_the_matrix_product(tmp_path: Path) -> None:
    context = PlainContext(tmp_path)
    job.run(spec_of("dummy", 7), context)
    assert list(context.units) == ["rounds/0", "rounds/5"]
    for phase in job.TIMED:
        records = of_metric(context, "latency", phase)
        assert [r.repeat for r in records] == list(range(7))
        assert all(r.value is not None and r.value > 0 and detail(r)["threads"] == 1 for r in records)
        assert all(detail(r)["load"] >= 0 and isinstance(detail(r)["disturbed"], list) for r in records)
    peaks = of_metric(context, "gemm_peak")
    assert [r.repeat for r in peaks] == list(range(7))
    assert {(r.value, detail(r)["precision"], detail(r)["library"]) for r in peaks} == {(50e9, "fp32", "constant 1.0")}
    # dummy has no network: no multiply-adds, so no share
    assert not of_metric(context, "gemm_share", "encode")


@pytest.mark.usefixtures("constant")
def test_throughput_is_the_images_of_a_block_over_their_seconds(tmp_path: Path) -> None:
    context = PlainContext(tmp_path)
    job.run(spec_of("dummy", 7), context)
    seconds = [r.value for r in of_metric(context, "latency", "encode")]
    first, second = of_metric(context, "throughput", "encode")
    assert first.value == pytest.approx(5 / sum(seconds[:5]))
    assert second.value == pytest.approx(2 / sum(seconds[5:]))
    assert [(r.repeat, detail(r)["images"]) for r in (first, second)] == [(0, 5), (5, 2)]


@pytest.mark.usefixtures("constant")
def test_an_interrupted_job_goes_on_with_the_blocks_that_are_missing(tmp_path: Path) -> None:
    context = PlainContext(tmp_path)
    context.units["rounds/0"] = []
    job.run(spec_of("dummy", 10), context)
    assert [r.repeat for r in of_metric(context, "latency", "encode")] == [5, 6, 7, 8, 9]
    messages = len(context.messages)
    job.run(spec_of("dummy", 10), context)
    assert len(context.messages) == messages


@pytest.mark.usefixtures("constant")
def test_the_share_is_the_encoders_multiply_adds_over_what_the_product_does_in_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "encoder_work", lambda spec: job.Work(multiply_adds=1_000_000, fused=True))
    context = PlainContext(tmp_path)
    job.run(spec_of("dummy", 2), context)
    shares = of_metric(context, "gemm_share", "encode")
    for share, taken in zip(shares, of_metric(context, "latency", "encode"), strict=True):
        assert share.value == pytest.approx(1_000_000 / (taken.value * constant_gemm.SPEED["fp32"]))
        assert (detail(share)["multiply_adds"], detail(share)["fused"], detail(share)["precision"]) == (
            10**6,
            True,
            "fp32",
        )


@pytest.mark.usefixtures("constant")
def test_an_encoder_that_cannot_be_counted_still_has_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "encoder_work", lambda spec: job.Work(problem="fvcore cannot trace the encoder: KeyError"))
    context = PlainContext(tmp_path)
    job.run(spec_of("dummy", 2), context)
    (share,) = of_metric(context, "gemm_share", "encode")
    assert (share.value, share.status, share.reason) == (None, "crashed", "fvcore cannot trace the encoder: KeyError")
    assert len(of_metric(context, "latency", "encode")) == 2


@pytest.mark.usefixtures("constant")
def test_int8_has_no_share_of_the_product_of_fp32_and_says_why(tmp_path: Path) -> None:
    spec = spec_of("litemedsam_tiny", 1, backend="onnxruntime", precision="int8")
    work = job.encoder_work(spec)
    assert (work.multiply_adds, work.status, work.problem) == (None, "unsupported", job.NO_INT8_SHARE)
    measured = job.Round({"encode": 1.0, "decode": 0.1}, {"fp32": 50e9})
    found = list(job.records(range(1), [measured], {"fp32": {"library": "constant 1.0", "size": 2}}, work, 1))
    (share,) = [r for r in found if r.metric == "gemm_share"]
    assert (share.value, share.status, share.reason) == (None, "unsupported", job.NO_INT8_SHARE)
    assert [r.value for r in found if r.metric == "gemm_peak"] == [50e9]


@pytest.mark.slow
def test_the_multiply_adds_are_those_of_the_complexity_job(tmp_path: Path) -> None:
    counted = complexity_of("litemedsam_tiny", tmp_path)["flops", "image_encoder"].value
    assert job.encoder_work(spec_of("litemedsam_tiny", 1)).multiply_adds == counted


@pytest.mark.slow
def test_a_fused_deployment_is_held_against_the_work_of_the_fused_encoder() -> None:
    plain, fused = (job.encoder_work(spec_of("rep_medsam_tiny", 1, fuse=fuse)) for fuse in (False, True))
    assert fused.fused
    assert not plain.fused
    assert 0 < (fused.multiply_adds or 0) < (plain.multiply_adds or 0)


def test_bf16_is_held_against_both_products_where_the_cpu_multiplies_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cpu:
        isa: tuple[str, ...] = ("avx512f", "avx512_bf16")

    monkeypatch.setattr(job, "this_machine", Cpu)
    assert job.precisions(Deployment(precision="bf16")) == ["fp32", "bf16"]
    assert job.precisions(Deployment(precision="fp32")) == ["fp32"]
    Cpu.isa = ("avx512f",)
    assert job.precisions(Deployment(precision="bf16")) == ["fp32"]


@pytest.mark.usefixtures("constant")
def test_a_deployment_that_does_not_apply_is_told_with_its_reason(tmp_path: Path) -> None:
    context = PlainContext(tmp_path)
    prepared = context.artifacts / "ab" / "deployment.json"
    prepared.parent.mkdir(parents=True)
    prepared.write_text(json.dumps({"unsupported": "variant 'dummy' has no graph"}))
    job.run(spec_of("dummy", 3, backend="onnxruntime").model_copy(update={"deploy_job": "ab"}), context)
    assert {(r.status, r.reason) for r in context.records} == {("unsupported", "variant 'dummy' has no graph")}
    assert [(r.metric, r.phase) for r in context.records] == [("latency", "encode"), ("latency", "decode")]


def test_more_threads_than_cores_are_refused_as_unsupported(tmp_path: Path) -> None:
    context = PlainContext(tmp_path)
    job.run(spec_of("dummy", 3, threads=usable_cores() + 1), context)
    assert {r.status for r in context.records} == {"unsupported"}
    assert f"this machine has {usable_cores()} cores" in str(context.records[0].reason)


@pytest.mark.usefixtures("constant")
def test_a_variant_that_fails_leaves_its_rounds_and_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, ask = PlainContext(tmp_path), Child.ask

    def dies(child: Child, what: str, **more: Any) -> dict[str, Any]:
        if what == "round" and "rounds/0" in context.units:
            raise ChildError("oom", "std::bad_alloc")
        return ask(child, what, **more)

    monkeypatch.setattr(Child, "ask", dies)
    job.run(spec_of("dummy", 10), context)
    assert list(context.units) == ["rounds/0", "failed"]
    assert {(r.metric, r.phase, r.status, r.reason) for r in context.units["failed"]} == {
        ("latency", "encode", "oom", "std::bad_alloc"),
        ("latency", "decode", "oom", "std::bad_alloc"),
    }


def test_a_child_that_dies_is_told_with_its_last_words(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    (tmp_path / "dies.py").write_text("import sys\nsys.stdin.readline()\nsys.exit('no such device')\n")
    with Child("dies", env, tmp_path / "log") as child, pytest.raises(ChildError, match="exit code 1: no such device"):
        child.ask("open")
    (tmp_path / "dies.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with Child("dies", env, tmp_path / "log") as child, pytest.raises(ChildError, match="signal 9"):
        child.ask("open")


def test_a_child_that_does_not_answer_is_a_timeout_and_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe, "ANSWER_S", 0.2)
    (tmp_path / "sleeps.py").write_text("import time\ntime.sleep(60)\n")
    begun = time.monotonic()
    with (
        pytest.raises(ChildError, match=r"no answer to 'open' within 0\.2 s") as told,
        Child("sleeps", {**os.environ, "PYTHONPATH": str(tmp_path)}, tmp_path / "log") as child,
    ):
        child.ask("open")
    assert told.value.status == "timeout"
    assert time.monotonic() - begun < 30


def test_the_process_that_is_timed_in_onnxruntime_imports_no_torch(tmp_path: Path) -> None:
    bundle = onnx_bundle(tmp_path / "bundle")
    with Child(job.WORKER, environment(load_bundle(bundle)), tmp_path / "log") as child:
        told = child.ask("open", bundle=str(bundle))
        seconds = child.ask("round")
    assert told["imported"] == ["onnxruntime"]
    assert told["versions"].keys() >= {"numpy", "opencv", "onnxruntime"}
    assert set(seconds) == {"encode", "decode"}
    assert all(value > 0 for value in seconds.values())


def onnx_bundle(folder: Path) -> Path:
    """A bundle whose encoder and decoder are one operator each."""
    import onnx
    from onnx import TensorProto, helper

    (folder / "prepared").mkdir(parents=True)
    nodes = {
        "encoder": ({"image": [1, 3, 16, 16]}, [("Relu", "image", "embedding")]),
        "decoder": (
            {"image_embedding": [1, 3, 16, 16], "boxes": [1, 4]},
            [("Relu", "image_embedding", "logits"), ("Relu", "boxes", "iou")],
        ),
    }
    for role, (inputs, operators) in nodes.items():
        graph = helper.make_graph(
            [helper.make_node(kind, [source], [target]) for kind, source, target in operators],
            role,
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [
                helper.make_tensor_value_info(target, TensorProto.FLOAT, inputs[source])
                for _, source, target in operators
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, str(folder / "prepared" / f"{role}.onnx"))
    described = {"unsupported": None, "input_size": 16, "prompts": ["box"], "facts": {"batch": "1"}}
    described["files"] = {role: f"{role}.onnx" for role in nodes}
    (folder / "prepared" / "deployment.json").write_text(json.dumps(described))
    write_description(
        folder,
        {
            "variant": {"name": "litemedsam_tiny", "set": {}},
            "deployment": Deployment(backend="onnxruntime", threads=1).model_dump(mode="json"),
            "rules": {},
            "seed": 0,
            "target": "onnxruntime",
            "weights": None,
            "prepared": "prepared",
            "environment": {"OMP_NUM_THREADS": "1"},
        },
    )
    return folder


def test_the_limit_is_the_fastest_library_and_size_that_has_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [gemm.Product("slow", "fp32", 8, lambda: sum(range(100_000))), gemm.Product("fast", "fp32", 8, lambda: None)]
    monkeypatch.setattr(gemm, "candidates", lambda precision, threads: made)
    assert gemm.best("fp32", 1) is made[1]
    monkeypatch.setattr(gemm, "candidates", lambda precision, threads: [])
    assert gemm.best("fp32", 1) is None


def test_numpy_and_torch_are_both_tried_in_fp32_and_torch_alone_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm, "SIZES", (16, 32))
    fp32, bf16 = ([(p.library.split()[0], p.size) for p in gemm.candidates(kind, 1)] for kind in ("fp32", "bf16"))
    assert fp32 == [("numpy", 16), ("torch", 16), ("numpy", 32), ("torch", 32)]
    assert bf16 == [("torch", 16), ("torch", 32)]
    monkeypatch.setitem(sys.modules, "torch", None)
    assert [p.library.split()[0] for p in gemm.candidates("fp32", 1)] == ["numpy", "numpy"]


def test_the_limit_of_a_round_is_the_best_of_several_products_after_one_that_is_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened: list[str] = []
    product = gemm.Product("counting", "fp32", 10, lambda: happened.append("product"))
    speeds = iter([5.0, 7.0, 6.0])

    def speed(self: gemm.Product, work: int = 0) -> float:
        happened.append("timing")
        return next(speeds)

    monkeypatch.setattr(gemm.Product, "speed", speed)
    assert product.peak() == 7.0
    assert happened == ["product", *["timing"] * gemm.ROUND_TRIES]


def test_a_small_product_is_repeated_until_it_makes_up_the_work() -> None:
    calls: list[int] = []
    product = gemm.Product("counting", "fp32", 10, lambda: calls.append(1))
    assert product.speed(2500) > 0
    assert len(calls) == 3


@pytest.mark.slow
def test_the_machines_own_limit_is_measured_beside_a_real_encoder(tmp_path: Path) -> None:
    context = PlainContext(tmp_path)
    job.run(spec_of("litemedsam_tiny", 2, precision="bf16"), context)
    for record in of_metric(context, "gemm_share", "encode"):
        assert 0 < (record.value or 0) < 1
    assert {detail(r)["library"].split()[0] for r in of_metric(context, "gemm_peak")} <= {"numpy", "torch"}
    assert all((r.value or 0) > 1e9 for r in of_metric(context, "gemm_peak"))
