"""Libraries imported without what a measured process never uses."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

CONVERTER = "openvino.tools.ovc"
"""Converts models and reports its use over the network; two thirds of the time that importing OpenVINO takes."""


def openvino() -> ModuleType:
    """OpenVINO without its model converter, which its package takes as missing; the whole of it if it is there already.

    The converter can be imported by its own name afterwards.
    """
    if "openvino" in sys.modules or CONVERTER in sys.modules:
        return import_module("openvino")
    sys.modules[CONVERTER] = None  # type: ignore[assignment]  # importing it raises ImportError, as if not installed
    try:
        return import_module("openvino")
    finally:
        del sys.modules[CONVERTER]
