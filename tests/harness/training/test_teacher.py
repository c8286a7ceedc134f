"""A teacher's targets: the same computed and stored, whatever the batch, and computed once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

import variants
from harness.training.embeddings import EmbeddingStore
from harness.training.losses import imitation_loss
from harness.training.teacher import Teaching, embedding_shape, execution, store_name, weights_digest
from tests.harness.training.toys import SIZE, ToyModel
from variants import PromptableModel

CPU = torch.device("cpu")
SHAPE = (8, SIZE, SIZE)


class Views:
    """Images of a seed each; remembers which were prepared."""

    def __init__(self, side: int = SIZE) -> None:
        self.side = side
        self.prepared: list[str] = []

    def image(self, key: str) -> np.ndarray:
        return np.random.default_rng(list(key.encode())).random((3, self.side, self.side), np.float32)

    def ask(self, teaching: Teaching, keys: Sequence[str]) -> torch.Tensor:
        def images(places: list[int]) -> np.ndarray:
            self.prepared += [keys[p] for p in places]
            return np.stack([self.image(keys[p]) for p in places])

        return teaching.targets(keys, images)


@pytest.fixture(scope="module")
def teacher() -> PromptableModel:
    return variants.create("medsam_vit_tiny", seed=5)


def toy(seed: int = 0) -> PromptableModel:
    return cast(PromptableModel, ToyModel(seed))


def test_targets_are_bit_for_bit_the_same_live_stored_and_read_back(teacher: PromptableModel, tmp_path: Path) -> None:
    def store() -> EmbeddingStore:
        return EmbeddingStore(tmp_path, (64, 64, 64))

    keys, views = ["a", "b", "c"], Views(256)
    live = views.ask(Teaching(teacher, CPU), keys)
    storing = views.ask(Teaching(teacher, CPU, store()), keys)
    read = Teaching(teacher, CPU, store())
    assert torch.equal(live, storing)
    assert torch.equal(live, views.ask(read, keys))
    assert read.encoded == 0
    assert torch.equal(live[[2]], views.ask(Teaching(teacher, CPU), ["c"]))  # alone, or in a batch
    assert (live.shape, live.dtype) == ((3, 64, 64, 64), torch.float32)


def test_the_targets_are_what_the_teacher_says_in_single_precision(teacher: PromptableModel) -> None:
    views = Views(256)
    with torch.autocast("cpu", torch.bfloat16):  # of the student
        found = views.ask(Teaching(teacher, CPU), ["a"])
    with torch.no_grad():
        assert torch.equal(found, teacher.encode(torch.from_numpy(views.image("a")[None])).image)


def test_an_epoch_encodes_every_view_once_and_the_next_none(tmp_path: Path) -> None:
    views, teaching = Views(), Teaching(toy(), CPU, EmbeddingStore(tmp_path, SHAPE))
    epoch = [["a", "b"], ["c", "d"], ["e"]]
    first = [views.ask(teaching, batch) for batch in epoch]
    assert teaching.encoded == 5
    second = [views.ask(teaching, batch) for batch in epoch]
    assert teaching.encoded == 5
    assert views.prepared == list("abcde")  # what is stored is not prepared either
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    views.ask(teaching, ["f", "a"])
    assert teaching.encoded == 6


def test_live_every_step_encodes_a_view_of_a_batch_once() -> None:
    views, teaching = Views(), Teaching(toy(), CPU)
    found = views.ask(teaching, ["a", "b", "a"])
    assert teaching.encoded == 2
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])
    views.ask(teaching, ["a"])
    assert teaching.encoded == 3


def test_the_teacher_neither_learns_nor_drifts() -> None:
    model = ToyModel().train()  # with dropout and running statistics
    frozen = cast(PromptableModel, model)
    before = weights_digest(frozen)
    views, teaching = Views(), Teaching(frozen, CPU)
    assert torch.equal(views.ask(teaching, ["a"]), views.ask(teaching, ["a"]))
    assert weights_digest(frozen) == before
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("stored", [False, True])
def test_a_student_learns_from_the_targets(stored: bool, tmp_path: Path) -> None:
    teaching = Teaching(toy(1), CPU, EmbeddingStore(tmp_path, SHAPE) if stored else None)
    views, student = Views(), ToyModel(2)
    target = views.ask(teaching, ["a", "b"])
    assert not target.is_inference()
    images = torch.from_numpy(np.stack([views.image("a"), views.image("b")]))
    torch.autograd.backward(imitation_loss(student.encode(images).image, target, "mse"))
    assert next(student.parameters()).grad is not None


def test_the_shape_of_an_embedding_is_asked_of_the_teacher() -> None:
    assert embedding_shape(toy(), CPU) == SHAPE


def test_whatever_changes_the_embeddings_changes_the_name_of_the_store() -> None:
    name = store_name("weights", "data", "stretch", 1024)
    assert name == store_name("weights", "data", "stretch", 1024)
    others = {
        store_name("weights'", "data", "stretch", 1024),
        store_name("weights", "data'", "stretch", 1024),
        store_name("weights", "data", "longest-side", 1024),
        store_name("weights", "data", "stretch", 512),
        store_name("weights", "data", "stretch", 1024, "medsam_vit_b"),
        store_name("weights", "data", "stretch", 1024, "medsam_vit_b", execution(CPU)),
    }
    assert len(others - {name}) == 6
    assert Path(name).name == name


def test_the_digest_of_weights_sees_every_parameter_and_buffer() -> None:
    digest = weights_digest(toy(1))
    assert digest == weights_digest(toy(1))
    for name, value in ToyModel(1).state_dict().items():
        model = ToyModel(1)
        changed = value.clone()
        changed.view(-1)[-1] += 1
        model.load_state_dict({**model.state_dict(), name: changed})
        assert weights_digest(cast(PromptableModel, model)) != digest, name


def test_execution_tells_numbers_of_threads_apart() -> None:
    threads, alone = torch.get_num_threads(), execution(CPU)
    try:
        torch.set_num_threads(threads + 1)
        assert execution(CPU) != alone
    finally:
        torch.set_num_threads(threads)
