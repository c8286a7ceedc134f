"""The lean worker that runs inside a sandbox: every npz of one folder in, a ``segs`` npz of the same name out.

``python -m harness.measure.runtime.worker INPUTS OUTPUTS BUNDLE``.  It imports the least, and the same for every
variant: numpy, OpenCV, and the backend its bundle needs.  What it measured goes to ``OUTPUTS/.bench/worker.json``,
written once before the first case (so that the limits are known even if memory ends there) and again at the end.

Exit status: 0, or 1 if a case failed; the last line of standard error then says why.  The other cases are still done,
and an output file is whole or absent.
"""

import time

STARTED = time.time()

import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

if TYPE_CHECKING:
    from harness.inference import InputRules, Session

SIDE_FOLDER = ".bench"
_KEPT: "list[Session]" = []  # a session that nobody holds is taken apart, which is work nobody asked for either
_PARTS = ("preprocess", "encode", "decode", "postprocess")


class Told:
    """What the worker tells about itself: times by phase, what became of every case, limits, versions."""

    def __init__(self, outputs: Path) -> None:
        self._file = outputs / SIDE_FOLDER / "worker.json"
        self.data: dict[str, Any] = {"format": 1, "started": STARTED, "phases": {}, "cases": {}}

    def write(self) -> None:
        """Put the file in place; never half of it."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".tmp")
        used = os.times()
        self.data["cpu_s"] = used.user + used.system + used.children_user + used.children_system
        self.data["finished"] = time.time()
        temporary.write_text(json.dumps(self.data), encoding="utf-8")
        temporary.replace(self._file)


def load_libraries(description: dict[str, Any]) -> dict[str, str]:
    """Import what the bundle needs; name → version."""
    from importlib import import_module

    import cv2
    import numpy

    import harness.data.case
    import harness.inference
    import variants

    del harness, variants
    versions = {"python": sys.version.split()[0], "numpy": numpy.__version__, "opencv": cv2.__version__}
    backend = description["target"]
    if backend == "openvino":
        from harness.inference import lean

        versions[backend] = lean.openvino().__version__
    elif backend != "numpy":
        versions[backend] = import_module(backend).__version__
    cv2.setNumThreads(description["deployment"]["threads"])
    return versions


def load_model(folder: Path, description: dict[str, Any]) -> "Session":
    """The session that the bundle in ``folder`` describes."""
    from types import SimpleNamespace

    from harness.inference import open_session

    # The suite's own classes are pydantic models, which the measured process does not import; these have their fields.
    variant: Any = SimpleNamespace(**description["variant"])
    deployment: Any = SimpleNamespace(**description["deployment"])
    weights = folder / description["weights"] if description["weights"] else None
    prepared = folder / description["prepared"] if description["prepared"] else None
    session = open_session(variant, deployment, weights, description["seed"], prepared=prepared)
    if not deployment.delay:
        return session
    from harness.inference.delayed import DelayedSession

    return DelayedSession(session, deployment.delay)


def run_case(
    session: "Session", source: Path, target: Path, rules: "InputRules", deployment: dict[str, Any]
) -> dict[str, Any]:
    """Segment one case file; seconds by phase and the number of encodings."""
    import numpy as np

    from harness.data.case import read_case
    from harness.inference import segment

    begin = time.perf_counter()
    case = read_case(source)
    read = time.perf_counter()
    prediction = segment(session, case, rules, deployment["execution"], deployment["embedding_cache"])
    segmented = time.perf_counter()
    temporary = target.parent / SIDE_FOLDER / f"{target.name}.tmp"
    with temporary.open("wb") as stream:
        np.savez_compressed(stream, segs=prediction.segs)
    temporary.replace(target)
    phases = {name: seconds for name, seconds in prediction.timings.items() if name in _PARTS}
    phases |= {"read": read - begin, "write": time.perf_counter() - segmented}
    return {"status": "ok", "phases": phases, "encodes": prediction.encodes, "encoded_again": prediction.encoded_again}


def attempt(
    session: "Session", source: Path, target: Path, rules: "InputRules", deployment: dict[str, Any]
) -> dict[str, Any]:
    """``run_case``, with any failure of the case as its result instead."""
    import traceback

    from harness.errors import BenchError
    from harness.failure import reason_of, status_of

    try:
        return run_case(session, source, target, rules, deployment)
    except Exception as error:  # one case must not take the following ones with it
        if isinstance(error, BenchError):
            print(error, file=sys.stderr)  # noqa: T201
        else:
            traceback.print_exc()
        return {"status": status_of(error), "reason": reason_of(error)}


def work(inputs: Path, outputs: Path, bundle: Path, told: Told) -> bool:
    """Do all cases; whether all of them succeeded."""
    from harness.measure.runtime.limits import anonymous_now, peak_resident, read_limits

    description = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    told.data["versions"] = load_libraries(description)
    told.data["phases"]["imports"] = time.time() - STARTED
    told.data["limits"] = read_limits()
    told.write()
    from harness.inference import InputRules

    rules, deployment = InputRules.from_json(description["rules"]), description["deployment"]
    begin = time.perf_counter()
    session = load_model(bundle, description)
    _KEPT.append(session)
    told.data["phases"]["model load"] = time.perf_counter() - begin
    for source in sorted(inputs.glob("*.npz")):
        told.data["cases"][source.stem] = attempt(session, source, outputs / source.name, rules, deployment)
    told.data["peak_resident_bytes"] = peak_resident()
    told.data["anonymous_bytes"] = anonymous_now()
    told.data["cgroup_peak_bytes"] = read_limits()["cgroup_peak_bytes"]
    return all(case["status"] == "ok" for case in told.data["cases"].values())


def main(arguments: list[str]) -> int:
    """Entry point; see the module text."""
    if len(arguments) != 3:
        print("usage: python -m harness.measure.runtime.worker INPUTS OUTPUTS BUNDLE", file=sys.stderr)  # noqa: T201
        return 2
    inputs, outputs, bundle = map(Path, arguments)
    told = Told(outputs)
    try:
        succeeded = work(inputs, outputs, bundle, told)
    except Exception as error:
        from harness.failure import reason_of, status_of

        told.data["failure"] = {"status": status_of(error), "reason": reason_of(error)}
        raise
    finally:
        told.write()
    return 0 if succeeded else 1


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # everything is written; taking the interpreter apart is work nobody asked for
