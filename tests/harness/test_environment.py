"""The environment itself: a CPU build of torch has no CUDA packages beside it."""

import os
from importlib import metadata

import pytest


def test_no_cuda_package_lies_beside_a_cpu_build_of_torch():
    if "+cpu" not in metadata.version("torch"):
        reason = "this torch is not a CPU build; let pip find one (PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    cuda = sorted({d.name for d in metadata.distributions() if d.name.lower().startswith("nvidia-")})
    assert not cuda, f"{cuda[0]} was installed without `-c constraints.txt`"


def test_torch_and_torchvision_are_the_pinned_pair():
    from harness.provenance import ROOT

    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    for name in ("torch", "torchvision"):
        assert metadata.version(name).split("+")[0] == pins[name]
