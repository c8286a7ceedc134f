"""Images of the docker sandbox: wheels resolved on the host, built without a network, rebuilt only when they change.

Everything is kept under the user's cache folder (``$XDG_CACHE_HOME/medsam-bench`` or ``~/.cache/medsam-bench``): wheels
by the hash of what was asked for, and hard-linked into a build context.  The versions are those of the running
environment, so that container and process run the same libraries.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

from harness.errors import BenchError
from harness.measure.runtime.dockercli import call
from harness.measure.runtime.sandbox import Progress, python_path
from harness.measure.runtime.verdict import last_line

Target = Literal["numpy", "torch", "onnxruntime", "openvino"]

LIBRARIES: Final[dict[Target, tuple[str, ...]]] = {
    "numpy": ("numpy", "opencv-python-headless"),
    "torch": ("torch", "safetensors"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
}
"""What a target adds to the target ``numpy``."""

SOURCES: Final = (
    "variants",
    "harness/__init__.py",
    "harness/errors.py",
    "harness/failure.py",
    "harness/files.py",
    "harness/protocols.py",
    "harness/schema.py",
    "harness/data",
    "harness/inference",
    "harness/measure/__init__.py",
    "harness/measure/runtime/__init__.py",
    "harness/measure/runtime/limits.py",
    "harness/measure/runtime/worker.py",
)
"""What the worker imports, relative to the folder of the packages."""

CPU_INDEX: Final = "https://download.pytorch.org/whl/cpu"
BASE_VARIABLE: Final = "MEDSAM_BENCH_BASE_IMAGE"
BUILD_S: Final = 1800.0
KNOWN_S: Final = 60.0
"""Seconds for which an image that was seen counts as being there: the jobs of a session are prepared at once."""
_READY: dict[tuple[Target, str], tuple[float, str]] = {}
"""Target and base image → when its image was seen, and its tag."""


def cache_folder() -> Path:
    """Where wheels and build contexts are kept between runs."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "medsam-bench"


def base_image() -> str:
    """The image to build on: ``MEDSAM_BENCH_BASE_IMAGE``, or the slim image of this Python version."""
    return os.environ.get(BASE_VARIABLE) or f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"


def requirements(target: Target) -> list[str]:
    """What pip is asked for, pinned to the versions installed here; a CPU build of torch wherever there is a choice."""
    found = []
    for name in LIBRARIES[target]:
        try:
            installed = version(name)
        except PackageNotFoundError as error:
            raise BenchError(f"{name} is not installed here, so its version for the image is unknown") from error
        if name == "torch" and platform.machine() == "x86_64":
            installed = f"{installed.partition('+')[0]}+cpu"
        found.append(f"{name}=={installed}")
    return found


def wheels(target: Target, progress: Progress) -> Path:
    """The folder of all wheels a target adds, resolved once.

    Raises:
        BenchError: pip could not resolve them.
    """
    wanted = requirements(target)
    constraints = _constraints()
    pins = constraints.read_text(encoding="utf-8").splitlines() if constraints else []
    text = "\n".join([*wanted, *(pin for pin in pins if not pin.startswith("#")), _platform()])
    folder = cache_folder() / "wheels" / f"{target}-{sha256(text.encode()).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    progress(f"resolving wheels: {', '.join(wanted)}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    attempt = Path(tempfile.mkdtemp(prefix=f".{target}-", dir=folder.parent))
    try:
        _pip_wheel(wanted, constraints, attempt)
        try:
            attempt.rename(folder)
        except OSError:
            if not folder.is_dir():  # another run may have been faster
                raise
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
    return folder


def _pip_wheel(wanted: list[str], constraints: Path | None, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    command += ["--prefer-binary", "--wheel-dir", str(folder)]
    if constraints:
        command += ["--constraint", str(constraints)]
    done = subprocess.run([*command, *wanted], capture_output=True, text=True, check=False)
    if done.returncode != 0 and any(item.startswith("torch==") for item in wanted):
        command += ["--extra-index-url", CPU_INDEX]
        done = subprocess.run([*command, *wanted], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(
            f"the wheels of the image could not be resolved ({last_line(done.stderr)}); "
            f"`python -m pip wheel -c constraints.txt {' '.join(wanted)}` shows more"
        )


def _constraints() -> Path | None:
    path = Path(python_path()) / "constraints.txt"
    return path if path.is_file() else None


def _platform() -> str:
    return f"{sys.implementation.cache_tag}-{platform.system()}-{platform.machine()}"


def sources() -> Iterator[tuple[str, Path]]:
    """Every source file of the image: path relative to the packages' folder, and where it lies."""
    root = Path(python_path())
    for name in SOURCES:
        path = root / name
        files: Iterable[Path] = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        for file in files:
            yield file.relative_to(root).as_posix(), file


def dockerfile() -> Path:
    """``Dockerfile.cpu`` of the project.

    Raises:
        BenchError: there is none beside the packages (an installation without the project's files).
    """
    path = Path(python_path()) / "Dockerfile.cpu"
    if not path.is_file():
        raise BenchError(f"{path} is missing; the docker sandbox builds its image from it, so run from a clone")
    return path


def predict_script() -> Path:
    """The challenge's entry point in the image."""
    return Path(__file__).with_name("predict.sh")


def target_of(name: str) -> Target:
    """The target of that name.

    Raises:
        BenchError: there is none; a bundle made by another version may name one.
    """
    for target in LIBRARIES:
        if target == name:
            return target
    raise BenchError(f"no image is built for {name!r}; known: {', '.join(LIBRARIES)}")


def image_tag(target: Target, wheel_names: Iterable[str]) -> str:
    """Name and tag of a target's image: the hash of everything that goes into it."""
    digest = sha256()
    for part in (base_image(), *sorted(wheel_names)):
        digest.update(f"{part}\n".encode())
    for name, path in (("Dockerfile", dockerfile()), ("predict.sh", predict_script()), *sources()):
        digest.update(f"{name}\n".encode())
        digest.update(path.read_bytes())
    return f"medsam-bench-{target}:{digest.hexdigest()[:16]}"


def ensure_image(target: Target, progress: Progress) -> str:
    """The tag of a target's image, built if it is not there.

    Raises:
        BenchError: the wheels cannot be resolved or the build fails; the message says what to do.
    """
    place = target, base_image()
    known = _READY.get(place)
    if known is not None and time.monotonic() - known[0] < KNOWN_S:
        return known[1]
    tag = _ensure(target, progress)
    _READY[place] = time.monotonic(), tag
    return tag


def _ensure(target: Target, progress: Progress) -> str:
    layers: list[Target] = ["numpy"] if target == "numpy" else ["numpy", target]
    folders = {layer: wheels(layer, progress) for layer in layers}
    names = [f"{layer}/{wheel.name}" for layer in layers for wheel in folders[layer].iterdir()]
    tag = image_tag(target, names)
    if call(["docker", "image", "inspect", "--format", "{{.Id}}", tag]).ok:
        return tag
    progress(f"building image {tag}")
    with tempfile.TemporaryDirectory(prefix="context-", dir=cache_folder()) as scratch:
        context = Path(scratch)
        _fill_context(context, folders, target)
        _build(["--target", target, "--build-arg", f"BASE={base_image()}"], tag, context)
    return tag


def _fill_context(context: Path, folders: dict[Target, Path], target: Target) -> None:
    (context / "Dockerfile").write_text(_stages(dockerfile().read_text(encoding="utf-8"), target), encoding="utf-8")
    shutil.copyfile(predict_script(), context / "predict.sh")
    for layer, folder in folders.items():
        wheel_folder = context / "wheels" / layer
        wheel_folder.mkdir(parents=True)
        for wheel in folder.iterdir():
            if layer != "numpy" and (context / "wheels" / "numpy" / wheel.name).exists():
                continue  # installed by the layer below already
            os.link(wheel, wheel_folder / wheel.name)
    for name, path in sources():
        copy = context / "src" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    _same_modes(context)


def _stages(text: str, target: Target) -> str:
    """The Dockerfile without the stages of other targets, which the classic builder would build as well."""
    head, *stages = re.split(r"(?m)^(?=FROM )", text)
    wanted = ("numpy", target)
    return head + "".join(s for s in stages if re.split(r"[ \n]", s)[3].removesuffix("-wheels").startswith(wanted))


def _same_modes(context: Path) -> None:
    """The same modes whatever the umask: the layer cache compares contents and modes."""
    for path in [*context.rglob("*"), context]:
        if path.suffix != ".whl":
            path.chmod(0o755 if path.is_dir() else 0o644)


def _build(options: list[str], tag: str, context: Path) -> None:
    # BuildKit off: the classic builder is everywhere and reaches images that exist on this machine alone.
    argv = ["env", "DOCKER_BUILDKIT=0", "docker", "build", "--network", "none", "--force-rm", "--tag", tag, *options]
    answer = call([*argv, str(context)], timeout_s=BUILD_S)
    if answer.ok:
        return
    said = last_line(f"{answer.stdout}\n{answer.stderr}")
    if answer.timed_out:
        said = f"not finished after {BUILD_S:g} s"
    elif not call(["docker", "image", "inspect", base_image()]).ok:
        said = (
            f"the base image {base_image()} is not here and could not be pulled; `docker pull {base_image()}`, or "
            f"`.ci/start-docker.sh` makes one without a hub, or set {BASE_VARIABLE} to one that is here"
        )
    raise BenchError(f"building the image {tag} failed: {said}")


def build_submission(base: str, bundle: Path, name: str, labels: dict[str, str]) -> None:
    """The image of one bundle, complete as a submission to the challenge: ``base`` with the bundle copied in.

    Raises:
        BenchError: the build fails.
    """
    with tempfile.TemporaryDirectory(prefix="submission-", dir=cache_folder()) as scratch:
        context = Path(scratch)
        (context / "Dockerfile").write_text(f"FROM {base}\nCOPY bundle /workspace/bundle\n", encoding="utf-8")
        shutil.copytree(bundle, context / "bundle")
        _same_modes(context)
        options = [item for key, value in labels.items() for item in ("--label", f"{key}={value}")]
        _build(options, f"{name}:latest", context)


def image_facts(tag: str) -> dict[str, Any]:
    """Id and size in bytes of an image, empty if there is none."""
    answer = call(["docker", "image", "inspect", "--format", '{"id":"{{.Id}}","bytes":{{.Size}}}', tag])
    facts: dict[str, Any] = json.loads(answer.stdout) if answer.ok else {}
    return facts
