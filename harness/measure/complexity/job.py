"""The complexity job: one convention for every variant, cross-checks, and the papers' own figures recomputed.

The convention: fvcore on the model in eval mode, one image of the model's own input size (batch 1), one box, one mask.
A multiply-add counts as one; a figure in FLOPs, two per multiply-add, says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import variants
from harness.config import ComplexitySettings
from harness.errors import BenchError
from harness.measure.complexity import multiply_adds
from harness.measure.complexity.multiply_adds import WHOLE_AND_PARTS, Count
from harness.measure.conventions import Figure, figures_of
from harness.schema import PARTS, Record

if TYPE_CHECKING:
    from harness.jobs import JobContext, JobSpec
    from harness.measure.complexity.execution import Execution

KEY = "complexity"
PUBLISHED = "published"
CONVENTION = "fvcore; 1 multiply-add = 1; eval; batch 1; one box"
CROSS_CHECK = (
    "torch's FlopCounterMode counts matrix products and convolutions, 2 FLOPs per multiply-add: halved here; "
    "fvcore counts normalisation as well, and some forms of einsum to four digits only"
)
EINSUM_DIGITS = 5e-4


def run(spec: JobSpec, context: JobContext) -> None:
    """Count a variant, and recompute its published figures where the settings ask for them: two units of work.

    Raises:
        BenchError: the variant cannot be built.
    """
    settings = ComplexitySettings.model_validate(spec.settings)
    wanted = (KEY, PUBLISHED) if settings.published else (KEY,)
    if all(context.done(key) for key in wanted):
        return
    context.progress(0.0, spec.variant.name)
    try:
        resolved = variants.resolve(spec.variant.name, spec.variant.set)
        overrides: dict[str, Any] = dict(spec.variant.set)
        model = variants.create(spec.variant.name, seed=spec.weights.seed, **overrides)
    except variants.VariantError as error:
        raise BenchError(str(error)) from error
    if not context.done(KEY):
        counted = _records(model, resolved.prompts) if resolved.needs_torch else _without_torch(resolved.params)
        context.append(KEY, counted)
    if settings.published and not context.done(PUBLISHED):
        figures = figures_of(resolved) if resolved.needs_torch else ()
        context.append(PUBLISHED, published_records(model, figures, context.progress))


def _records(model: Any, prompts: tuple[str, ...]) -> Iterator[Record]:
    yield from parameter_records(model)
    flops = list(flop_records(model, prompts))
    yield from flops
    yield from execution_records(model, flops)


def parameter_records(model: Any) -> Iterator[Record]:
    """``params`` of the whole model and of each part, trainable or not, buffers left out."""
    yield Record("params", float(_parameters(model)))
    for part in PARTS:
        yield Record("params", float(_parameters(getattr(model, part))), phase=part)


def flop_records(model: Any, prompts: tuple[str, ...] = ("box",)) -> Iterator[Record]:
    """``flops`` and ``uncounted_operators`` of the whole model and of each part; ``crashed`` if it cannot be traced.

    For a variant that is given more than a box, ``flops_with_prompts`` as well.
    """
    try:
        counts = multiply_adds.count_flops(model)
        with_prompts = multiply_adds.count_flops(model, prompts) if prompts != ("box",) else {}
    except Exception as error:  # a model fvcore cannot trace still has parameters to show
        yield from _crashed(("flops", "uncounted_operators"), "fvcore cannot trace the model", error)
        return
    for phase, count in counts.items():
        yield Record("flops", float(count.flops), phase=phase, detail=_flop_detail(model, count, ("box",)))
        times = sum(count.uncounted.values())
        yield Record("uncounted_operators", float(times), phase=phase, detail=_text(dict(count.uncounted)))
    for phase, count in with_prompts.items():
        detail = _flop_detail(model, count, prompts)
        yield Record("flops_with_prompts", float(count.flops), phase=phase, detail=detail)


def _flop_detail(model: Any, count: Count, prompts: tuple[str, ...]) -> str:
    convention = CONVENTION.replace("one box", f"{model.input_size} × {model.input_size}; one {' + '.join(prompts)}")
    by_operator = dict(count.by_operator)
    return _text({"convention": convention, "by_operator": by_operator, "normalisation": count.normalisation})


def execution_records(model: Any, flops: Iterable[Record] = ()) -> Iterator[Record]:
    """``params_unused``, ``activation_peak`` and ``flops_cross_check``; ``crashed`` if shapes alone cannot tell.

    Args:
        model: a torch variant.
        flops: the records of `flop_records`, with which the cross-check is compared.
    """
    from harness.measure.complexity import execution

    try:
        seen = execution.execution(model)
    except Exception as error:  # e.g. a model whose flow depends on values: its other figures stand
        metrics = ("params_unused", "activation_peak", "flops_cross_check")
        yield from _crashed(metrics, "the model cannot be run on shapes alone", error)
        return
    detail = {"rule": execution.UNUSED_RULE, "never": dict(seen.never), "not_with_one_box": seen.not_with_one_box}
    yield Record("params_unused", float(sum(seen.never.values())), detail=_text(detail))
    for part in PARTS:
        unused = sum(n for module, n in seen.never.items() if module.split(".")[0] == part)
        yield Record("params_unused", float(unused), phase=part)
    for phase, size in seen.activation_peak.items():
        yield Record("activation_peak", float(size), phase=phase, detail=_text({"method": execution.PEAK_METHOD}))
    yield from _cross_check(seen, {r.phase: r for r in flops if r.metric == "flops" and r.status == "ok"})


def _cross_check(seen: Execution, flops: Mapping[str | None, Record]) -> Iterator[Record]:
    """Half of the FLOPs of torch's counter, with what explains the difference to fvcore and what does not."""
    for phase, counted in seen.cross_check.items():
        detail: dict[str, Any] = {"counter": CROSS_CHECK, "flops": counted}
        if phase in flops and flops[phase].value is not None:
            record = flops[phase]
            said = json.loads(record.detail or "{}")
            difference = (record.value or 0) - counted / 2
            rest = difference - said["normalisation"]
            rounding = rest if abs(rest) <= EINSUM_DIGITS * said["by_operator"].get("einsum", 0) else 0.0
            detail |= {"fvcore_minus_this": difference, "normalisation": said["normalisation"]}
            detail |= {"einsum_rounding": rounding, "unexplained": rest - rounding}
        yield Record("flops_cross_check", counted / 2, phase=phase, detail=_text(detail))


def published_records(
    model: Any, figures: Iterable[Figure], progress: Callable[[float, str], None]
) -> Iterator[Record]:
    """``published_params`` and ``published_flops``: each printed figure by its own convention.

    ``detail`` holds the figure, the recomputed value as it would be printed, and whether the two agree.
    """
    from harness.measure.complexity import published

    figures = list(figures)
    for number, figure in enumerate(figures, 1):
        metric = f"published_{figure.quantity}"
        about = {**figure.model_dump(mode="json"), "convention": figure.convention}
        progress(number / (len(figures) + 1), f"{figure.variant}, {figure.printed}")
        try:
            value = published.recompute(model, figure)
        except published.MissingCounter as error:
            yield Record(metric, phase=_phase(figure), status="unsupported", reason=str(error), detail=_text(about))
            continue
        except Exception as error:  # one figure that cannot be counted must not take the others with it
            reason = _reason(f"{figure.counter} cannot count {figure.part}", error)
            yield Record(metric, phase=_phase(figure), status="crashed", reason=reason, detail=_text(about))
            continue
        about |= {"recomputed": figure.as_printed(value), "agrees": figure.agrees(value)}
        yield Record(metric, value, phase=_phase(figure), detail=_text(about))


def _phase(figure: Figure) -> str | None:
    return figure.part.partition(".")[0] if figure.module else None


def _without_torch(params: int | None) -> Iterator[Record]:
    """Records of a variant that is not a torch module."""
    why = "the variant is not a torch module, so there is no graph to count"
    if params is None:
        yield Record("params", status="unsupported", reason="the variant is not a torch module and states no count")
    else:
        yield Record("params", float(params))
    if params == 0:
        yield from (Record("params", 0.0, phase=part) for part in PARTS)
    for metric in ("flops", "uncounted_operators"):
        yield from (Record(metric, phase=phase, status="unsupported", reason=why) for phase in WHOLE_AND_PARTS)


def _crashed(metrics: Iterable[str], what: str, error: Exception) -> Iterator[Record]:
    reason = _reason(what, error)
    for metric in metrics:
        yield from (Record(metric, phase=phase, status="crashed", reason=reason) for phase in WHOLE_AND_PARTS)


def _reason(what: str, error: Exception) -> str:
    return f"{what}: {type(error).__name__}: {error}".splitlines()[0]


def _text(data: Mapping[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, ensure_ascii=False)


def _parameters(module: Any) -> int:
    return sum(int(p.numel()) for p in module.parameters())
