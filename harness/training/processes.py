"""One process or several: Fabric as the trainer uses it.

``torchrun`` says by its environment how many processes there are; each takes its share of every batch, and gradients
are averaged (gloo between CPUs, NCCL between GPUs).
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, cast

import torch
from lightning_fabric import Fabric
from torch import nn

from harness.errors import BenchError
from harness.recipe import Stage
from harness.torchrun import count

T = TypeVar("T")
Accelerator = Literal["auto", "cpu", "cuda"]


def device(accelerator: Accelerator = "auto") -> torch.device:
    """Where this process computes; ``auto`` takes the GPU if there is one."""
    chosen = accelerator if accelerator != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(chosen, int(os.environ.get("LOCAL_RANK", "0"))) if chosen == "cuda" else torch.device(chosen)


def fabric(accelerator: Accelerator, *, bf16: bool) -> Fabric:
    """Fabric for one device a process; joins the other processes if there are any."""
    chosen = device(accelerator).type
    several: dict[str, Any] = {}
    if count() > 1:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", count()))
        # Box prompts leave the parameters of points and scribbles without a gradient, a distillation the whole decoder.
        several = {"strategy": "ddp_find_unused_parameters_true", "num_nodes": count() // here}
    with quiet():
        made = Fabric(
            accelerator=chosen,
            devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if several else 1,
            precision="bf16-mixed" if bf16 else "32-true",
            **several,
        )
        if several:
            made.launch()
    return made


def set_up(fabric: Fabric, module: nn.Module, optimiser: torch.optim.Optimizer, stage: Stage) -> tuple[Any, Any]:
    """Module and optimiser as Fabric wraps them; compiled if the stage asks for it."""
    if fabric.world_size > 1:
        from harness.training.batchnorm import synchronised

        synchronised(module)
    with quiet():
        # torch.compile wraps the same parameters, so the optimiser and the saved state do not notice
        ready = cast(nn.Module, torch.compile(module)) if stage.compile else module
        wrapped, wrapped_optimiser = fabric.setup(ready, optimiser)
    return wrapped, wrapped_optimiser


def same_everywhere(fabric: Fabric, make: Callable[[], T]) -> T:
    """What the first process makes, in every process."""
    made = make() if fabric.is_global_zero else None
    return cast(T, fabric.broadcast(made)) if fabric.world_size > 1 else cast(T, made)


def of_all(fabric: Fabric, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names that the processes have, one process's after another's; all of them must call it."""
    if fabric.world_size == 1:
        return names
    gathered: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(gathered, names)
    return tuple(name for part in gathered for name in part)


@contextmanager
def failing_together() -> Iterator[None]:
    """Ends this process at an error of its own, so that the others are not left waiting for it."""
    try:
        yield
    except BaseException as error:
        if count() > 1:
            if isinstance(error, BenchError):
                print(f"bench: {error}", file=sys.stderr)  # noqa: T201
            elif not isinstance(error, KeyboardInterrupt):
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(70)
        raise


@contextmanager
def quiet() -> Iterator[None]:
    """The one place where advice of Fabric that does not apply here, and its notes on what was asked for, end."""
    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The `srun` command is available")
            yield
    finally:
        logger.setLevel(level)
