"""`bench import` and `bench export`."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from rich.console import Console

import variants
from harness import checkpoints
from harness.config import Deployment, VariantRef
from harness.errors import BenchError
from harness.files import replacing
from harness.results import Results, open_results
from harness.yamlfile import suggest
from variants import VariantSpec

SUFFIXES = {"published": ".pth", "safetensors": ".safetensors"}
GRAPHS = ("onnx", "openvino")


def import_weights(
    name: str, file: str, variant: str | None, sets: Sequence[str], overwrite: bool, folder: str | None
) -> None:
    """Make a published checkpoint one that suites can name.

    Raises:
        BenchError: the name is taken or says no variant, or the file is missing.
        VariantError: the file is unsafe, damaged, or does not fit the variant.
    """
    if variant is None and name not in variants.names():
        near = suggest(name, variants.names())
        raise BenchError(f"{name!r} is no variant, so --variant must say which one {file} belongs to. {near}")
    results = open_results(folder)
    ref = _ref(variant or name, sets)
    with _progress() as say:
        checkpoint, written = checkpoints.add(results, name, Path(file), ref, overwrite, say)
    console = Console()
    what = f"{checkpoint.parameters:,} parameters of {checkpoint.variant}, {_size(checkpoint.bytes)}"
    state = "Imported" if written else "Nothing to do: the same weights are imported already as"
    console.print(f"{state} {name}: {what}.", highlight=False, soft_wrap=True)
    row: dict[str, Any] = {"name": ref.name} if name != ref.name else {}
    row |= {"set": ref.set} if ref.set else {}
    entry = yaml.safe_dump({"variants": {name: row | {"weights": name}}}, default_flow_style=True, sort_keys=False)
    console.print(f"In a suite: {entry.strip()[1:-1]}", highlight=False, markup=False, soft_wrap=True)


def _ref(variant: str, sets: Sequence[str]) -> VariantRef:
    values: dict[str, Any] = {}
    for text in sets:
        key, equals, raw = text.partition("=")
        if not equals or not key.strip():
            raise BenchError(f"--set {text}: a hyperparameter is written key=value, e.g. --set decoder_depth=1.")
        try:
            values[key.strip()] = yaml.safe_load(raw)
        except yaml.YAMLError:
            raise BenchError(f"--set {text}: the value is not valid YAML; quote it.") from None
    variants.resolve(variant, values)
    try:
        return VariantRef(name=variant, set=values)
    except ValidationError:
        raise BenchError(
            f"--set: {checkpoints.settings(values)} holds a value of a type that no variant has."
        ) from None


def export_weights(
    name: str, format: str, out: str | None, as_variant: bool, seed: int, overwrite: bool, folder: str | None
) -> None:
    """Write an imported checkpoint, or a variant as initialised from a seed, in a form that others read.

    Raises:
        BenchError: nothing has that name, the target exists, or the format does not apply to the variant.
    """
    results = open_results(folder)
    ref, weights = _source(results, name, as_variant)
    if not variants.spec(ref.name).needs_torch:
        raise BenchError(f"variant {ref.name!r} has no weights to export.")
    target = _target(name, format, out, overwrite)
    if weights is None:
        print(  # noqa: T201
            f"bench: {name} is exported as a variant: initial weights drawn from seed {seed}, not a trained model.",
            file=sys.stderr,
        )
    with _progress() as say:
        say(f"building {name}")
        overrides: dict[str, Any] = dict(ref.set)
        model = variants.create(ref.name, weights, seed=seed, **overrides)
        if format in GRAPHS:
            lines = _export_graph(model, ref, format, target, say)
        else:
            lines = _export_state(model, ref, format, target, say)
    for line in lines:
        Console().print(line, highlight=False, markup=False, soft_wrap=True)


def _source(results: Results, name: str, as_variant: bool) -> tuple[VariantRef, Path | None]:
    """The variant and weights of a name: an imported checkpoint before a variant of the same name."""
    imported = checkpoints.names(results)
    if name in imported and not as_variant:
        return checkpoints.read(results, name).ref, checkpoints.weights_path(results, name)
    if name not in variants.names():
        near = suggest(name, [*imported, *variants.names()])
        raise BenchError(f"{name!r} is neither an imported checkpoint nor a variant. {near}")
    return VariantRef(name=name), None


def _target(name: str, format: str, out: str | None, overwrite: bool) -> Path:
    """Where the export goes: a file, or a folder where a graph is exported."""
    usual = f"{name}{SUFFIXES[format]}" if format in SUFFIXES else f"{name}-{format}"
    path = Path(out or usual)
    if format in SUFFIXES and path.is_dir():
        path /= usual
    if format in SUFFIXES and path.is_dir():
        raise BenchError(f"{path} is a folder; name a file with --out.")
    if not path.resolve().parent.is_dir():
        raise BenchError(f"--out {path}: the folder {path.parent} does not exist; make it first.")
    if format in GRAPHS and path.exists() and not path.is_dir():
        raise BenchError(f"{path} is a file; an export to {format} writes a folder: name another one with --out.")
    taken = path.exists() and (format in SUFFIXES or any(path.iterdir()))
    if taken and not overwrite:
        raise BenchError(f"{path} exists; name another place with --out, or overwrite it with --replace.")
    return path


def _export_state(model: Any, ref: VariantRef, format: str, target: Path, say: Callable[[str], None]) -> list[str]:
    import torch
    from safetensors.torch import save

    from variants.checkpoints import read_state_dict
    from variants.published import published_file

    state = variants.to_published(model)
    published = published_file(variants.spec(ref.name))
    wrap = published.wrap if published and format == "published" else None
    say(f"writing {target.name}")
    if format == "published":
        buffer = io.BytesIO()
        torch.save({wrap: state} if wrap else state, buffer)
        content = buffer.getvalue()
    else:
        content = save(state, metadata={"format": "pt"})
    with replacing(target) as stream:
        stream.write(content)
    say(f"reading {target.name} back")
    back = read_state_dict(target, state)
    if back.keys() != state.keys() or any(not torch.equal(back[key], value) for key, value in state.items()):
        raise BenchError(f"{target} was not written as it should be; check the disk and export again.")
    layout = f"state dict under {wrap!r}" if wrap else "plain state dict"
    return [f"{target}: {_size(len(content))}, {len(state)} tensors, {layout}; read back and equal."]


def _export_graph(model: Any, ref: VariantRef, format: str, target: Path, say: Callable[[str], None]) -> list[str]:
    """Encoder and decoder as files of a folder that is filled at once, when all of them were checked."""
    from harness.deploy import Unsupported

    spec = variants.resolve(ref.name, ref.set)
    with tempfile.TemporaryDirectory(dir=target.resolve().parent, prefix=f".{target.name}-") as work:
        made = Path(work)
        try:
            checked = (_onnx if format == "onnx" else _openvino)(model, spec, made, say)
        except Unsupported as error:
            raise BenchError(f"{ref.name} cannot be exported to {format}: {error}") from None
        target.mkdir(exist_ok=True)
        written = [path.replace(target / path.name) for path in sorted(made.iterdir())]
    rows = [f"{path}: {_size(path.stat().st_size)}" for path in written]
    at = {role: ", ".join(map(str, counts)) for role, counts in checked.items()}
    what = {"encoder": "images", "decoder": "prompts"}
    return [*rows, *(f"{role}: compared with torch at N = {at[role]} {what[role]}." for role in checked)]


def _onnx(model: Any, spec: VariantSpec, folder: Path, say: Callable[[str], None]) -> dict[str, list[int]]:
    """Standard operators alone, so that any machine and runtime reads the files; a deployment is optimised further."""
    from harness.deploy.export import TOLERANCE, check, graphs
    from harness.deploy.onnx import export_onnx, runner

    made = graphs(model, spec)
    for graph in made:
        path = folder / f"{graph.role}.onnx"
        say(f"exporting {path.name}")
        export_onnx(graph, path)
        say(f"checking {path.name}")
        check(graph, path.name, runner(path, Deployment().threads), TOLERANCE["fp32"])
    return {graph.role: list(graph.counts) for graph in made}


def _openvino(model: Any, spec: VariantSpec, folder: Path, say: Callable[[str], None]) -> dict[str, list[int]]:
    from harness.deploy import prepare

    prepared = prepare(model, spec, Deployment(backend="openvino"), folder, (), say)
    checked: dict[str, list[int]] = prepared.facts["checked"]
    return checked


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Says on stderr what is being done: a spinner on a terminal, else a line a step."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("") as status:
            yield lambda text: status.update(f"{text} …")
    else:
        yield lambda text: console.print(f"{text} …", highlight=False, markup=False, soft_wrap=True)
