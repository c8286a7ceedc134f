"""Writing phantoms to disk: once, whole or not at all, resumable, and checked when opened again.

The folder holds challenge npz files and ``manifest.json``, which is written last. Every file appears under its name
only when complete, so a folder without a manifest is a run that was stopped: what is there is kept, the rest is made.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from harness.config import canonical
from harness.data.case import Case, read_case, write_case, write_whole
from harness.data.folder import Progress, file_digest
from harness.errors import BenchError

if TYPE_CHECKING:
    from harness.config import GeneratedData
    from harness.data.phantoms import PhantomId
    from harness.data.workload import WorkloadCase

    Identity = PhantomId | WorkloadCase

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class ManifestEntry:
    """One case file: ``size`` in bytes, ``digest`` the SHA-256 of the file, ``shape`` of the stored image."""

    name: str
    modality: str
    ndim: int
    shape: tuple[int, ...]
    objects: int
    size: int
    digest: str


@dataclass(frozen=True)
class Manifest:
    """What a folder of phantoms holds and what it was made from."""

    digest: str
    spec: dict[str, object]
    entries: tuple[ManifestEntry, ...] = field(default=())


def phantoms_digest(spec: GeneratedData) -> str:
    """SHA-256 over the specification, the generator's source and the major versions of its libraries."""
    identity = {"spec": _spec_of(spec), "source": _source_digest(spec.kind), "libraries": _major_versions()}
    return sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def materialise(spec: GeneratedData, folder: Path, progress: Progress | None = None) -> Manifest:
    """Make sure ``folder`` holds the phantoms of ``spec``, and nothing else is taken for one; two processes take turns.

    Files that are missing, or have another size than the manifest says, are made again.

    Raises:
        BenchError: the folder belongs to other phantoms or cannot be written; or the specification asks for no case.
    """
    ids = _identities(spec)
    if not ids:
        raise BenchError("data set 'phantoms': field 'modalities' is empty, so there is no case; name a modality")
    digest = phantoms_digest(spec)
    manifest = read_manifest(folder)
    if manifest is not None and manifest.digest == digest and not _damaged(folder, manifest):
        return manifest
    with alone(folder):
        return _complete(spec, ids, digest, folder, progress)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, or ``None`` if there is none that can be read."""
    try:
        data = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        rows = tuple(ManifestEntry(**(row | {"shape": tuple(row["shape"])})) for row in data["entries"])
        return Manifest(str(data["digest"]), dict(data["spec"]), rows)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _complete(
    spec: GeneratedData, ids: Sequence[Identity], digest: str, folder: Path, progress: Progress | None
) -> Manifest:
    # Another process may have finished while this one waited for the lock.
    known = read_manifest(folder)
    if known is not None and known.digest != digest:
        raise BenchError(
            f"{folder / MANIFEST}: this folder holds other phantoms (another specification or version); "
            "choose an empty folder or remove it"
        )
    entries = {} if known is None else {entry.name: entry for entry in known.entries}
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
    rows = []
    for number, phantom in enumerate(ids):
        if progress is not None:
            progress(number / len(ids), f"phantom {phantom.name}")
        path = folder / f"{phantom.name}.npz"
        entry = entries.get(phantom.name)
        rows.append(entry if entry is not None and _has_size(path, entry) else _make(phantom, path))
    manifest = Manifest(digest, _spec_of(spec), tuple(rows))
    text = json.dumps(asdict(manifest), indent=1)
    write_whole(folder / MANIFEST, lambda stream: stream.write(text.encode()))
    if progress is not None:
        progress(1.0, f"{len(ids)} phantoms")
    return manifest


def _make(phantom: Identity, path: Path) -> ManifestEntry:
    case = _readable(path)
    if case is None:
        case = _drawn(phantom)
        write_case(case, path)
    return ManifestEntry(
        case.name, case.modality, case.ndim, case.image.shape, case.objects, path.stat().st_size, file_digest(path)
    )


def _identities(spec: GeneratedData) -> Sequence[Identity]:
    """What a specification asks for, sorted by name."""
    if spec.kind == "workload":
        from harness.data.workload import workload_cases

        return workload_cases(spec)
    from harness.data.phantoms import phantom_ids

    return phantom_ids(spec)


def _drawn(phantom: Identity) -> Case:
    from harness.data.phantoms import PhantomId, generate

    if isinstance(phantom, PhantomId):
        return generate(phantom)
    from harness.data.workload_scene import draw

    return draw(phantom)


def _readable(path: Path) -> Case | None:
    """The case a stopped run left, if it is whole; reading checks the checksums of the archive."""
    if not path.is_file():
        return None
    try:
        return read_case(path)
    except BenchError:
        return None


def _damaged(folder: Path, manifest: Manifest) -> bool:
    return any(not _has_size(folder / f"{entry.name}.npz", entry) for entry in manifest.entries)


def _has_size(path: Path, entry: ManifestEntry) -> bool:
    try:
        return path.stat().st_size == entry.size
    except OSError:
        return False


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel releases it when the process ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("w")
    except OSError as error:
        raise BenchError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _spec_of(spec: GeneratedData) -> dict[str, object]:
    data: dict[str, object] = canonical(spec)
    return data if spec.kind == "workload" else data | {"modalities": sorted(set(spec.modalities))}


def _source_digest(kind: str) -> str:
    here = Path(__file__).parent
    further = sorted(here.glob("workload*.py")) if kind == "workload" else []
    digest = sha256()
    for source in [*sorted((here / "phantoms").glob("*.py")), *further]:
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()


def _major_versions() -> dict[str, str]:
    import cv2
    import numpy
    import scipy

    return {module.__name__: str(module.__version__).split(".")[0] for module in (cv2, numpy, scipy)}
