"""Checkpoints: every published wrapping is read, nothing is executed, nothing is loaded by halves."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import variants
from tests.variants import published
from variants.checkpoints import read_state_dict
from variants.published import FILES, published_file

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


def prefixed(prefix: str):
    return lambda state: {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 3, "loss": 0.25, "best_loss": 0.2, "optimizer": {"state": {}}},
        lambda state: {"state_dict": state},
        lambda state: {"model_state_dict": state, "optimizer_state_dict": {}},
        lambda state: {"net": state, "acc": 0.9, "epoch": 4},
        lambda state: {"model": {"state_dict": state}, "args": {"lr": 5e-5, "betas": (0.9, 0.999)}},
        lambda state: {"model": state, "ema": {"decay": 0.999}},
        lambda state: {"model": state, "best_loss": np.float64(0.25), "history": np.ones(3)},
        prefixed("module."),
        prefixed("_orig_mod."),
        prefixed("model."),
        prefixed("sam."),
        prefixed("module._orig_mod."),
        lambda state: {"model": prefixed("module.")(state)},
        lambda state: {"state_dict": {"model": prefixed("_orig_mod.module.")(state)}},
        lambda state: {key: torch.nn.Parameter(value, value.is_floating_point()) for key, value in state.items()},
    ],
    ids=[
        "plain",
        "model",
        "state_dict",
        "model_state_dict",
        "net",
        "state_dict in model",
        "model beside ema",
        "numpy numbers beside the weights",
        "module.",
        "_orig_mod.",
        "model.",
        "sam.",
        "two prefixes",
        "model and module.",
        "two wrappers and two prefixes",
        "parameters",
    ],
)
def test_every_published_wrapping_is_read(tmp_path, state, wrap):
    for zipped in (True, False):
        path = tmp_path / f"weights-{zipped}.pth"
        torch.save(wrap(state), path, _use_new_zipfile_serialization=zipped)
        assert same(variants.to_published(variants.load_published(TINY, path)), state)


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in other)


def test_a_prefix_that_the_models_own_keys_have_stays(tmp_path):
    state = {"model.weight": torch.ones(2), "model.bias": torch.zeros(2)}
    torch.save(state, tmp_path / "weights.pth")
    assert read_state_dict(tmp_path / "weights.pth", expected=list(state)).keys() == state.keys()
    assert read_state_dict(tmp_path / "weights.pth").keys() == {"weight", "bias"}


def test_a_prefix_that_only_some_keys_have_stays(tmp_path, state):
    key = next(iter(state))
    torch.save({f"module.{key}": state[key]} | {k: v for k, v in state.items() if k != key}, tmp_path / "weights.pth")
    assert f"1 unexpected key, first 'module.{key}'" in refusal(tmp_path / "weights.pth")


@pytest.mark.parametrize("variant", published.FILES)
def test_each_authors_wrapping_is_known_as_their_files_say(variant):
    said = json.loads((published.GOLDENS / f"{published.FILES[variant]}.manifest.json").read_text())["published"]
    known = published_file(variants.spec(variant))
    assert known is FILES[variant]
    assert (known.wrap == "model") == said["wrap"].startswith('{"model"')
    assert known.file is None if said["file"].startswith("none") else known.file in said["file"]


@pytest.mark.slow
@pytest.mark.parametrize("variant", published.FILES)
def test_the_file_of_every_paper_loads_strictly_in_its_authors_wrapping(tmp_path, variant):
    state, wrap = published.state_dict(variant, "file"), FILES[variant].wrap
    torch.save({wrap: state, "epoch": 9, "best_loss": np.float64(0.1)} if wrap else state, tmp_path / "weights.pth")
    assert same(variants.to_published(variants.load_published(variant, tmp_path / "weights.pth")), state)


def test_another_size_of_a_family_has_the_familys_wrapping_and_no_file_of_its_own():
    assert published_file(variants.spec("efficientvit_sam_tiny")).wrap == "model"
    assert published_file(variants.spec("efficientvit_sam_tiny")).file is None
    assert published_file(variants.spec("dummy")) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_half_precision_becomes_float32_with_the_same_values(tmp_path, state, dtype, suffix):
    path = tmp_path / f"half.{suffix}"
    half = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    save_file(half, path) if suffix == "safetensors" else torch.save(half, path)
    loaded = variants.to_published(variants.load_published(TINY, path))
    assert all(loaded[key].dtype == state[key].dtype for key in state)
    assert all(torch.equal(loaded[key], half[key].to(loaded[key].dtype)) for key in state)


def test_sams_normalisation_beside_the_weights_is_left_aside(tmp_path, state):
    torch.save(state | {"pixel_mean": torch.zeros(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)}, tmp_path / "weights.pth")
    assert same(variants.to_published(variants.load_published(TINY, tmp_path / "weights.pth")), state)


def test_a_file_of_an_old_torch_lacks_the_counters_of_batch_normalisation(tmp_path, state):
    counters = [key for key in state if key.endswith(".num_batches_tracked")]
    assert counters
    torch.save({key: value for key, value in state.items() if key not in counters}, tmp_path / "weights.pth")
    assert same(variants.to_published(variants.load_published(TINY, tmp_path / "weights.pth")), state)


def test_safetensors_go_out_and_come_back(tmp_path, state):
    save_file(state, tmp_path / "weights.safetensors")
    loaded = variants.to_published(variants.create(TINY, tmp_path / "weights.safetensors"))
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_published_weights_of_a_channels_last_model_are_contiguous():
    model = variants.create(TINY).to(memory_format=torch.channels_last)
    assert all(value.is_contiguous() for value in variants.to_published(model).values())


def test_a_safetensors_file_is_known_by_its_content(tmp_path, state):
    save_file(state, tmp_path / "weights.pth")
    assert same(variants.to_published(variants.create(TINY, tmp_path / "weights.pth")), state)


def as_tar(path, victim):
    """The layout of torch before 0.2."""
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(Touch(victim))
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def as_zip(path, victim):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/data.pkl", pickle.dumps(Touch(victim), protocol=2))
        archive.writestr("weights/version", "3\n")


MALICIOUS = {
    "pickle of protocol 0": lambda path, victim: path.write_bytes(pickle.dumps(Touch(victim), protocol=0)),
    "pickle of protocol 2": lambda path, victim: path.write_bytes(pickle.dumps(Touch(victim), protocol=2)),
    "pickle of protocol 5": lambda path, victim: path.write_bytes(pickle.dumps(Touch(victim), protocol=5)),
    "torch": lambda path, victim: torch.save({"model": {"weight": torch.ones(1)}, "epoch": Touch(victim)}, path),
    "torch, legacy": lambda path, victim: torch.save(
        {"model": {"weight": Touch(victim)}}, path, _use_new_zipfile_serialization=False
    ),
    "tar": as_tar,
    "zip": as_zip,
}


@pytest.mark.parametrize("make", MALICIOUS.values(), ids=MALICIOUS.keys())
def test_a_malicious_file_executes_nothing(tmp_path, make):
    victim = tmp_path / "touched"
    make(tmp_path / "weights.pth", victim)
    assert "could run code" in refusal(tmp_path / "weights.pth")
    make(tmp_path / "weights.safetensors", victim)
    assert "is damaged or not a safetensors file" in refusal(tmp_path / "weights.safetensors")
    assert not victim.exists()


def test_a_whole_pickled_model_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "weights.pth")
    assert "save its state_dict alone" in refusal(tmp_path / "weights.pth")


@pytest.mark.parametrize("content", [b"hello world", b"<!DOCTYPE html>\n<html>", b"\x93NUMPY", bytes(range(1, 200))])
def test_a_file_of_another_kind_is_no_torch_file_and_nobody_is_told_to_load_it_unsafely(tmp_path, content):
    (tmp_path / "weights.pth").write_bytes(content)
    message = refusal(tmp_path / "weights.pth")
    assert "is damaged or not a torch file" in message
    assert "weights_only" not in message


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("kept", [0, 40, 5000, 0.5, 0.99])
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


def test_a_fused_checkpoint_is_said_to_be_fused_and_what_to_do(tmp_path):
    shapes = json.loads((published.GOLDENS / "rep_medsam_fused.manifest.json").read_text())["state_dict"]
    torch.save({key: torch.zeros(entry["shape"]) for key, entry in shapes.items()}, tmp_path / "fused.pth")
    with pytest.raises(variants.VariantError) as caught:
        variants.load_published("rep_medsam", tmp_path / "fused.pth")
    assert "it is fused" in str(caught.value)
    assert "fusing is a deployment" in str(caught.value)


def test_another_model_without_batch_normalisation_is_not_called_fused(tmp_path):
    shapes = json.loads((published.GOLDENS / "medsam_vit_b.manifest.json").read_text())["state_dict"]
    torch.save({key: torch.zeros(1) for key in shapes}, tmp_path / "weights.pth")
    message = refusal(tmp_path / "weights.pth")
    assert "fused" not in message
    assert "first 'image_encoder.pos_embed'" in message


def test_a_file_with_the_image_encoder_alone_is_said_to_be_that(tmp_path, state):
    inside = {key.removeprefix("image_encoder."): v for key, v in state.items() if key.startswith("image_encoder.")}
    torch.save({"model": inside, "epoch": 1}, tmp_path / "encoder.pth")
    assert "it holds the image encoder alone" in refusal(tmp_path / "encoder.pth")


def test_the_weights_of_one_variant_do_not_load_into_another(tmp_path, state):
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(variants.VariantError, match="does not fit variant 'litemedsam_tiny'"):
        variants.create(TINY, tmp_path / "weights.pth", decoder_depth=1)


def test_a_variant_without_weights_takes_no_checkpoint():
    with pytest.raises(variants.VariantError, match="'dummy' has no weights to load"):
        variants.create("dummy", "weights.pth")
    with pytest.raises(variants.VariantError, match="has no weights to write"):
        variants.to_published(variants.create("dummy"))
