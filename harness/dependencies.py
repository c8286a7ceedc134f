"""What decides a job's result besides its settings and inputs: source files and libraries, by kind of job."""

from __future__ import annotations

from harness.config import JobKind

READING = (
    "harness/data/case.py",
    "harness/data/dataset.py",
    "harness/data/npz.py",
    "harness/schema.py",
    "variants/preprocess.py",
    "variants/gray.py",
    "variants/spline.py",
    "variants/prompts.py",
)
WEIGHTS = ("variants/creation.py", "variants/checkpoints.py")
EXECUTED = (*WEIGHTS, "variants/sam/folding.py")
TIMED = ("harness/measure/runtime", "harness/measure/attempts.py", "harness/stats/median.py")
CODE: dict[JobKind, tuple[str, ...]] = {
    "train": ("harness/training", *READING, *WEIGHTS),
    "deploy": (
        "harness/deploy",
        "harness/inference",
        "harness/data/phantoms",
        "harness/metrics/dice.py",
        "harness/protocols.py",
        "variants/fusion.py",
        *READING,
        *EXECUTED,
    ),
    "accuracy": (
        "harness/measure/accuracy.py",
        "harness/measure/attempts.py",
        "harness/failure.py",
        "harness/inference",
        "harness/protocols.py",
        "harness/metrics",
        *READING,
        *EXECUTED,
    ),
    "complexity": ("harness/measure/complexity", "harness/measure/conventions.py", "suites/published/complexity.yaml"),
    "latency": (
        "harness/measure/latency",
        "harness/measure/complexity/inputs.py",
        "harness/measure/complexity/multiply_adds.py",
        "harness/measure/runtime/bundle.py",
        "harness/measure/runtime/disturbance.py",
        "harness/measure/runtime/worker.py",
        "harness/inference",
        "harness/allocator.py",
        "harness/protocols.py",
        "harness/failure.py",
        "variants/fusion.py",
        *READING,
        *EXECUTED,
    ),
    "runtime": (
        *TIMED,
        "harness/measure/runtime/predict.sh",
        "harness/inference",
        "harness/allocator.py",
        "harness/protocols.py",
        "harness/failure.py",
        "Dockerfile.cpu",
        *READING,
        *EXECUTED,
    ),
}
CODE_OF_IMAGES = (
    *TIMED,
    "harness/data/case.py",
    "harness/data/dataset.py",
    "harness/data/npz.py",
    "harness/failure.py",
    "harness/schema.py",
)
"""What decides the runtime of an image that is not ours: how it is measured and what it is given."""
COMPUTES_WITH: dict[JobKind, tuple[str, ...]] = {
    "train": ("numpy", "opencv-python-headless", "torch", "lightning-fabric"),
    "deploy": ("numpy", "opencv-python-headless", "torch"),
    "accuracy": ("numpy", "opencv-python-headless", "scipy", "torch"),
    "complexity": ("fvcore", "torch", "ultralytics-thop"),
    "latency": ("fvcore", "numpy", "opencv-python-headless", "safetensors", "torch"),
    "runtime": ("numpy", "opencv-python-headless", "safetensors", "torch"),
}
"""Libraries whose versions decide the result; torch only for variants and deployments that need it."""
BACKEND_LIBRARIES: dict[str, tuple[str, ...]] = {
    "torch": (),
    "onnxruntime": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino", "nncf"),
}
