"""Stands in for the machine's matrix product: a constant speed at once, so that tests need not wait for a real one."""

from typing import Any

from harness.measure.latency.pipe import serve

SPEED = {"fp32": 50e9, "bf16": 100e9}
asked: list[str] = []


def answer(request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "open":
        asked.extend(request["precisions"])
        return {precision: {"library": "constant 1.0", "size": 2} for precision in asked}
    return {precision: SPEED[precision] for precision in asked}


if __name__ == "__main__":
    serve(answer)
