"""Named checkpoints: imported once and strictly, named by suites, exported as their authors wrote them."""

from __future__ import annotations

import json
import pickle
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import variants
from harness import checkpoints
from harness.checkpoints import find, find_for
from harness.cli import main
from harness.config import VariantRef
from harness.errors import BenchError
from harness.plan import make_plan
from harness.results import Results, open_results
from harness.suitefile import InvalidSuite, read_suite
from tests.harness.small import SMALL, write_suite

TINY = "litemedsam_tiny"


@pytest.fixture(scope="module")
def state():
    return variants.to_published(variants.create(TINY, seed=7))


@pytest.fixture
def file(tmp_path, state) -> Path:
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, tmp_path / "w.pth")
    return tmp_path / "w.pth"


@pytest.fixture
def results(tmp_path) -> Results:
    return open_results(tmp_path / "results")


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The message of a refused command: one line on stderr, no traceback, exit code 2."""
        assert self.code == 2
        assert "Traceback" not in self.err
        last = self.err.splitlines()[-1]
        assert last.startswith("bench: ")
        return last


@pytest.fixture
def bench(results, capsys):
    def run(line: str) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*shlex.split(line), "--results", str(results.root)])
        captured = capsys.readouterr()
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    return run


def stored(results: Results, name: str = TINY) -> Path:
    return results.root / "checkpoints" / f"{name}.safetensors"


def test_a_file_under_a_variants_name_needs_no_further_word(bench, file, results, state):
    done = bench(f"import {TINY} {file}")
    assert done.code == 0
    assert "308,562 parameters" in done.out
    kept = load_file(stored(results))
    assert kept.keys() == state.keys()
    assert all(torch.equal(kept[key], value) for key, value in state.items())
    described = json.loads(stored(results).with_suffix(".json").read_text())
    assert described["variant"] == TINY
    assert described["source"] == "w.pth"
    assert described["source_sha256"] == checkpoints.digest(file)
    assert described["sha256"] == checkpoints.digest(stored(results))
    assert described["parameters"] == 308_562


def test_any_other_name_needs_the_variant_and_may_set_hyperparameters(bench, results, tmp_path):
    shallow = variants.to_published(variants.create(TINY, decoder_depth=1))
    torch.save(shallow, tmp_path / "shallow.pth")
    assert "--variant must say which" in bench(f"import mine {tmp_path / 'shallow.pth'}").sentence
    assert "does not fit" in bench(f"import mine {tmp_path / 'shallow.pth'} --variant {TINY}").sentence
    done = bench(f"import mine {tmp_path / 'shallow.pth'} --variant {TINY} --set decoder_depth=1")
    assert "variants: {mine: {name: litemedsam_tiny, set: {decoder_depth: 1}, weights: mine}}" in done.out
    assert checkpoints.read(results, "mine").set == {"decoder_depth": 1}


def test_the_same_content_again_is_nothing_to_do_whatever_wraps_it(bench, file, results, state, tmp_path):
    assert "Imported" in bench(f"import {TINY} {file}").out
    before = stored(results).stat().st_mtime_ns
    assert "Nothing to do" in bench(f"import {TINY} {file}").out
    torch.save({"state_dict": state}, tmp_path / "other.pth")
    assert "Nothing to do" in bench(f"import {TINY} {tmp_path / 'other.pth'}").out
    assert stored(results).stat().st_mtime_ns == before


def test_other_content_under_a_taken_name_needs_to_be_asked_for(bench, file, results, tmp_path):
    bench(f"import {TINY} {file}")
    torch.save(variants.to_published(variants.create(TINY, seed=8)), tmp_path / "other.pth")
    refused = bench(f"import {TINY} {tmp_path / 'other.pth'}").sentence
    assert "is taken" in refused
    assert "--replace" in refused
    assert checkpoints.read(results, TINY).source == "w.pth"
    assert "Imported" in bench(f"import {TINY} {tmp_path / 'other.pth'} --replace").out
    assert checkpoints.read(results, TINY).source == "other.pth"


class Touch:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_importing_a_malicious_file_executes_nothing_and_stores_nothing(bench, results, tmp_path, suffix):
    victim = tmp_path / "touched"
    (tmp_path / f"bad{suffix}").write_bytes(pickle.dumps({"model": Touch(victim)}, protocol=2))
    assert f"bad{suffix}" in bench(f"import {TINY} {tmp_path / f'bad{suffix}'}").sentence
    assert not victim.exists()
    assert checkpoints.names(results) == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("import litemedsam_tiny nowhere.pth", "nowhere.pth does not exist"),
        ("import litemedsam_tiny {half}", "is damaged or not a torch file"),
        ("import litemedsam_tiny {empty}", "is damaged or not a torch file"),
        ("import mine {file} --variant litemedsam_tinny", "did you mean 'litemedsam_tiny'"),
        ("import mine {file} --variant rep_medsam_tiny", "does not fit variant 'rep_medsam_tiny'"),
        ("import ../mine {file} --variant litemedsam_tiny", "may hold only letters"),
        ("import dummy {file}", "has no weights to import"),
        ("import mine {file} --variant litemedsam_tiny --set depth", "is written key=value"),
        ("import mine {file} --variant litemedsam_tiny --set deco_depth=1", "has no hyperparameter 'deco_depth'"),
        ("import mine {file} --variant litemedsam_tiny --set decoder_depth=two", "must be an integer"),
        ("export nothing --format published", "neither an imported checkpoint nor a variant"),
        ("export dummy --format safetensors", "has no weights to export"),
        ("export litemedsam_tiny --format published --out {file}", "exists"),
        ("export litemedsam_tiny --format published --out nowhere/x.pth", "does not exist"),
        ("export litemedsam_tiny --format onnx --out {file}", "writes a folder"),
        ("show checkpoint nothing", "there is no checkpoint 'nothing'"),
        ("show litemedsam_tinny", "Did you mean 'litemedsam_tiny'?"),
        ("show litemedsam_tiny steps=3", "is an override of suites"),
    ],
)
def test_a_mistake_is_one_sentence(bench, file, tmp_path, line, says):
    (tmp_path / "half.pth").write_bytes(file.read_bytes()[:5000])
    (tmp_path / "empty.pth").write_bytes(b"")
    given = {"file": file, "half": tmp_path / "half.pth", "empty": tmp_path / "empty.pth"}
    assert says in bench(line.format(**given)).sentence


def test_a_format_that_does_not_exist_is_refused_with_those_that_do(bench):
    done = bench("export litemedsam_tiny --format tflite")
    assert done.code == 2
    assert "onnx" in done.err


def test_a_damaged_store_is_said_and_can_be_mended(bench, file, results):
    bench(f"import {TINY} {file}")
    stored(results).write_bytes(stored(results).read_bytes()[:-10])
    with pytest.raises(BenchError, match="is damaged; import the checkpoint again"):
        find(results, TINY)
    assert "--replace" in bench(f"import {TINY} {file}").sentence
    assert "Imported" in bench(f"import {TINY} {file} --replace").out
    assert find(results, TINY) == stored(results)


def test_checkpoints_are_listed_and_shown(bench, file):
    assert bench("list checkpoints").out.strip() == "No checkpoints yet."
    bench(f"import {TINY} {file}")
    bench(f"import mine {file} --variant {TINY}")
    assert [row["name"] for row in json.loads(bench("list checkpoints --json").out)] == [TINY, "mine"]
    assert "w.pth" in bench("list checkpoints").out
    assert "source: w.pth" in bench("show mine").out
    both = bench(f"show {TINY}")
    assert "hyperparameters" in both.out
    assert f"`bench show checkpoint {TINY}`" in both.err


SUITE = SMALL.replace("  litemedsam_tiny:\n", "  ours: {name: litemedsam_tiny, weights: mine}\n")


def test_a_suite_names_a_checkpoint_and_its_content_is_part_of_the_jobs(bench, file, results, tmp_path):
    bench(f"import mine {file} --variant {TINY}")
    path = write_suite(tmp_path, SUITE)
    jobs = [job for job in make_plan(read_suite(path, (), results)[0], results).jobs if job.row == "ours"]
    assert {job.spec.kind for job in jobs} == {"complexity", "accuracy", "runtime"}
    given = [job.spec.weights for job in jobs if job.spec.kind != "complexity"]
    assert {w.file for w in given} == {str(stored(results, "mine"))}
    assert {w.sha256 for w in given} == {checkpoints.digest(stored(results, "mine"))}


def test_a_suite_that_names_no_checkpoint_is_told_file_line_and_remedy(bench, file, results, tmp_path):
    bench(f"import mines {file} --variant {TINY}")
    with pytest.raises(InvalidSuite) as caught:
        read_suite(write_suite(tmp_path, SUITE), (), results)
    message = str(caught.value)
    assert "suite.yaml:4" in message
    assert "variants.ours.weights" in message
    assert "Did you mean 'mines'?" in message
    assert "`bench import mine FILE`" in message


def test_a_path_that_does_not_exist_is_no_name(results):
    with pytest.raises(BenchError, match="Give the path of a checkpoint file"):
        find(results, "folder/mine.pth")


def test_an_existing_file_is_taken_before_a_name(bench, file, results, tmp_path, monkeypatch):
    bench(f"import mine {file} --variant {TINY}")
    monkeypatch.chdir(tmp_path)
    assert find(results, "mine") == stored(results, "mine")
    (tmp_path / "mine").write_bytes(file.read_bytes())
    assert find(results, "mine") == Path("mine")


def test_a_row_takes_no_checkpoint_of_another_architecture(bench, file, results):
    bench(f"import mine {file} --variant {TINY}")
    assert find_for(results, "mine", VariantRef(name=TINY)) == stored(results, "mine")
    with pytest.raises(BenchError, match="was imported for litemedsam_tiny, which is not rep_medsam"):
        find_for(results, "mine", VariantRef(name="rep_medsam"))
    with pytest.raises(BenchError, match="is not litemedsam_tiny with decoder_depth=1"):
        find_for(results, "mine", VariantRef(name=TINY, set={"decoder_depth": 1}))


def test_rows_that_differ_in_preprocessing_or_prompts_share_a_checkpoint(bench, file, results):
    bench(f"import mine {file} --variant {TINY}")
    ref = VariantRef(name=TINY, set={"prompts": "box+points", "preprocess": "gray-code"})
    assert find_for(results, "mine", ref) == stored(results, "mine")


def test_finding_a_checkpoint_leaves_torch_alone(bench, file, results, tmp_path):
    import subprocess
    import sys

    bench(f"import mine {file} --variant {TINY}")
    code = (
        "import sys; from harness.checkpoints import find; from harness.results import open_results\n"
        f"find(open_results({str(results.root)!r}), 'mine'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("format", ["published", "safetensors"])
def test_an_exported_checkpoint_loads_back_strictly_with_the_same_bits(bench, file, state, tmp_path, format):
    bench(f"import mine {file} --variant {TINY}")
    done = bench(f"export mine --format {format} --out {tmp_path / 'out'}")
    assert "read back and equal" in done.out
    assert "initial weights" not in done.err
    back = variants.to_published(variants.load_published(TINY, tmp_path / "out"))
    assert all(torch.equal(back[key], value) for key, value in state.items())


def test_the_authors_wrapping_is_written(bench, tmp_path):
    bench(f"export efficientvit_sam_tiny --format published --out {tmp_path / 'gray.pth'}")
    wrapped = torch.load(tmp_path / "gray.pth", weights_only=True)
    assert list(wrapped) == ["model"]
    bench(f"export litemedsam_tiny --format published --out {tmp_path / 'lite.pth'}")
    assert "image_encoder.patch_embed.seq.0.c.weight" in torch.load(tmp_path / "lite.pth", weights_only=True)


def test_a_variant_is_exported_as_initialised_and_that_is_said(bench, tmp_path):
    done = bench(f"export {TINY} --format safetensors --out {tmp_path / 'x.safetensors'} --seed 3")
    assert "initial weights drawn from seed 3, not a trained model" in done.err
    drawn = variants.to_published(variants.create(TINY, seed=3))
    assert all(torch.equal(value, drawn[key]) for key, value in load_file(tmp_path / "x.safetensors").items())


def test_an_imported_checkpoint_goes_before_the_variant_of_its_name(bench, file, state, tmp_path):
    bench(f"import {TINY} {file}")
    bench(f"export {TINY} --format safetensors --out {tmp_path / 'checkpoint.safetensors'}")
    bench(f"export {TINY} --variant --format safetensors --out {tmp_path / 'variant.safetensors'}")
    key = "mask_decoder.iou_token.weight"
    assert torch.equal(load_file(tmp_path / "checkpoint.safetensors")[key], state[key])
    assert not torch.equal(load_file(tmp_path / "variant.safetensors")[key], state[key])


def test_nothing_is_overwritten_unasked(bench, tmp_path):
    target = tmp_path / "x.safetensors"
    target.write_bytes(b"precious")
    assert "exists" in bench(f"export {TINY} --format safetensors --out {target}").sentence
    assert target.read_bytes() == b"precious"
    assert bench(f"export {TINY} --format safetensors --out {target} --replace").code == 0
    assert load_file(target)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_a_graph_is_exported_with_what_it_was_checked_at(bench, file, tmp_path, format):
    bench(f"import mine {file} --variant {TINY}")
    done = bench(f"export mine --format {format} --out {tmp_path / 'graph'}")
    assert done.code == 0, done.err
    assert "decoder: compared with torch at N = 1, 3, 17 prompts" in done.out
    names = {path.name.partition(".")[0] for path in (tmp_path / "graph").iterdir()}
    assert names == {"encoder", "decoder"}
    if format == "onnx":
        import onnx

        graphs = [onnx.load(path).graph for path in (tmp_path / "graph").iterdir()]
        assert {node.domain for graph in graphs for node in graph.node} <= {"", "ai.onnx"}  # standard operators alone


@pytest.mark.slow
def test_a_suite_runs_with_an_imported_checkpoint(bench, file, tmp_path):
    bench(f"import mine {file} --variant {TINY}")
    text = SUITE.replace("  dummy:\n", "").replace("  complexity:\n", "").partition("  runtime:")[0]
    done = bench(f"run {write_suite(tmp_path, text)} --json")
    assert done.code == 0, done.err
    assert "ours" in done.out
