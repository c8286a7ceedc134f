"""Train, validation and test: split by patient or source, seeded, stored with digests, and without leakage.

All cases of a patient (or of a source) go to one part.  Two parts must not share an image either: an image counts as
shared if its pixels are equal, under whatever name, and a slice of a volume counts like an image.  Constant slices
(empty ends of volumes) are equal by chance and do not count.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from harness.data.case import Case, read_case, write_whole
from harness.errors import BenchError

if TYPE_CHECKING:
    from harness.config import DataSetSpec, SplitPart
    from harness.data.dataset import DataSet
    from harness.data.folder import Folder, Progress

Part = Literal["train", "validation", "test"]
PARTS: Final[tuple[Part, ...]] = ("train", "validation", "test")
_VERSION: Final = 1
_NAME_COLUMNS: Final = ("name", "case", "file")
_PATIENT_COLUMNS: Final = ("patient", "source")


@dataclass(frozen=True)
class Print:
    """What identifies the pixels of a case: a digest of the image, and of each slice that is not constant."""

    image: str
    slices: tuple[str, ...]


@dataclass(frozen=True)
class Member:
    """A case of a split: its part, its patient or source, and the digest of its pixels."""

    part: Part
    patient: str
    digest: str


@dataclass(frozen=True)
class Split:
    """A split of named cases, and the rule it was made by."""

    rule: str
    seed: int
    fractions: tuple[float, float, float]
    members: dict[str, Member]

    def names(self, part: Part) -> list[str]:
        """The cases of a part, sorted."""
        return sorted(name for name, member in self.members.items() if member.part == part)

    def patients(self, part: Part) -> int:
        """Number of patients or sources of a part."""
        return len({member.patient for member in self.members.values() if member.part == part})


def print_of(case: Case) -> Print:
    """Digests of a case's pixels; a grey image counts like the slice it may be of a volume."""
    image = case.image
    if case.ndim == 2:
        grey = bool((image == image[..., :1]).all())
        digest = _digest(image[..., 0] if grey else image)
        return Print(digest, (digest,))
    every = [_digest(layer) for layer in image]
    kept = tuple(d for d, layer in zip(every, image, strict=True) if layer.min() != layer.max())
    return Print(blake2b("".join(every).encode(), digest_size=16).hexdigest(), kept)


def patients_by_name(names: Iterable[str], pattern: str) -> dict[str, str]:
    """Patient of every case: the first group of a regular expression in its name, or the whole match.

    Raises:
        BenchError: the expression is wrong, or does not match a name.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise BenchError(f"`by`: {pattern!r} is no regular expression ({error}); see Python's `re`") from error
    found = {}
    for name in names:
        match = expression.search(name)
        if match is None or (expression.groups and match.group(1) is None):
            raise BenchError(f"`by`: {pattern!r} does not match the case {name}; widen it, or use a table")
        found[name] = match.group(1) if expression.groups else match.group(0)
    return found


def patients_by_table(names: Iterable[str], path: Path) -> dict[str, str]:
    """Patient of every case from a CSV file: columns ``name`` (or case, file) and ``patient`` (or source).

    Raises:
        BenchError: the file cannot be read, lacks a column, or lacks a case.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BenchError(f"{path}: cannot be read as CSV ({error}); check `table`") from error
    columns = list(rows[0]) if rows else []
    key = next((c for c in _NAME_COLUMNS if c in columns), None)
    value = next((c for c in _PATIENT_COLUMNS if c in columns), None)
    if key is None or value is None:
        raise BenchError(
            f"{path}: has the columns {', '.join(map(str, columns)) or 'none'}; needs `name` and `patient`"
        )
    table = {str(row[key]).removesuffix(".npz"): str(row[value]) for row in rows}
    found = {}
    for name in names:
        patient = table.get(name)
        if not patient:
            raise BenchError(f"{path}: column `{value}` says nothing about the case {name}; add a row")
        found[name] = patient
    return found


def make_split(
    patients: Mapping[str, str],
    prints: Mapping[str, Print],
    fractions: tuple[float, float, float],
    seed: int,
    rule: str,
) -> Split:
    """Assign patients to parts in an order that the seed decides, each to the part that lacks most cases.

    The result depends on names, patients, fractions and seed alone.  Every part with a fraction above 0 gets a patient.

    Args:
        patients: case name → patient or source.
        prints: case name → digests of its pixels.
        fractions: shares of the cases for train, validation, test; they add up to 1.
        rule: how the patients were found, for people.

    Raises:
        BenchError: fewer patients than parts; or two parts would share an image.
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(patients):
        groups.setdefault(patients[name], []).append(name)
    wanted = [part for part, share in zip(PARTS, fractions, strict=True) if share > 0]
    if len(groups) < len(wanted):
        raise BenchError(
            f"{len(groups)} patients cannot fill {len(wanted)} parts; set a fraction to 0 or split by a finer rule"
        )
    lacking = {part: share * len(patients) for part, share in zip(PARTS, fractions, strict=True) if share > 0}
    order = sorted(groups, key=lambda group: sha256(f"{seed}/{group}".encode()).hexdigest())
    empty = list(wanted)
    members: dict[str, Member] = {}
    for place, group in enumerate(order):
        choice = empty if len(order) - place == len(empty) else wanted
        part = max(choice, key=lambda p: lacking[p])
        lacking[part] -= len(groups[group])
        empty = [p for p in empty if p != part]
        members |= {name: Member(part, group, prints[name].image) for name in groups[group]}
    split = Split(rule, seed, fractions, members)
    refuse_leakage(split, prints)
    return split


def refuse_leakage(split: Split, prints: Mapping[str, Print]) -> None:
    """Raise ``BenchError`` if two parts share a patient, an image, or a slice."""
    where: dict[str, str] = {}
    seen: dict[str, str] = {}
    for name, member in split.members.items():
        first = where.setdefault(member.patient, name)
        if split.members[first].part != member.part:
            raise BenchError(
                f"{first} ({split.members[first].part}) and {name} ({member.part}) are of the same patient, "
                f"{member.patient}; put both into one part"
            )
        for digest in {prints[name].image, *prints[name].slices}:
            other = seen.setdefault(digest, name)
            if split.members[other].part != member.part:
                what = "the same image" if _whole(prints[name], prints[other]) else "the same slice"
                raise BenchError(
                    f"{other} ({split.members[other].part}) and {name} ({member.part}) hold {what}; remove one of the "
                    "two, or give both the same patient"
                )


def write_split(split: Split, path: Path) -> None:
    """Write a split as JSON, atomically."""
    cases = {
        name: {"part": member.part, "patient": member.patient, "digest": member.digest}
        for name, member in sorted(split.members.items())
    }
    data = {"version": _VERSION, "rule": split.rule, "seed": split.seed, "fractions": split.fractions, "cases": cases}
    text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
    write_whole(Path(path), lambda stream: stream.write(text.encode()))


def read_split(path: Path) -> Split:
    """Read a split file.

    Raises:
        BenchError: the file cannot be read or is no split.
    """
    try:
        data: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        if data["version"] != _VERSION or not all(case["part"] in PARTS for case in data["cases"].values()):
            raise ValueError("another version, or a part that is not train, validation or test")
        members = {n: Member(c["part"], str(c["patient"]), str(c["digest"])) for n, c in data["cases"].items()}
        shares = cast(tuple[float, float, float], tuple(map(float, data["fractions"])))
        return Split(str(data["rule"]), int(data["seed"]), shares, members)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"{path}: is no split file ({error}); write one with `bench data split`") from error


def part_of(folder: Folder, spec: SplitPart, cache: Path, progress: Progress | None = None) -> list[str]:
    """Names of the cases of a folder that belong to one part; the whole split is checked.

    Raises:
        BenchError: the split leaks; or a split file does not fit the cases: some are not in it or have changed.
    """
    prints = _prints(folder.path, [(entry.name, entry.digest) for entry in folder.entries], cache, progress)
    names = [entry.name for entry in folder.entries]
    if spec.file is None:
        split = make_split(
            patients_of(names, spec.by, spec.table), prints, spec.fractions, spec.seed, spec.by or str(spec.table)
        )
    else:
        split = _checked(read_split(Path(spec.file).expanduser()), prints, spec.file, folder.path)
    found = split.names(spec.part)
    if not found:
        raise BenchError(f"{spec.file or folder.path}: part {spec.part} holds no case; give it a share of `fractions`")
    return found


def refuse_common_images(
    training: str, datasets: Mapping[str, DataSet], specs: Mapping[str, DataSetSpec], cache: Path
) -> None:
    """Raise ``BenchError`` if data that are measured on share an image or slice with those that are trained on.

    Whoever names one folder without a split for both has asked for it.

    Args:
        training: name of the data set that is trained on.
        datasets: name → data set of the user's own, opened.
        specs: name → what the suite says about it.
    """
    trained = datasets.get(training)
    for name, tested in datasets.items():
        if name == training or trained is None or _one_folder(specs[training], specs[name]):
            continue
        prints = [_prints(d.path, [(c.name, c.digest) for c in d.cases], cache) for d in (trained, tested)]
        seen = {digest: case for case, each in prints[0].items() for digest in (each.image, *each.slices)}
        for case, each in prints[1].items():
            shared = next((seen[digest] for digest in (each.image, *each.slices) if digest in seen), None)
            if shared is not None:
                raise BenchError(
                    f"datasets.{training} and datasets.{name}: {shared} is trained on and {case} is measured on, but "
                    "they hold the same image or slice; name two parts of one split"
                )


def _one_folder(one: DataSetSpec, other: DataSetSpec) -> bool:
    """Whether two data sets are one folder, and neither a part of it."""
    places = {Path(str(getattr(each, "path", id(each)))).expanduser().resolve() for each in (one, other)}
    return len(places) == 1 and not any(getattr(each, "split", None) for each in (one, other))


def patients_of(names: list[str], by: str | None, table: str | None) -> dict[str, str]:
    """Patient of every case by a regular expression or a table; see ``patients_by_name`` and ``patients_by_table``."""
    return patients_by_name(names, by) if by is not None else patients_by_table(names, Path(table or "").expanduser())


def _checked(split: Split, prints: dict[str, Print], file: str, path: Path) -> Split:
    unknown = sorted(set(prints) - set(split.members))
    absent = sorted(set(split.members) - set(prints))
    changed = sorted(n for n, member in split.members.items() if n in prints and prints[n].image != member.digest)
    for names, what in ((unknown, "is not in it"), (absent, f"is not in {path}"), (changed, "has other pixels now")):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise BenchError(f"{file}: the case {names[0]}{more} {what}; split again with `bench data split`")
    refuse_leakage(split, prints)
    return split


def _prints(
    folder: Path, cases: Sequence[tuple[str, str]], cache: Path, progress: Progress | None = None
) -> dict[str, Print]:
    """Digests of the pixels of cases (name, digest of the file), remembered in the cache by the digest of the file."""
    key = sha256(f"{folder.resolve()}".encode()).hexdigest()[:16]
    path = Path(cache) / f"pixels-{key}.json"
    try:
        known = {k: Print(v[0], tuple(v[1])) for k, v in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, IndexError, KeyError, AttributeError):
        known = {}  # it can be made again
    found = {}
    for number, (name, digest) in enumerate(cases):
        if progress is not None and digest not in known:
            progress(number / len(cases), f"pixels of {name}")
        found[name] = known.get(digest) or print_of(read_case(folder / f"{name}.npz"))
    digests = known | {digest: found[name] for name, digest in cases}
    if digests != known:
        text = json.dumps({digest: [each.image, each.slices] for digest, each in digests.items()})
        write_whole(path, lambda stream: stream.write(text.encode()))
    return found


def _whole(one: Print, other: Print) -> bool:
    return one.image == other.image


def _digest(pixels: NDArray[np.uint8]) -> str:
    data = np.ascontiguousarray(pixels)
    return blake2b(str(data.shape).encode() + data.tobytes(), digest_size=16).hexdigest()
