"""Checkpoints: every published wrapping is read, nothing is executed, nothing is loaded by halves."""

from __future__ import annotations

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

import variants

TINY = "litemedsam_tiny"


@pytest.fixture(scope="module")
def state():
    return variants.to_published(variants.create(TINY, seed=7))


class Touch:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def refusal(path) -> str:
    with pytest.raises(variants.VariantError) as caught:
        variants.create(TINY, path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 3, "loss": 0.25, "best_loss": 0.2, "optimizer": {"state": {}}},
        lambda state: {"state_dict": state},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
    ],
    ids=["plain", "model", "state_dict", "module", "model and module"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_every_published_wrapping_is_read(tmp_path, state, wrap, zipped):
    path = tmp_path / "weights.pth"
    torch.save(wrap(state), path, _use_new_zipfile_serialization=zipped)
    loaded = variants.to_published(variants.load_published(TINY, path))
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_safetensors_go_out_and_come_back(tmp_path, state):
    save_file(state, tmp_path / "weights.safetensors")
    loaded = variants.to_published(variants.create(TINY, tmp_path / "weights.safetensors"))
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_published_weights_of_a_channels_last_model_are_contiguous():
    model = variants.create(TINY).to(memory_format=torch.channels_last)
    assert all(value.is_contiguous() for value in variants.to_published(model).values())


@pytest.mark.parametrize("plain", [True, False], ids=["pickle", "torch"])
def test_a_malicious_file_executes_nothing(tmp_path, state, plain):
    path, victim = tmp_path / "weights.pth", tmp_path / "touched"
    content = {**state, "image_encoder.neck.0.weight": Touch(victim)}
    if plain:
        path.write_bytes(pickle.dumps(Touch(victim)))
    else:
        torch.save(content, path)
    assert "could run code" in refusal(path)
    assert not victim.exists()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("kept", [0, 40, 0.5, 0.99])
def test_a_truncated_file_is_called_damaged(tmp_path, state, suffix, kept):
    path = tmp_path / f"weights.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    assert "is damaged or not a" in refusal(path)


def test_a_file_that_does_not_exist_is_named(tmp_path):
    assert "does not exist" in refusal(tmp_path / "nowhere.pth")
    assert "does not exist" in refusal(tmp_path)


@pytest.mark.parametrize("content", [[1, 2], {}, {"model": {}}, {"epoch": 3}, {"a": torch.zeros(1), "b": 2}])
def test_a_file_without_a_state_dict_is_said_to_hold_none(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    assert "holds no state dict" in refusal(tmp_path / "weights.pth")


def test_the_first_key_of_every_mismatch_is_named(tmp_path, state):
    wrong = dict(state)
    del wrong["mask_decoder.iou_token.weight"]
    del wrong["mask_decoder.mask_tokens.weight"]
    wrong["image_encoder.neck.4.weight"] = torch.zeros(1)
    wrong["image_encoder.neck.1.bias"] = torch.zeros(65)
    wrong["image_encoder.neck.1.weight"] = torch.zeros(64, dtype=torch.int64)
    torch.save(wrong, tmp_path / "weights.pth")
    message = refusal(tmp_path / "weights.pth")
    assert "does not fit variant 'litemedsam_tiny'" in message
    assert "2 missing keys, first 'mask_decoder.iou_token.weight'" in message
    assert "1 unexpected key, first 'image_encoder.neck.4.weight'" in message
    assert "1 of another shape, first 'image_encoder.neck.1.bias': (65,) instead of (64,)" in message
    assert "1 of another type, first 'image_encoder.neck.1.weight': torch.int64, not torch.float32" in message


def test_the_weights_of_one_variant_do_not_load_into_another(tmp_path, state):
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(variants.VariantError, match="does not fit variant 'litemedsam_tiny'"):
        variants.create(TINY, tmp_path / "weights.pth", decoder_depth=1)


def test_a_variant_without_weights_takes_no_checkpoint():
    with pytest.raises(variants.VariantError, match="'dummy' has no weights to load"):
        variants.create("dummy", "weights.pth")
    with pytest.raises(variants.VariantError, match="has no weights to write"):
        variants.to_published(variants.create("dummy"))
