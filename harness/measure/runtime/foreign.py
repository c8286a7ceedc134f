"""Somebody else's submission: an image by name, or a tar of ``docker save``, found, loaded and told apart by content.

Such an image obeys the challenge's contract and nothing else: in its working directory lies ``predict.sh``, which reads
every npz of ``/workspace/inputs`` and writes ``segs`` npz files of the same names to ``/workspace/outputs``.  What
happens inside is not visible, so that nothing it says about itself is used.

Sources: the image archive of ``docker save`` (moby ``image/spec/v1.2.md``: ``manifest.json``, its field ``Config``).
"""

from __future__ import annotations

import json
import re
import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.config import ImageRef
from harness.errors import BenchError
from harness.measure.runtime import dockercli
from harness.measure.runtime.dockercli import call
from harness.measure.runtime.verdict import last_line

if TYPE_CHECKING:
    from harness.measure.runtime.bundle import Bundle
    from harness.measure.runtime.sandbox import Progress

UNKNOWN: Final = "unknown"
"""Id of an image while no engine answers that could tell it; a job that needs it is skipped."""
TARGET: Final = "image"
"""``target`` in the description of a bundle that is somebody else's image."""

_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_MANIFEST_BYTES = 1 << 22
_DIGEST = re.compile(r"(?:^|/)([0-9a-f]{64})(?:\.json)?$")
_NAME = "medsam-bench-image"
LOAD_S: Final = 1800.0


@dataclass(frozen=True)
class Foreign:
    """An image that is measured as it is; ``identity``: its id (``sha256:…``), see ``ImageRef`` for the rest."""

    source: str
    identity: str
    init: bool = False
    writable_root: bool = False


def is_archive(source: str) -> bool:
    """Whether an image is given as a file rather than by name."""
    return source.lower().endswith(_ARCHIVES) or Path(source).is_file()


def short_name(source: str) -> str:
    """What tables call an image: the file's stem, or the name without its registry and ``:latest``."""
    last = source.rstrip("/").rpartition("/")[2]
    if is_archive(source):
        ending = next((e for e in _ARCHIVES if last.lower().endswith(e)), "")
        return last[: len(last) - len(ending)] or last
    return last.removesuffix(":latest").removeprefix("sha256:")[:40]


def identify(source: str) -> str:
    """The id of an image, the same for a name and for a tar of that image; ``UNKNOWN`` where no engine can tell.

    Raises:
        BenchError: there is no such image or file, or the file is no archive of one image.
    """
    if is_archive(source):
        return _archive_id(*_stamp(source))
    found = _id_here(source)
    if found:
        return found
    if dockercli.why_unavailable():
        return UNKNOWN
    raise BenchError(
        f"there is no image {source} on this machine; `docker images` names those that are here, `docker pull` fetches "
        "one, and a tar of `docker save` can be given in its place"
    )


def _id_here(name: str) -> str | None:
    answer = call(["docker", "image", "inspect", "--format", "{{.Id}}", name])
    return answer.stdout.strip() or None if answer.ok else None


def _stamp(source: str) -> tuple[str, int, int]:
    """A file as it is now: path, size, time of its last change."""
    path = Path(source).resolve()
    try:
        state = path.stat()
    except OSError:
        return str(path), -1, -1
    return str(path), state.st_size, state.st_mtime_ns


@cache
def _archive_id(path: str, size: int, changed_ns: int) -> str:
    manifest = _manifest(path)
    if len(manifest) != 1:
        raise BenchError(f"{path}: holds {len(manifest)} images; write one with `docker save --output FILE IMAGE`")
    entry = manifest[0]
    found = _DIGEST.search(str(entry.get("Config", ""))) if isinstance(entry, dict) else None
    if found is None:
        raise BenchError(f"{path}: its manifest.json names no image; write it again with `docker save`")
    return f"sha256:{found[1]}"


def _manifest(path: str) -> list[Any]:
    """``manifest.json`` of an archive; nothing else of it is read or unpacked here."""
    what = "is not an archive of `docker save`"
    try:
        with tarfile.open(path, mode="r:*") as archive:
            for member in archive:
                if member.name.removeprefix("./") != "manifest.json" or not member.isreg():
                    continue
                stream = archive.extractfile(member)
                if stream is None or member.size > _MANIFEST_BYTES:
                    break
                data = json.loads(stream.read())
                if isinstance(data, list):
                    return data
                break
    except FileNotFoundError:
        raise BenchError(f"{path}: no such file; give an image's name or a tar of `docker save`") from None
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise BenchError(f"{path}: {what} ({error}); write it with `docker save --output FILE IMAGE`") from None
    raise BenchError(f"{path}: {what} (no manifest.json); write it with `docker save --output FILE IMAGE`")


def describe(ref: ImageRef, identity: str) -> dict[str, Any]:
    """What the bundle of a job with an image says of it."""
    return {"source": ref.source, "identity": identity, "init": ref.init, "writable_root": ref.writable_root}


def of(bundle: Bundle) -> Foreign | None:
    """The image that a bundle stands for; ``None`` for a bundle of ours."""
    return Foreign(**bundle.description["image"]) if bundle.target == TARGET else None


def bring(image: Foreign, progress: Progress) -> str:
    """Make the engine have the image; what to call it in a command.  ``unload`` is its counterpart.

    Raises:
        BenchError: it cannot be loaded, or is no longer the image the run was planned with.
    """
    archive, loaded = is_archive(image.source), _LOADED.get(image.identity)
    if archive and (_id_here(image.identity) or (loaded and _id_here(loaded.name))):
        name = image.identity if loaded is None else loaded.name
    elif identify(image.source) != image.identity:
        raise BenchError(f"the image {image.source} has changed since the run was planned; start the run again")
    elif archive:
        progress(f"loading {image.source}")
        loaded = _LOADED[image.identity] = _load(image)
        name = loaded.name
    else:
        name = image.identity
    if loaded is not None:
        loaded.users += 1
    return name


def unload(image: Foreign) -> None:
    """One less needs the image: remove what ``bring`` loaded from a file when nobody of this process needs it."""
    loaded = _LOADED.get(image.identity)
    if loaded is None:
        return
    loaded.users -= 1
    if loaded.users <= 0:
        del _LOADED[image.identity]
        call(["docker", "rmi", *loaded.names])


@dataclass
class _Loaded:
    """An image that this process loaded: what to call it, the names it came with, and how many need it."""

    name: str
    names: tuple[str, ...]
    users: int = 0


_LOADED: dict[str, _Loaded] = {}
"""By the id the run was planned with."""


def _load(image: Foreign) -> _Loaded:
    answer = call(["docker", "load", "--input", image.source], timeout_s=LOAD_S)
    if not answer.ok:
        raise BenchError(f"{image.source}: docker could not load it: {last_line(answer.stderr or answer.stdout)}")
    names = tuple(re.findall(r"^Loaded image(?: ID)?: (\S+)$", answer.stdout, flags=re.MULTILINE))
    if _id_here(image.identity):
        return _Loaded(image.identity, names or (image.identity,))
    # An engine with containerd's image store counts ids otherwise; the name is then what it says it loaded.
    loaded = _id_here(names[0]) if names else None
    if loaded is None:
        raise BenchError(f"{image.source}: docker loaded it but does not say as what; give the image's name instead")
    return _Loaded(loaded, names)


def tag(image: str, owner: str) -> str:
    """A further name of the image for the challenge's command, which calls image and container alike.

    Args:
        owner: process id of the measuring process, ``n`` and a number: no two runs share a name.

    Raises:
        BenchError: the engine refuses.
    """
    name = f"{_NAME}-{image.removeprefix('sha256:')[:12]}-{owner}"
    answer = call(["docker", "tag", image, f"{name}:latest"])
    if not answer.ok:
        raise BenchError(
            f"the image {image} could not be named for the challenge's command: {last_line(answer.stderr)}"
        )
    return name


def untag(name: str) -> None:
    """Take the name away again; the last name of an image stays, because the image would go with it."""
    answer = call(["docker", "image", "inspect", "--format", "{{json .RepoTags}}", f"{name}:latest"])
    if answer.ok and len(json.loads(answer.stdout or "[]") or []) > 1:
        call(["docker", "rmi", "--no-prune", f"{name}:latest"])


def remove_stale_tags() -> None:
    """Take away the names that measuring processes which have ended left behind."""
    found = call(["docker", "images", "--format", "{{.Repository}}", "--filter", f"reference={_NAME}-*"])
    for name in found.stdout.split():
        pid = name.rpartition("-")[2].partition("n")[0]
        if name.startswith(_NAME) and pid.isdigit() and not dockercli.start_time(int(pid)):
            untag(name)
