"""`bench score`: a folder of predictions against a folder of ground truth, whoever made them."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.data.case import MAX_LABEL, check_truth_headers, ndim_of, spacing_from, truth_from
from harness.data.folder import case_files
from harness.data.npz import ArrayHeader, read_arrays, read_headers
from harness.errors import BenchError
from harness.metrics import METRICS_OF, CaseResult, LabelMaps, score_cases
from harness.metrics.score import Protocol
from harness.schema import METRICS, modality_of

if TYPE_CHECKING:
    from harness.stats import Interval

COLUMNS = ("case", "modality", "protocol", "object", "metric", "value", "unit", "problem")


def score_folders(
    truth: str,
    predictions: str,
    protocols: Sequence[str],
    metrics: Sequence[str],
    out: str | None,
    processes: int | None,
    as_json: bool,
) -> int:
    """Score every case of the ground truth, print a table or JSON and write a CSV file.

    Returns:
        0, or 1 if a case could not be scored: it is named with the reason, and the others are scored.

    Raises:
        BenchError: a folder is missing or empty, an unknown protocol or metric, or a CSV file that cannot be written.
    """
    chosen = _known("protocol", protocols or list(METRICS_OF), list(METRICS_OF))
    wanted = _known("metric", metrics or ["dsc", "nsd"], list(METRICS_OF["strict"]))
    lacking = [name for name in wanted if not any(name in METRICS_OF[cast(Protocol, p)] for p in chosen)]
    if lacking:
        raise BenchError(
            f"--metric {lacking[0]}: protocol {', '.join(chosen)} does not have it; add --protocol strict."
        )
    if out and not Path(out).resolve().parent.is_dir():
        raise BenchError(f"--out {out}: there is no such folder; make it first.")
    if processes is not None and processes < 1:
        raise BenchError(f"--processes {processes}: at least one process is needed; leave it out for all processors.")
    folder = Path(predictions)
    if not folder.is_dir():
        raise BenchError(f"{predictions}: is not a folder; give the folder of predicted npz files (field 'segs').")
    files = case_files(Path(truth))
    cases = [(file.stem, partial(load_maps, file, folder / file.name)) for file in files]
    results = list(score_cases(cases, [cast(Protocol, p) for p in chosen], wanted, min(processes or 64, _cores())))
    rows = [row for result in results for row in rows_of(result)]
    if out:
        _write(Path(out), rows)
    if as_json:
        print(json.dumps(rows, indent=1))  # noqa: T201
    else:
        _show(results, chosen, wanted)
    bad = [result for result in results if result.problem]
    for result in bad:
        print(f"problem: {result.problem}", file=sys.stderr)  # noqa: T201
    return 1 if bad else 0


def load_maps(truth: Path, prediction: Path) -> LabelMaps:
    """Ground truth (field ``gts``, and ``spacing`` of a volume) and prediction (field ``segs``) of a case.

    Raises:
        BenchError: a file or a field is missing or no label map, or the two differ in size.
    """
    size = _size_of(truth)
    arrays = read_arrays(truth, ("gts", "spacing"), check=lambda p, h: check_truth_headers(p, h, size))
    stored = arrays.get("spacing")
    spacing = spacing_from(truth, stored) if stored is not None and len(size) == 3 else None
    if not prediction.is_file():
        raise BenchError(f"{prediction}: the prediction of case {truth.stem} is missing; add the file")
    segs = read_arrays(prediction, ("segs",), check=partial(_check_prediction, size))["segs"].reshape(size)
    if segs.dtype.kind == "i" and segs.size and int(segs.min()) < 0:
        raise BenchError(f"{prediction}: field 'segs' holds the label {int(segs.min())}; labels begin at 0")
    if segs.dtype.itemsize > 2 and segs.size and int(segs.max()) > MAX_LABEL:
        raise BenchError(f"{prediction}: field 'segs' holds the label {int(segs.max())}; the largest is {MAX_LABEL}")
    return LabelMaps(truth_from(truth, arrays["gts"], size), segs, spacing)


def rows_of(result: CaseResult) -> Iterator[dict[str, Any]]:
    """One row a value: of every object under ``strict``, of the case under ``cvpr24``; one row a problem."""
    same = {"case": result.name, "modality": modality_of(result.name)}
    if result.problem:
        yield dict.fromkeys(COLUMNS) | same | {"problem": result.problem}
    for protocol, score in result.scores.items():
        values: list[tuple[int | None, dict[str, float]]] = [(None, score.case)]
        if protocol == "strict":
            values = [*score.objects.items()]
        for label, of_label in values:
            for metric, value in of_label.items():
                row = {"protocol": protocol, "object": label, "metric": metric, "unit": METRICS[metric].unit}
                yield dict.fromkeys(COLUMNS) | same | row | {"value": None if math.isnan(value) else value}


def _cores() -> int:
    from os import sched_getaffinity

    return len(sched_getaffinity(0))


def _known(what: str, names: Sequence[str], known: Sequence[str]) -> list[str]:
    for name in names:
        if name not in known:
            raise BenchError(f"--{what} {name}: not known; there are {', '.join(known)}.")
    return list(dict.fromkeys(names))


def _size_of(truth: Path) -> tuple[int, ...]:
    """(H,W) or (D,H,W) as the file of the ground truth declares it; the case's name says which."""
    headers = read_headers(truth)
    shape = headers["gts"].shape if "gts" in headers else ()
    ndim = ndim_of(truth.stem)
    return (
        shape[:2] if ndim == 2 and len(shape) == 3 and shape[2] == 1 else shape[:ndim] if len(shape) >= ndim else shape
    )


def _check_prediction(size: tuple[int, ...], path: Path, headers: dict[str, ArrayHeader]) -> None:
    if "segs" not in headers:
        has = ", ".join(headers) or "nothing"
        raise BenchError(f"{path}: field 'segs' is missing (the file has {has}); store the predicted label map")
    header = headers["segs"]
    if header.shape not in (size, (*size, 1)):
        raise BenchError(f"{path}: field 'segs' has shape {header.shape}, the ground truth {size}; predict every pixel")
    if header.dtype.kind not in "biu":
        raise BenchError(f"{path}: field 'segs' holds {header.dtype}; store whole-number labels (uint8 or uint16)")


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _show(results: list[CaseResult], protocols: list[str], metrics: list[str]) -> None:
    """A line a case and the mean of the cases; objects are in the CSV file."""
    shown = [(p, m) for p in protocols for m in metrics if m in METRICS_OF[cast(Protocol, p)]]
    table = Table(title="mean of a case's objects (strict), the challenge's case score (cvpr24)", title_justify="left")
    table.add_column("Case", no_wrap=True)
    table.add_column("Objects", justify="right")
    for protocol, metric in shown:
        table.add_column(f"{metric}\n{protocol}", justify="right")
    scored = [result for result in results if not result.problem]
    for result in scored:
        values = [result.scores[cast(Protocol, p)].case[m] for p, m in shown]
        objects = len(next(iter(result.scores.values())).objects)
        cells = [_cell(value, metric) for value, (_, metric) in zip(values, shown, strict=True)]
        table.add_row(escape(result.name), str(objects), *cells)
    if scored:
        table.add_section()
        for name, cells in _means(scored, shown):
            table.add_row(name, "", *cells)
    missing = len(results) - len(scored)
    lost = f"; {missing} of {len(results)} could not be scored and are in no mean" if missing else ""
    table.caption = f"n: cases with a value, if not all. In brackets the 95 % interval: BCa bootstrap of cases{lost}."
    Console().print(table)


def _means(scored: list[CaseResult], shown: list[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """Micro average, and the macro average over modalities where there are several: names and cells of their rows."""
    from harness.stats import macro_intervals, mean_intervals

    values = [[result.scores[cast(Protocol, p)].case[m] for p, m in shown] for result in scored]
    modalities = [modality_of(result.name) for result in scored]
    rows = [(f"micro average, {len(scored)} case{'s' if len(scored) != 1 else ''}", mean_intervals(values))]
    if len(set(modalities)) > 1:
        rows.append((f"macro average, {len(set(modalities))} modalities", macro_intervals(values, modalities).macro))
    for name, found in rows:
        yield name, [_mean_cell(one, metric, len(scored)) for one, (_, metric) in zip(found, shown, strict=True)]


def _mean_cell(found: Interval, metric: str, cases: int) -> str:
    parts = [_cell(found.mean, metric)]
    if not math.isnan(found.low):
        parts.append(escape(f"[{_cell(found.low, metric)}, {_cell(found.high, metric)}]"))
    return "\n".join([*parts, *([f"n {found.n}"] if 0 < found.n < cases else [])])


def _cell(value: float, metric: str) -> str:
    return "–" if math.isnan(value) else f"{value:.{METRICS[metric].decimals}f}"
