"""The files that go into a sandbox and come out of it: the challenge's contract, checked."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Final

from harness.data.case import inspect_header, ndim_of
from harness.data.npz import read_arrays, read_headers
from harness.errors import BenchError

PROMPT_FIELDS: Final = ("imgs", "boxes", "spacing")
"""What a measured program may see of a case: everything but the ground truth."""

OUTPUT_LIMIT: Final = 2 * 1024**3
"""Bytes an output file may declare."""


def stage(case_file: Path, folder: Path) -> Path:
    """Put a case alone into the empty ``folder``, readable by everyone and without its ground truth.

    Returns:
        The staged file, of the same name.

    Raises:
        BenchError: the case file is not a case (see ``harness.data.case.inspect_header``).
    """
    inspect_header(case_file)
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / case_file.name
    with zipfile.ZipFile(case_file) as source:
        wanted = [info for info in source.infolist() if info.filename.removesuffix(".npy") in PROMPT_FIELDS]
        if len(wanted) == len(source.infolist()):
            shutil.copyfile(case_file, staged)
        else:
            with zipfile.ZipFile(staged, "w") as target:
                for info in wanted:
                    with source.open(info) as reading, target.open(_like(info), "w") as writing:
                        shutil.copyfileobj(reading, writing, 1 << 20)
    staged.chmod(0o644)
    folder.chmod(0o755)
    return staged


def _like(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(info.filename)
    member.compress_type = info.compress_type
    member.file_size = info.file_size  # tells zipfile whether the 64-bit layout is needed
    return member


def output_problem(case_file: Path, output_folder: Path) -> str | None:
    """What is wrong with the output of a case, or ``None``.

    The output is an npz of the case's name with ``segs``: a label map (H,W) or (D,H,W) of whole numbers between 0 and
    the number of boxes.
    """
    output = output_folder / case_file.name
    if not output.is_file():
        return f"no output: {case_file.name} is missing in the output folder"
    try:
        case = inspect_header(case_file)
        headers = read_headers(output, limit=OUTPUT_LIMIT)
        if "segs" not in headers:
            return f"{output.name}: field 'segs' is missing, the file has {', '.join(headers) or 'nothing'}"
        shape, dtype = headers["segs"].shape, headers["segs"].dtype
        expected = case.shape[: ndim_of(case.name)]
        if shape != expected:
            return f"{output.name}: 'segs' has shape {shape}, the case needs {expected}"
        if dtype.kind not in "ui":
            return (
                f"{output.name}: 'segs' has dtype {dtype}, the contract asks for whole numbers such as uint8 or uint16"
            )
        segs = read_arrays(output, ("segs",), limit=OUTPUT_LIMIT)["segs"]
    except BenchError as error:
        return str(error).replace(f"{output}", output.name)
    low, high = int(segs.min()), int(segs.max())
    if low < 0 or high > case.objects:
        return f"{output.name}: 'segs' holds labels {low}..{high}, the case has {case.objects} boxes"
    return None
