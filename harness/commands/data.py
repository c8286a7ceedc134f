"""`bench data make`, `inspect`, `convert` and `split`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from harness.config import FolderData, ImagesData, NiftiData, PhantomData, StoredData
from harness.data.case import Case
from harness.data.folder import Progress as Report
from harness.data.inspect import Row, inspect, inspect_sources, make
from harness.errors import BenchError

IMAGE_FOLDERS = ("images", "imagesTr", "imgs")
LABEL_FOLDERS = ("labels", "labelsTr", "masks", "gts")
BOX_FOLDER = "boxes"
KINDS: dict[str, type[FolderData] | type[NiftiData] | type[ImagesData]] = {
    "npz": FolderData,
    "nifti": NiftiData,
    "images": ImagesData,
}


def make_phantoms(folder: str, fields: dict[str, Any]) -> None:
    """Generate phantoms into a new or empty folder.

    Raises:
        BenchError: the folder holds something already.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BenchError(f"{folder} exists and is not an empty folder; name a new one.")
    spec = PhantomData(**fields)
    with _bar("phantoms") as report:
        make(spec, target, report)
    count = len(list(target.glob("*.npz")))
    console = Console(stderr=True)
    console.print(f"{count} cases in {folder}; use them with `datasets.test={folder}`.", highlight=False)


def source_of(folder: str, kind: str | None, fields: dict[str, str | None], settings: list[str]) -> StoredData:
    """What the options of a command say about a data set.

    Args:
        folder: its folder, or one with sub-folders such as ``images`` and ``labels``.
        kind: npz, nifti or images; found out from the files if left out.
        fields: truth, boxes, modality as far as they are given.
        settings: ``KEY=VALUE`` for further fields of the kind.

    Raises:
        BenchError: no such folder; nothing in it says what it is; or a field is wrong.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise BenchError(f"{folder}: is not a folder; give the folder of the data set.")
    kind = kind or _kind_of(root)
    given: dict[str, Any] = {k: v for k, v in fields.items() if v is not None}
    if kind != "npz":
        inner = next((root / name for name in IMAGE_FOLDERS if (root / name).is_dir()), None)
        found = {"path": inner, "truth": _one_of(root, LABEL_FOLDERS), "boxes": _one_of(root, (BOX_FOLDER,))}
        beside = {k: str(v) for k, v in found.items() if v} if inner else {}
        given = beside | given
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise BenchError(f"--set {text}: is not KEY=VALUE; for example `--set window=lung`.")
        given[key] = yaml.safe_load(value)
    try:
        return KINDS[kind](**{"path": str(root), **given})
    except ValidationError as error:
        raise BenchError(_wrong_field(kind, given, error)) from None


def inspect_folder(spec: StoredData, sheet: str | None, as_json: bool) -> int:
    """Print the table of a data set's cases; 1 if any has a problem."""
    with _bar("reading") as report:
        rows = _rows(spec, report)
    bad = [row for row in rows if row.problems]
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1, default=str))  # noqa: T201
        return 1 if bad else 0
    console = Console()
    console.print(_table(spec.path, rows), soft_wrap=False)
    for row in rows:
        for text in row.problems:
            console.print(f"[red]problem[/] {escape(text)}", highlight=False, soft_wrap=True)
        for text in row.notes:
            console.print(f"[yellow]note[/] {escape(row.name)}: {escape(text)}", highlight=False, soft_wrap=True)
    modalities = sorted({row.modality for row in rows if row.modality})
    console.print(f"{len(rows)} cases, {len(modalities)} modalities, {len(bad)} with problems.", highlight=False)
    if sheet:
        from harness.data.sheet import contact_sheet

        files = contact_sheet(_sound(spec), Path(sheet))
        console.print(f"Contact sheet: {', '.join(map(str, files))}", highlight=False, soft_wrap=True)
    return 1 if bad else 0


def convert_folder(spec: StoredData, target: str, form: str, replace: bool, dry_run: bool) -> None:
    """Write a data set in another format.

    Raises:
        BenchError: the format loses something, cases cannot be read, or the target holds something else.
    """
    from harness.data.convert import FORMS, convert, items_of

    if form in ("jpeg", "jpg"):
        raise BenchError("--to jpeg: JPEG changes pixels and blurs labels; choose png, tiff, nifti or npz.")
    chosen = next((f for f in FORMS if f == {"images": "png"}.get(form, form)), None)
    if chosen is None:
        raise BenchError(f"--to {form}: no such format; choose one of {', '.join(FORMS)}.")
    console = Console(stderr=True)
    if dry_run:
        items = items_of(spec)
        console.print(f"{len(items)} cases would be written to {target} as {chosen}.", highlight=False)
        return
    with _bar("converting") as report:
        done = convert(spec, Path(target), chosen, report, replace=replace)
    console.print(
        f"{len(done.written)} cases written to {target} as {chosen}, {len(done.kept)} were there already.",
        highlight=False,
    )


def split_folder(
    spec: StoredData, by: str | None, table: str | None, fractions: str, seed: int, output: str, as_json: bool
) -> None:
    """Split a data set by patient or source and store the split.

    Raises:
        BenchError: a case has no patient, the fractions are wrong, or two parts would share an image.
    """
    from harness.data.convert import items_of
    from harness.data.splits import PARTS, make_split, patients_of, print_of, write_split

    if (by is None) == (table is None):
        raise BenchError("bench data split: give either --by REGEX or --table FILE to say which cases belong together.")
    shares = _fractions(fractions)
    items = items_of(spec)
    prints = {}
    with _bar("pixels") as report:
        for number, item in enumerate(items):
            report(number / len(items), item.stem)
            case = item.load()
            prints[case.name] = print_of(case)
    split = make_split(patients_of(sorted(prints), by, table), prints, shares, seed, str(by or table))
    write_split(split, Path(output))
    counts = {part: {"cases": len(split.names(part)), "patients": split.patients(part)} for part in PARTS}
    if as_json:
        print(json.dumps({"file": output, "parts": counts}, indent=1))  # noqa: T201
        return
    console = Console(stderr=True)
    for part, count in counts.items():
        console.print(f"{part}: {count['cases']} cases of {count['patients']} patients", highlight=False)
    console.print(f"{output}; in a suite: `split: {{file: {output}, part: train}}`.", highlight=False, soft_wrap=True)


def _rows(spec: StoredData, report: Report) -> list[Row]:
    if isinstance(spec, FolderData):
        return inspect(Path(spec.path), Path(spec.truth) if spec.truth else None, report)
    return inspect_sources(spec, report)


def _sound(spec: StoredData) -> Iterator[Case]:
    """The cases that can be read; the table has said why the others cannot."""
    from harness.data.convert import items_of

    for item in items_of(spec, complete=False):
        try:
            yield item.load()
        except BenchError:
            continue


def _kind_of(root: Path) -> str:
    places = [root, *(root / name for name in IMAGE_FOLDERS)]
    names = [file.name.lower() for place in places if place.is_dir() for file in place.iterdir()]
    if any(name.endswith(".npz") for name in names):
        return "npz"
    if any(name.endswith((".nii", ".nii.gz")) for name in names):
        return "nifti"
    if any(name.endswith((".png", ".tif", ".tiff", ".jpg", ".jpeg")) for name in names) or (root / "images").is_dir():
        return "images"
    raise BenchError(f"{root}: holds no npz, NIfTI, PNG, TIFF or JPEG files; give the folder of a data set.")


def _one_of(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _wrong_field(kind: str, given: dict[str, Any], error: ValidationError) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "fields"
    value = f"={given[name]}" if name in given else ""
    if first["type"] == "extra_forbidden":
        known = ", ".join(field for field in KINDS[kind].model_fields if field not in ("kind", "path", "split"))
        return f"{name}{value}: a data set of kind {kind} has no such field; it has {known}."
    message = first["msg"].removeprefix("Value error, ")
    return f"{name}{value}: {message[0].lower()}{message[1:]}; `bench show schema` says what may stand there."


def _fractions(text: str) -> tuple[float, float, float]:
    try:
        train, validation, test = (float(part) for part in text.split(","))
    except ValueError:
        train = validation = test = -1.0
    if min(train, validation, test) < 0 or abs(train + validation + test - 1) > 1e-6:
        raise BenchError(f"--fractions {text}: give train,validation,test that add up to 1, for example 0.8,0.1,0.1.")
    return train, validation, test


@contextmanager
def _bar(what: str) -> Iterator[Report]:
    """A progress bar on stderr, gone when the work is done."""
    with Progress(TextColumn("{task.description}"), BarColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda fraction, message: bar.update(task, completed=fraction, description=f"{what} {message}")


def _table(folder: str, rows: list[Row]) -> Table:
    table = Table(title=folder, title_justify="left")
    for column in ("Case", "Modality", "Size", "Objects", "Spacing, mm", "Digest"):
        table.add_column(column, justify="right" if column in ("Objects", "Size") else "left", no_wrap=True)
    for row in rows:
        size = "×".join(map(str, row.shape or ()))
        spacing = " ".join(f"{s:.3g}" for s in row.spacing) if row.spacing else "–"
        table.add_row(row.name, row.modality or "?", size, str(row.objects), spacing, (row.digest or "")[:8])
    return table
