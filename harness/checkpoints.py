"""Named checkpoints: weights that `bench import` checked against a variant, kept in the results folder.

``checkpoints/NAME.safetensors`` holds the weights under the published names, ``NAME.json`` what they are.  A suite
names one as ``weights: NAME``.  Reading needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import variants
from harness.config import VariantRef
from harness.errors import BenchError
from harness.files import replacing, write_atomic
from harness.locks import file_lock
from harness.results import Results
from harness.yamlfile import suggest

FORMAT = 1
SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Checkpoint:
    """What ``NAME.json`` says.

    Attributes:
        name: by which suites call it.
        variant: in the registry.
        set: hyperparameters that differ from the registered ones.
        parameters: number of trainable and fixed parameters of the model, buffers left out.
        bytes: size of the stored file.
        sha256: of the stored file.
        source: name of the file it came from.
        source_sha256: of that file.
        imported: when, UTC, ISO 8601.
        format: of this description.
    """

    name: str
    variant: str
    set: dict[str, Any]
    parameters: int
    bytes: int
    sha256: str
    source: str
    source_sha256: str
    imported: str
    format: int = FORMAT

    @property
    def ref(self) -> VariantRef:
        return VariantRef(name=self.variant, set=self.set)


def folder(results: Results) -> Path:
    return results.root / "checkpoints"


def weights_path(results: Results, name: str) -> Path:
    return folder(results) / f"{name}.safetensors"


def names(results: Results) -> list[str]:
    """Names of all imported checkpoints, sorted."""
    return sorted(path.stem for path in folder(results).glob("*.json") if weights_path(results, path.stem).is_file())


def read(results: Results, name: str) -> Checkpoint:
    """The description of an imported checkpoint.

    Raises:
        BenchError: there is none of that name, or its files are damaged.
    """
    if name not in names(results):
        raise BenchError(f"there is no checkpoint {name!r} in {folder(results)}. {_remedy(results, name)}")
    described = folder(results) / f"{name}.json"
    try:
        checkpoint = Checkpoint(**json.loads(described.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BenchError(f"{described} is damaged ({error}); import the checkpoint again with --replace.") from None
    if checkpoint.format != FORMAT:
        raise BenchError(f"{described} has format {checkpoint.format}, not {FORMAT}; import it again with --replace.")
    if weights_path(results, name).stat().st_size != checkpoint.bytes:
        raise BenchError(f"{weights_path(results, name)} is damaged; import the checkpoint again with --replace.")
    return checkpoint


def find(results: Results, value: str) -> Path:
    """The weights file that a suite's ``weights`` means: an existing file, else an imported checkpoint's.

    Raises:
        BenchError: it is neither.
    """
    if Path(value).is_file():
        return Path(value)
    if value not in names(results):
        raise BenchError(f"{value} is neither a file nor an imported checkpoint. {_remedy(results, value)}")
    read(results, value)
    return weights_path(results, value)


def _remedy(results: Results, name: str) -> str:
    if not _NAME.fullmatch(name) or Path(name).suffix in SUFFIXES:
        return "Give the path of a checkpoint file, or the name of an imported one (`bench list checkpoints`)."
    near = suggest(name, names(results))
    return f"{near} `bench import {name} FILE` makes one of that name.".strip()


def find_for(results: Results, value: str, ref: VariantRef) -> Path:
    """As ``find``; an imported checkpoint must also have been imported for this variant and these hyperparameters.

    Raises:
        BenchError: as ``find``, or the checkpoint is another variant's.
    """
    path = find(results, value)
    if path == weights_path(results, value):
        imported = read(results, value).ref
        if _architecture(imported) != _architecture(ref):
            raise BenchError(
                f"checkpoint {value!r} was imported for {_said(imported)}, which is not {_said(ref)}; "
                f"`bench list checkpoints` shows which variant each is for."
            )
    return path


def add(
    results: Results, name: str, file: Path, ref: VariantRef, overwrite: bool, progress: Callable[[str], None]
) -> tuple[Checkpoint, bool]:
    """Check a file against a variant and store it under a name; the same content again changes nothing.

    Args:
        file: a checkpoint in the published layout, any wrapping that ``variants.load_published`` reads.
        ref: the variant it belongs to.
        overwrite: whether other content under the same name may be replaced.
        progress: told what is being done.

    Returns:
        The checkpoint, and whether anything was written.

    Raises:
        BenchError: the name is malformed or taken, or the file is missing.
        VariantError: the variant is unknown, or the file is unsafe or does not fit it.
    """
    if not _NAME.fullmatch(name):
        raise BenchError(f"a checkpoint's name may hold only letters, digits, '_', '.' and '-', not {name!r}.")
    if not file.is_file():
        raise BenchError(f"{file} does not exist or is not a file; give the checkpoint that is to be imported.")
    if not variants.resolve(ref.name, ref.set).needs_torch:
        raise BenchError(f"variant {ref.name!r} has no weights to import.")
    progress(f"reading {file.name}")
    source_sha256 = digest(file)
    with file_lock(folder(results) / f".{name}.lock"):
        known = _intact(results, name)
        if known and known.ref == ref and source_sha256 in (known.source_sha256, known.sha256):
            return known, False
        progress(f"checking {file.name} against {_said(ref)}")
        parameters, content = _content(ref, file)
        checkpoint = Checkpoint(
            name=name,
            variant=ref.name,
            set=dict(ref.set),
            parameters=parameters,
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            source=file.name,
            source_sha256=source_sha256,
            imported=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if known and known.ref == ref and known.sha256 == checkpoint.sha256:
            return known, False
        if not overwrite and (folder(results) / f"{name}.json").exists():
            what = f"{_said(known.ref)}, imported from {known.source}" if known else "damaged files"
            raise BenchError(f"the name {name!r} is taken ({what}); choose another one, or overwrite with --replace.")
        progress(f"writing {weights_path(results, name).name}")
        with replacing(weights_path(results, name)) as stream:
            stream.write(content)
        write_atomic(folder(results) / f"{name}.json", json.dumps(asdict(checkpoint), indent=1) + "\n")
    return checkpoint, True


def digest(file: Path) -> str:
    """SHA-256 (hex) of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _intact(results: Results, name: str) -> Checkpoint | None:
    """The checkpoint that stands under the name, ``None`` if there is none or its files are damaged."""
    if name not in names(results):
        return None
    try:
        known = read(results, name)
    except BenchError:
        return None
    return known if digest(weights_path(results, name)) == known.sha256 else None


def _content(ref: VariantRef, file: Path) -> tuple[int, bytes]:
    """Number of parameters and the bytes to store: float32 under the published names, whatever wraps the source."""
    from safetensors.torch import save

    overrides: dict[str, Any] = dict(ref.set)
    model: Any = variants.create(ref.name, file, **overrides)
    parameters = sum(int(p.numel()) for p in model.parameters())
    return parameters, save(variants.to_published(model), metadata={"format": "pt"})


def _architecture(ref: VariantRef) -> tuple[str, int, dict[str, Any]]:
    """What decides the shapes of the weights; names and the rules for images and prompts do not."""
    try:
        spec = variants.resolve(ref.name, ref.set)
    except variants.VariantError as error:
        raise BenchError(str(error)) from error
    return spec.factory, spec.input_size, dict(spec.hyperparameters)


def _said(ref: VariantRef) -> str:
    return ref.name + (f" with {settings(ref.set)}" if ref.set else "")


def settings(values: Mapping[str, Any]) -> str:
    """``decoder_depth=1, depths=[1, 2, 2, 2]``."""
    return ", ".join(f"{key}={value}" for key, value in values.items())
