"""The one training loop, on Lightning Fabric: takes a step at a time and can stop and go on between any two.

A step is a function of the state before it and its number: samples come from (seed, step), and the generator behind
dropout is seeded with (seed, step).  On a CPU with a fixed number of threads the whole run is therefore bit for bit
the same however often it was interrupted; on a GPU it is the same up to the order of its sums.

Under ``torchrun`` every process takes its share of each batch; losses are means over the whole batch.
"""

from __future__ import annotations

import math
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError  # only the exception: nothing is unpickled here
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from harness.files import replacing
from harness.recipe import Stage
from harness.training import optimise, processes
from harness.training.processes import Accelerator
from harness.training.samples import Batch
from harness.training.tasks import Task, Terms, as_tensor, parts
from variants import PromptableModel

STATE_FORMAT = 2


class DivergedError(Exception):
    """Loss or gradient stopped being finite; the weights of the step before are still in the last saved state."""

    def __init__(self, step: int, cases: tuple[str, ...], what: str) -> None:
        super().__init__(f"{what} at step {step}; cases of the batch: {', '.join(dict.fromkeys(cases))}")
        self.step, self.cases, self.what = step, cases, what


@dataclass(frozen=True)
class StepResult:
    """One finished step (1-based): total loss and its named terms, learning rate, the cases of the batch, seconds."""

    step: int
    loss: float
    parts: dict[str, float]
    rate: float
    cases: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Judgement:
    """How the model did on cases kept out of training, after a step: mean loss and DSC (``None`` of a distillation)."""

    step: int
    loss: float
    dsc: float | None


@dataclass
class History:
    """What happened so far, as the state keeps it."""

    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)


class Trainer:
    """Trains a model in place.

    Args:
        task: what is learned; its model is left in train mode.
        stage: learning rate, schedule and how to execute.
        batches: 0-based step → this process's share of the batch.
        seed: of everything random inside a step.
        steps: to take in all.
        epoch_steps: steps of an epoch, after which a plateau schedule looks at the loss.
        accelerator: ``auto`` takes the GPU if there is one.
    """

    def __init__(
        self,
        task: Task,
        stage: Stage,
        batches: Callable[[int], Batch],
        *,
        seed: int,
        steps: int,
        epoch_steps: int = 1,
        accelerator: Accelerator = "auto",
    ) -> None:
        torch.set_num_threads(stage.threads)
        self.stage, self.steps, self.history = stage, steps, History()
        self.best: dict[str, Tensor] | None = None
        self._task, self._batches, self._seed, self._epoch_steps = task, batches, seed, epoch_steps
        self._fabric = processes.fabric(accelerator, bf16=stage.bf16)
        self._layout = torch.channels_last if stage.channels_last else torch.contiguous_format
        self._module = task.module
        self._module.to(memory_format=self._layout)  # type: ignore[call-overload]  # missing from torch's stubs
        self._train_mode()
        self._trained = [p for p in self._module.parameters() if p.requires_grad]
        self._optimiser = torch.optim.AdamW(
            self._trained,
            lr=stage.learning_rate,
            betas=stage.betas,
            eps=stage.eps,
            weight_decay=stage.weight_decay,
            fused=True,
        )
        self._wrapped, self._wrapped_optimiser = processes.set_up(self._fabric, self._module, self._optimiser, stage)
        self._average = optimise.averaged(self._module, stage.ema) if stage.ema else None

    @property
    def steps_taken(self) -> int:
        """Steps behind this state; the next step has this number as its 0-based index."""
        return len(self.history.losses)

    @property
    def losses(self) -> list[float]:
        """Loss of every step so far."""
        return self.history.losses

    @property
    def model(self) -> PromptableModel:
        """The model being trained."""
        return self._task.model

    @property
    def device(self) -> torch.device:
        return self._fabric.device

    def step(self) -> StepResult:
        """Take one optimiser step.

        Raises:
            DivergedError: loss or gradient is not finite; nothing was learned from the batch.
        """
        started = time.perf_counter()
        index = self.steps_taken
        rate = self._rate(index)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        batch = self._batches(index)
        torch.manual_seed(_mix(self._seed, index))
        with reproducible(on=self.device.type == "cpu"):
            loss, named = self._backward(batch, index)
            if not optimise.clipped(self._trained, self.stage, self.history.norms):
                raise self._diverged(index, batch, "the gradient is not finite")
            self._wrapped_optimiser.step()
        if self._average is not None:
            self._average.update_parameters(self._module)
        self.history.losses.append(loss)
        self.history.rates.append(rate)
        return StepResult(index + 1, loss, named, rate, batch.cases, time.perf_counter() - started)

    def _rate(self, index: int) -> float:
        falls = 1.0
        if self.stage.schedule == "plateau":
            rule = self.stage.plateau
            watched = optimise.epoch_means(self.history.losses, self._epoch_steps)
            if rule.watch == "validation":
                watched = [judgement.loss for judgement in self.history.judgements]
            falls = optimise.plateau_factor(watched, rule)
        return optimise.learning_rate(self.stage, index, self.steps, falls)

    def _backward(self, batch: Batch, index: int) -> tuple[float, dict[str, float]]:
        """Gradients of the mean loss over the whole batch, piece by piece; that loss and its named terms."""
        pieces = parts(batch, self.stage.micro_batch)
        total = self._fabric_sum(len(batch.boxes) if self._counts_prompts() else len(batch.images))
        self._wrapped_optimiser.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for place, piece in enumerate(pieces):
            with self._fabric.no_backward_sync(self._wrapped, enabled=place + 1 < len(pieces)):
                terms = self._task.terms(self._wrapped, piece, self._move)
                share = terms.count / total
                for name, value in self._read(terms).items():
                    sums[name] = sums.get(name, 0.0) + self._fabric_sum(value * share)
                if not math.isfinite(sums["loss"]):  # in whichever process
                    raise self._diverged(index, batch, f"the loss is {sums['loss']}")
                self._fabric.backward(optimise.weighted(terms.total, terms.count, total, self._fabric.world_size))
        return sums.pop("loss"), sums

    def _diverged(self, index: int, batch: Batch, what: str) -> DivergedError:
        """Every process comes here at the same step, and names the cases of the whole batch."""
        return DivergedError(index + 1, processes.of_all(self._fabric, batch.cases), what)

    def judge(self, batches: Iterable[Batch]) -> Judgement:
        """Mean loss and DSC over batches, by the averaged weights if the stage keeps any; the model stays as it is."""
        from harness.training.validation import judge

        module = self._average.module if self._average is not None and self._average.n_averaged > 0 else self._module
        with reproducible(on=self.device.type == "cpu"):
            loss, score = processes.same_everywhere(
                self._fabric, lambda: judge(self._task, module, batches, self._move, self._fabric.autocast)
            )
        self._train_mode()
        judgement = Judgement(self.steps_taken, loss, score)
        self.history.judgements.append(judgement)
        if self.best_judgement() is judgement:
            self.best = {name: tensor.clone() for name, tensor in self.result().items()}
        return judgement

    def best_judgement(self) -> Judgement | None:
        """The best so far, the earliest of equals."""
        return max(self.history.judgements, key=self._mark, default=None)

    def waited_in_vain(self) -> int:
        """Judgements since the best one."""
        best, judgements = self.best_judgement(), self.history.judgements
        return 0 if best is None else len(judgements) - 1 - judgements.index(best)

    def _mark(self, judgement: Judgement) -> float:
        """What of two judgements the better has more of."""
        of_dsc = self.stage.validation is not None and self.stage.validation.metric == "dsc"
        mark = judgement.dsc if of_dsc and judgement.dsc is not None else -judgement.loss
        return mark if math.isfinite(mark) else -math.inf

    def result(self) -> dict[str, Tensor]:
        """The model's present weights, averaged if the stage averages (state dict)."""
        if self._average is not None and self._average.n_averaged > 0:
            return dict(self._inner(self._average.module).state_dict())
        return dict(self._inner(self._module).state_dict())

    def finish(self) -> None:
        """Load what the stage gives into the model: the best state if it keeps that, else the last."""
        keeps_best = self.stage.validation is not None and self.stage.validation.keep == "best"
        weights = self.best if keeps_best and self.best is not None else self.result()
        self._inner(self._module).load_state_dict(weights)

    def save(self, path: Path) -> None:
        """Write the resumable state in one step: a reader finds the old state or the new one, whole."""
        if self._fabric.is_global_zero:
            with replacing(path) as stream:
                torch.save(self._state(), stream)

    def resume(self, path: Path) -> bool:
        """Continue from a saved state; says whether there was one.

        A damaged file counts as none: training starts again and reaches the same weights.
        """
        state = processes.same_everywhere(self._fabric, lambda: _read_state(path))
        if state is None:
            return False
        self._inner(self._module).load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        judgements = [Judgement(*judgement) for judgement in state["judgements"]]
        self.history = History(list(state["losses"]), list(state["rates"]), list(state["norms"]), judgements)
        self.best = state["best"]
        return True

    def _state(self) -> dict[str, Any]:
        return {
            "format": STATE_FORMAT,
            "model": self._inner(self._module).state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "losses": self.history.losses,
            "rates": self.history.rates,
            "norms": self.history.norms,
            "judgements": [(j.step, j.loss, j.dsc) for j in self.history.judgements],
            "best": self.best,
        }

    @staticmethod
    def _inner(module: nn.Module) -> nn.Module:
        """The model inside a task's module."""
        return cast(nn.Module, module.model)

    def _train_mode(self) -> None:
        self._module.train()
        optimise.freeze(self._inner(self._module), self.stage.freeze)
        optimise.normalise(self._module, self.stage.batch_norm)

    def _move(self, array: np.ndarray[Any, Any]) -> Tensor:
        return as_tensor(array, self.device, self._layout)

    def _counts_prompts(self) -> bool:
        return self.stage.stage != "distil"

    def _read(self, terms: Terms) -> dict[str, float]:
        """Loss and named terms as numbers, in one transfer."""
        values = torch.stack([terms.total.detach(), *(t.detach() for t in terms.parts.values())]).tolist()
        return dict(zip(("loss", *terms.parts), values, strict=True))

    def _fabric_sum(self, value: float) -> float:
        """Sum of a number over the processes."""
        if self._fabric.world_size == 1:
            return value
        summed = self._fabric.all_reduce(torch.tensor(value, dtype=torch.float64), reduce_op="sum")
        return float(cast(Tensor, summed))


def _read_state(path: Path) -> dict[str, Any] | None:
    if not zipfile.is_zipfile(path):
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, UnpicklingError):
        return None
    return state if state.get("format") == STATE_FORMAT else None


def _mix(seed: int, step: int) -> int:
    """One 63-bit seed of two numbers."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def reproducible(*, on: bool) -> Iterator[None]:
    """Deterministic kernels on the CPU: the gradient of a table lookup (relative position biases) otherwise adds up
    in whatever order the threads come."""
    if not on:
        yield
        return
    options: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), options.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    options.fill_uninitialized_memory = False  # a debugging aid that costs a pass over memory
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        options.fill_uninitialized_memory = before[1]
