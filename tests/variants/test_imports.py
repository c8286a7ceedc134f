"""What importing the zoo costs, and what it must never import."""

from __future__ import annotations

from pathlib import Path

import variants

PACKAGE = Path(variants.__file__).parent
LOADED = "import sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"


def test_listing_variants_imports_neither_torch_nor_numpy(run_python):
    loaded = run_python(f"import variants; variants.names(); variants.resolve('litemedsam', {{}}); {LOADED}").split()
    assert not {"torch", "numpy", "cv2", "timm", "torchvision"} & set(loaded)


def test_dummy_and_preprocessing_run_without_torch(run_python):
    code = """
import numpy as np, variants
prepared = variants.preprocess.prepare(np.zeros((20, 30), np.uint8), 256)
model = variants.create("dummy")
model.decode(model.encode(prepared.network[None]), [[1, 2, 30, 40]])
"""
    assert "torch" not in run_python(code + LOADED).split()


def test_creating_a_published_model_imports_neither_timm_nor_torchvision(run_python):
    loaded = run_python(f"import variants; variants.create('litemedsam'); {LOADED}").split()
    assert "torch" in loaded
    assert not {"timm", "torchvision", "fvcore", "importlib_metadata"} & set(loaded)


def test_a_built_in_variant_is_found_without_reading_the_metadata_of_installed_packages(run_python):
    code = "import variants, sys; variants.spec('dummy'); print('importlib.metadata' in sys.modules)"
    assert run_python(code) == "False"


def test_no_module_of_the_zoo_imports_the_harness_or_the_reports():
    for path in PACKAGE.rglob("*.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words and words[0] in ("import", "from"):
                assert words[1].split(".")[0] not in ("harness", "reports"), f"{path}: {line}"


def test_timm_can_be_imported_beside_a_cpu_torch(run_python):
    code = "from variants.compat import make_timm_importable as make; first = make(); import timm; print(make())"
    assert run_python(code) == "()"


def test_operators_that_exist_are_not_declared_again(run_python):
    code = """
import torch
from variants.compat import SCHEMAS, make_timm_importable
library = torch.library.Library("torchvision", "FRAGMENT")
for schema in SCHEMAS.values():
    try:
        library.define(schema)
    except RuntimeError:
        pass  # this torchvision brings its own
print(make_timm_importable())
"""
    assert run_python(code) == "()"


def test_without_torchvision_nothing_is_declared(monkeypatch):
    from variants import compat

    monkeypatch.setattr(compat, "find_spec", lambda name: None)
    assert compat.make_timm_importable() == ()
