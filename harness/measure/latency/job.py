"""The latency job: warm encodings and decodings of one variant under one deployment with one number of threads.

The variant runs in a process of its own (`harness.measure.latency.worker`), and so does the machine's own matrix
product (`harness.measure.latency.gemm`).  A round is one encoding of a prepared image, one decoding of a box, and the
matrix product, one after the other; a unit of work is a block of `BLOCK` rounds.

Records of round n (``repeat`` = n; ``detail`` names threads, load average, and what disturbed the machine):

* ``latency``, phase ``encode`` and ``decode``: seconds.
* ``gemm_peak``: multiply-adds per second of the matrix product, for each precision that ``detail`` names.
* ``gemm_share``, phase ``encode``: multiply-adds of the encoder ÷ (seconds × the peak of the same round), so that a
  drift of the clock cancels.  The multiply-adds are those of the complexity job.  Of int8 there is none, and one record
  a block says why.

``throughput`` of a block is images per second, one image after the other; ``repeat`` is its first round.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import variants
from harness.config import Deployment, LatencySettings
from harness.errors import BenchError
from harness.failure import reason_of
from harness.inference.weights import why_unsupported
from harness.machine import this_machine, usable_cores
from harness.measure.latency.pipe import Child, ChildError
from harness.measure.runtime import disturbance
from harness.measure.runtime.bundle import environment_of, make_bundle
from harness.measure.runtime.process import environment
from harness.schema import Record, Status

if TYPE_CHECKING:
    from harness.jobs import JobContext, JobSpec

BLOCK = 5
"""Rounds of a unit of work."""
PAUSE_S = 0.05
"""Rest between the two processes: threads of one that still wait actively for work would disturb the other."""
WORKER, GEMM = "harness.measure.latency.worker", "harness.measure.latency.gemm"
TIMED = ("encode", "decode")
NO_INT8_SHARE = "no share of the matrix product: its limit is that of fp32, which int8 may exceed"
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


@dataclass(frozen=True)
class Work:
    """Multiply-adds of one encoding, or why there is no share of them; both ``None`` where there is no network."""

    multiply_adds: int | None = None
    problem: str | None = None
    status: Status = "crashed"
    fused: bool = False


@dataclass(frozen=True)
class Round:
    """What one round measured: seconds by phase, multiply-adds per second by precision, what disturbed the machine."""

    seconds: dict[str, float]
    peaks: dict[str, float]
    load: float | None = None
    disturbed: tuple[str, ...] = ()


def run(spec: JobSpec, context: JobContext) -> None:
    """Measure all rounds; see the module text.

    Raises:
        BenchError: the variant or its weights cannot be had; a variant that fails is a record.
    """
    settings, deployment = LatencySettings.model_validate(spec.settings), spec.deployment or Deployment()
    blocks = [range(n, min(n + BLOCK, settings.repeats)) for n in range(0, settings.repeats, BLOCK)]
    todo = [block for block in blocks if not context.done(_key(block))]
    if not todo or context.done("failed") or context.done("unsupported"):
        return
    why = refused(deployment) or why_unsupported(spec, context)
    if why is not None:
        context.append("unsupported", failing("unsupported", why, deployment.threads))
        return
    context.progress(1 - len(todo) / len(blocks), "counting the encoder's multiply-adds")
    work = encoder_work(spec)
    try:
        _measure(spec, todo, settings, work, context)
    except ChildError as error:
        context.append("failed", failing(error.status, error.reason, deployment.threads))


def refused(deployment: Deployment) -> str | None:
    """Why the number of threads means nothing on this machine, or ``None``."""
    cores = usable_cores()
    if deployment.threads <= cores:
        return None
    return f"{deployment.threads} threads asked for, but this machine has {cores} cores"


def precisions(deployment: Deployment) -> list[str]:
    """Precisions of the matrix product a deployment is held against: fp32, and bf16 where it and the CPU use it."""
    native = not BF16_FLAGS.isdisjoint(this_machine().isa)
    return ["fp32", "bf16"] if deployment.precision == "bf16" and native else ["fp32"]


def encoder_work(spec: JobSpec) -> Work:
    """Multiply-adds of the encoder by the convention of the complexity job, of the fused model where that is what runs.

    Raises:
        BenchError: the variant cannot be built.
    """
    deployment = spec.deployment or Deployment()
    try:
        if not variants.resolve(spec.variant.name, spec.variant.set).needs_torch:
            return Work()
        if deployment.precision == "int8":
            return Work(problem=NO_INT8_SHARE, status="unsupported")
        overrides: dict[str, Any] = dict(spec.variant.set)
        model: Any = variants.create(spec.variant.name, seed=spec.weights.seed, **overrides)
        model = variants.fuse(model, verify=False) if deployment.fuse else model
    except variants.VariantError as error:
        raise BenchError(str(error)) from error
    from harness.measure.complexity.multiply_adds import count_module

    try:
        return Work(count_module(model.eval(), "image_encoder", ("box",), 1), fused=deployment.fuse)
    except Exception as error:  # a model fvcore cannot trace still has times to show
        return Work(problem=f"fvcore cannot trace the encoder: {reason_of(error)}")


def _measure(spec: JobSpec, todo: Sequence[range], settings: LatencySettings, work: Work, context: JobContext) -> None:
    deployment = spec.deployment or Deployment()
    bundle = make_bundle(spec, context)
    surroundings = environment(bundle)
    limit = surroundings | environment_of(deployment.model_copy(update={"allocator": "keep-pages"}))
    with ExitStack() as stack:
        gemm = stack.enter_context(Child(GEMM, limit, context.work / "gemm.log"))
        chosen = gemm.ask("open", threads=deployment.threads, precisions=precisions(deployment))
        context.progress(todo[0].start / settings.repeats, "loading the model and warming it up")
        worker = stack.enter_context(Child(WORKER, surroundings, context.work / "worker.log"))
        worker.ask("open", bundle=str(bundle.folder))
        measured = Rounds(worker, gemm)
        for block in todo:
            rounds = []
            for number in block:
                context.progress(number / settings.repeats, f"round {number + 1} of {settings.repeats}")
                rounds.append(measured.next())
            context.append(_key(block), list(records(block, rounds, chosen, work, deployment.threads)))
    context.progress(1.0, "done")


class Rounds:
    """Rounds by two processes in turn, and whether the machine was left alone meanwhile."""

    def __init__(self, worker: Child, gemm: Child) -> None:
        self._worker, self._gemm = worker, gemm
        self._fastest_s = float("inf")

    def next(self) -> Round:
        """One round."""
        time.sleep(PAUSE_S)
        before = disturbance.read_state()
        seconds = self._worker.ask("round")
        time.sleep(PAUSE_S)
        peaks = self._gemm.ask("round")
        time.sleep(PAUSE_S)
        after = disturbance.read_state()
        self._fastest_s = min(self._fastest_s, before.probe_s, after.probe_s)
        found = disturbance.compare(before, after, self._fastest_s)
        return Round(seconds, peaks, before.load[0] if before.load else None, tuple(found["disturbed"]))


def records(
    block: range, rounds: Sequence[Round], chosen: dict[str, dict[str, Any]], work: Work, threads: int
) -> Iterator[Record]:
    """The records of a block of rounds; ``chosen``: library and size of the matrix product of each precision."""
    for number, measured in zip(block, rounds, strict=True):
        about = {"threads": threads, "load": measured.load, "disturbed": measured.disturbed}
        for phase in TIMED:
            yield Record("latency", measured.seconds[phase], phase=phase, repeat=number, detail=_text(about))
        for precision, peak in measured.peaks.items():
            by = {**about, "precision": precision}
            yield Record("gemm_peak", peak, repeat=number, detail=_text(by | chosen[precision]))
            if work.multiply_adds is not None:
                share = work.multiply_adds / (measured.seconds["encode"] * peak)
                by |= {"multiply_adds": work.multiply_adds, "fused": work.fused}
                yield Record("gemm_share", share, phase="encode", repeat=number, detail=_text(by))
    if work.problem:
        detail = _text({"threads": threads})
        yield Record("gemm_share", phase="encode", status=work.status, reason=work.problem, detail=detail)
    images, total = len(rounds), sum(measured.seconds["encode"] for measured in rounds)
    detail = _text({"threads": threads, "images": images})
    yield Record("throughput", images / total, phase="encode", repeat=block.start, detail=detail)


def failing(status: Status, reason: str, threads: int) -> list[Record]:
    """The records of a job that measured nothing, or nothing more."""
    detail = _text({"threads": threads})
    return [Record("latency", phase=p, status=status, reason=reason, detail=detail) for p in TIMED]


def _key(block: range) -> str:
    return f"rounds/{block.start}"


def _text(data: dict[str, Any]) -> str:
    return json.dumps(data, sort_keys=True)
