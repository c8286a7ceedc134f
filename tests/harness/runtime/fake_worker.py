"""A program that obeys the worker's command line and misbehaves as its bundle's environment says (``FAKE``)."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from harness.measure.runtime.limits import read_limits


def tell(outputs: Path, **changes) -> None:
    side = outputs / ".bench"
    side.mkdir(parents=True, exist_ok=True)
    limits = {**read_limits(), **changes}
    told = {"started": time.time(), "phases": {"imports": 0.01}, "cases": {}, "limits": limits, "finished": time.time()}
    (side / "worker.json").write_text(json.dumps(told))


def main(inputs: Path, outputs: Path) -> None:
    mode = os.environ["FAKE"]
    case = next(inputs.glob("*.npz"))
    with np.load(case) as arrays:
        assert "gts" not in arrays, "the ground truth must not reach a measured program"
        segs = np.zeros(arrays["imgs"].shape[:2], dtype=np.uint8)
    tell(outputs, **({"memory_bytes": 1 << 40} if mode == "limit" else {}))
    if mode == "memory":
        bytearray(1 << 30)
    elif mode == "ballast":
        with Path(os.environ["BALLAST"]).open("rb", buffering=0) as stream:
            while stream.read(1 << 20):
                pass
        held = bytearray(int(os.environ["HELD"]))
        time.sleep(0.1)
        assert held[-1] == 0
    elif mode == "children":
        code = "import time; held = bytearray(60 << 20); time.sleep(0.6)"
        children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
        assert [child.wait() for child in children] == [0, 0]
    elif mode == "escape":
        left_behind = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
        Path(os.environ["PIDS"]).write_text(str(left_behind.pid))
    elif mode == "hang":
        left_behind = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        Path(os.environ["PIDS"]).write_text(f"{os.getpid()} {left_behind.pid}")
        time.sleep(60)
    elif mode == "crash":
        sys.stderr.write("the reason stands here\n")
        sys.exit(3)
    elif mode == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif mode == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif mode == "missing":
        return
    changed = {"shape": segs[1:], "dtype": segs.astype(np.float32), "label": segs + 9}
    np.savez_compressed(outputs / case.name, segs=changed.get(mode, segs))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
