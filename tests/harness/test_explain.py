"""`bench list variants` and `bench show NAME`: what a variant is, without building it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import variants
from harness.cli import main
from harness.commands.explain import PREPROCESS, PROMPT_RULES, variant_rows
from harness.commands.listing import _switches
from harness.config import Deployment, canonical
from harness.protocols import LOOPS
from harness.results import open_results
from variants.registry import RULES, built_in

ROOT = Path(__file__).resolve().parents[2]
PARAMETERS = {
    "dummy": 0,
    "litemedsam": 9_791_300,
    "swiftmedsam_v1": 6_996_636,
    "swiftmedsam_v2": 5_942_388,
    "swin_litemedsam": 36_767_846,
    "rep_medsam": 10_570_092,
    "efficientvit_sam_l0": 34_792_784,
    "medsam_vit_b": 93_735_472,
}


@pytest.fixture
def bench(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("MEDSAM_BENCH_RESULTS", str(tmp_path))

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        assert not ended.value.code
        return str(capsys.readouterr().out)

    return run


def test_the_listing_counts_the_papers_models_to_the_unit(bench):
    rows = {row["name"]: row for row in json.loads(bench("list", "variants", "--json"))}
    assert {name: rows[name]["parameters"] for name in PARAMETERS} == PARAMETERS
    assert rows["medsam_vit_b"]["input_size"] == 1024
    assert rows["swin_litemedsam"]["prompts"] == ["box", "points", "scribble"]
    assert rows["efficientvit_sam_l0"]["published_file"]["wrap"] == "model"
    assert all(row["source"] and row["loop"] in LOOPS for row in rows.values())


def test_every_family_has_a_tiny_size_whose_parameters_are_known():
    tiny = {spec.family: spec.params for spec in built_in() if spec.name.endswith("_tiny")}
    assert tiny.keys() == {"litemedsam", "swin_litemedsam", "rep_medsam", "efficientvit_sam", "medsam"}
    assert all(params and params < 1_000_000 for params in tiny.values())


@pytest.mark.parametrize("name", variants.names())
def test_a_variant_is_explained_on_one_screen(bench, name):
    page = bench("show", name).splitlines()
    assert len(page) <= 36
    assert max(map(len, page)) <= 80
    assert page[0].startswith(f"{name}: ")


def test_the_page_says_what_the_papers_print_and_what_that_counts(bench):
    page = " ".join(bench("show", "litemedsam").split())
    for part in (
        "9,791,300",
        "SwiftMedSAM paper, Table 1",
        "longest side to 256",
        "box",
        "depths 2-2-6-2",
        "litemedsam-2024-05-23",
        "39.98 G FLOPs: fvcore; whole model; train; batch 1; one box",
        "bench import litemedsam lite_medsam.pth",
    ):
        assert part in page


def test_the_kind_may_stand_before_the_name(bench):
    assert bench("show", "variant", "litemedsam") == bench("show", "litemedsam")
    assert json.loads(bench("show", "litemedsam", "--json"))["parameters"] == 9_791_300
    assert bench("show", "quick") == bench("show", "recipe", "quick")


def test_a_suite_may_be_named_alone_with_overrides(bench):
    shown = json.loads(bench("show", "quickstart", "title=Other", "--json"))
    assert shown["title"] == "Other"


def test_every_rule_that_a_suite_may_set_is_explained():
    assert PREPROCESS.keys() == set(RULES["preprocess"])
    assert PROMPT_RULES.keys() == set(RULES["prompt_rule"])


def test_prompts_that_are_made_from_the_box_are_explained_with_their_rule(tmp_path):
    rows = dict(variant_rows(variants.resolve("swin_litemedsam", {"prompt_rule": "code"}), open_results(tmp_path)))
    assert rows["prompts"] == f"box + points + scribble; code: {PROMPT_RULES['code']}"
    assert dict(variant_rows(variants.spec("litemedsam"), open_results(tmp_path)))["prompts"] == "box"


def test_protocols_are_listed_with_the_loops_and_deployments_with_all_fields(bench):
    rows = json.loads(bench("list", "protocols", "--json"))
    assert {row["name"] for row in rows if row["kind"] == "loop"} == set(LOOPS)
    assert {row["name"] for row in rows if row["kind"] == "protocol"} == {"strict", "cvpr24"}
    deployments = {row["name"]: row for row in json.loads(bench("list", "deployments", "--json"))}
    assert deployments["torch-fp32-fused"]["fuse"] is True
    assert deployments["torch-fp32"]["fuse"] is False


def test_no_two_shipped_deployments_look_alike(bench):
    deployments = json.loads(bench("list", "deployments", "--json"))
    (shown,) = _switches(deployments).values()
    looks = [tuple(value for key, value in row.items() if key != "name") for row in shown]
    assert len(set(looks)) == len(looks) == len(deployments)
    by_name = {row["name"]: row["with"] for row in shown}
    assert by_name["onnxruntime-fp32-fast"] == "fold decoder"
    assert by_name["torch-fp32-reference"] == "one box at a time, system malloc"


def test_a_delay_is_listed():
    plain = {"name": "slow", **canonical(Deployment(delay=0.05, allocator="keep-pages"))}
    assert _switches([plain])["Deployments"][0]["with"] == "encodings delayed by 5%"


@pytest.mark.parametrize("what", ["variants", "protocols", "deployments"])
def test_tables_fit_a_terminal(bench, what):
    lines = bench("list", what).splitlines()
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    "arguments", [("list", "variants", "--json"), ("show", "litemedsam"), ("list", "checkpoints"), ("export", "-h")]
)
def test_listing_and_explaining_import_no_torch_and_take_half_a_second_of_processor_time(arguments, tmp_path):
    code = (
        "import sys; from harness.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy', 'pandas', 'cv2'} & set(sys.modules)"
    )

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-c", code, *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env={"MEDSAM_BENCH_RESULTS": str(tmp_path)})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(5)) < 0.55
