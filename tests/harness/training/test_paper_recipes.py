"""The recipes that ship against the figures that the papers print, and how they are shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.commands.recipes import recipe_data, recipe_rows, shipped_recipe
from harness.recipe import Recipe
from harness.suitefile import shipped_recipes

# one line a stage, as printed: batch size, epochs, initial learning rate, schedule
PROTOCOLS = {
    # Swin-LiteMedSAM paper, Table 3: the first stage, the second stage
    "swin_litemedsam": [("distil", 64, 10, 2e-4, "plateau"), ("train", 16, 25, 2e-4, "plateau")],
    # SwiftMedSAM paper, Table 3
    "swiftmedsam": [("train", 32, 26, 0.005, "plateau")],
    # Rep-MedSAM paper, Tables 2, 3 and 4
    "rep_medsam": [
        ("distil", 16, 5, 5e-4, "plateau"),
        ("train", 16, 8, 3e-4, "plateau"),
        ("finetune", 16, 12, 2e-5, "plateau"),
    ],
    # Gray's Anatomy paper, Table 3
    "grays_anatomy": [("train", 32, 300, 5e-5, "plateau")],
    # defaults of the published code
    "swin_litemedsam_code": [("distil", 32, 10, 1e-4, "plateau"), ("train", 32, 20, 1e-4, "plateau")],
    "rep_medsam_code": [(stage, 16, 20, 1e-4, "plateau") for stage in ("distil", "train", "finetune")],
    "grays_anatomy_code": [("train", 32, 1000, 2e-5, "plateau")],
    "litemedsam": [("finetune", 4, 10, 5e-5, "plateau")],
    "litemedsam_distil": [("distil", 8, 1000, 5e-4, "constant")],
    "medsam": [("train", 2, 10, 1e-4, "constant")],  # the number of epochs is an assumption, and says so
}

# the terms of the objective, as weights of Dice, BCE and MSE(IoU), or the distance to the teacher's embedding
OBJECTIVES: dict[str, list[Any]] = {
    "swin_litemedsam": ["l1", (1, 1, 1)],
    "swiftmedsam": [(1, 1, 0)],
    "rep_medsam": ["mse", (1, 1, 1), (1, 1, 1)],
    "grays_anatomy": [(1, 1, 1)],
    "swin_litemedsam_code": ["l1", (1, 1, 1)],
    "rep_medsam_code": ["mse", (1, 1, 1), (1, 1, 1)],
    "grays_anatomy_code": [(1, 1, 1)],
    "litemedsam": [(1, 1, 1)],
    "litemedsam_distil": ["mse"],
    "medsam": [(1, 1, 0)],
}

# probability of each flip, whether colours are jittered; where the Rep-MedSAM paper states none, the schema's 0.5
AUGMENTATION = {
    "swin_litemedsam": [(0, False), (0.5, False)],
    "swiftmedsam": [(0, False)],
    "rep_medsam": [(0.5, False), (0.5, False), (0.5, True)],
    "grays_anatomy": [(0, False)],
    "swin_litemedsam_code": [(0, False), (0.5, False)],
    "rep_medsam_code": [(0.7, True)] * 3,
    "grays_anatomy_code": [(0.5, False)],
    "litemedsam": [(0.5, False)],
    "litemedsam_distil": [(0.5, False)],
    "medsam": [(0, False)],
}

# of AdamW: weight decay, and the plateau's factor; the papers state neither, so theirs are the schema's
OPTIMISERS = {
    "swin_litemedsam": [(0.01, 0.9), (0.01, 0.9)],
    "swiftmedsam": [(0.01, 0.9)],
    "rep_medsam": [(0.01, 0.9)] * 3,
    "grays_anatomy": [(0.01, 0.9)],
    "swin_litemedsam_code": [(0.01, 0.9), (0.001, 0.8)],
    "rep_medsam_code": [(0.01, 0.9)] * 3,
    "grays_anatomy_code": [(0.01, 0.9)],
    "litemedsam": [(0.01, 0.9)],
    "litemedsam_distil": [(0.001, 0.9)],
    "medsam": [(0.01, 0.9)],
}

# largest outward shift of a box's side in pixels, of the stages that have boxes
BOX_JITTER = dict.fromkeys(PROTOCOLS, 5) | {"medsam": 20}


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("MEDSAM_BENCH_RESULTS", str(tmp_path))

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        said = capsys.readouterr()
        assert not ended.value.code, said.err
        return str(said.out)

    return run


@pytest.fixture
def stages(bench):
    """Name of a recipe → its stages, as `bench show recipe NAME --json` prints them."""

    def shown(name: str) -> list[dict[str, Any]]:
        return list(json.loads(bench("show", "recipe", name, "--json"))["stages"])

    return shown


def test_every_recipe_of_a_paper_or_its_code_is_in_the_tables():
    assert PROTOCOLS.keys() == shipped_recipes().keys() - {"quick", "quick_tiny", "brief", "touch", "untrained"}
    assert PROTOCOLS.keys() == OBJECTIVES.keys() == AUGMENTATION.keys() == OPTIMISERS.keys()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_batch_size_epochs_learning_rate_and_schedule_are_the_published(stages, name: str):
    fields = ("stage", "batch", "epochs", "learning_rate", "schedule")
    assert [tuple(stage[field] for field in fields) for stage in stages(name)] == PROTOCOLS[name]
    assert all(stage["steps"] is None for stage in stages(name))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_objective_is_the_published(stages, name: str):
    def objective(stage: dict[str, Any]) -> Any:
        terms = tuple(stage["loss"][term] for term in ("dice", "bce", "iou"))
        return stage["imitation"] if stage["stage"] == "distil" else terms

    assert [objective(stage) for stage in stages(name)] == OBJECTIVES[name]
    assert {stage["loss"]["squared"] for stage in stages(name)} == {name == "rep_medsam_code"}


@pytest.mark.parametrize("name", AUGMENTATION)
def test_the_augmentation_is_the_published(stages, name: str):
    assert [(s["flips"], s["colour"] is not None) for s in stages(name)] == AUGMENTATION[name]
    assert {s["box_jitter"] for s in stages(name) if s["stage"] != "distil"} <= {BOX_JITTER[name]}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_optimiser_is_the_published(stages, name: str):
    assert [(s["weight_decay"], s["plateau"]["factor"]) for s in stages(name)] == OPTIMISERS[name]
    assert {tuple(s["betas"]) for s in stages(name)} == {(0.9, 0.999)}
    assert {s["eps"] for s in stages(name)} == {1e-6 if name == "litemedsam_distil" else 1e-8}
    assert {s["clip_percentile"] for s in stages(name)} == {90 if name == "rep_medsam_code" else None}
    assert {(s["plateau"]["patience"], s["plateau"]["watch"], s["warmup"]) for s in stages(name)} == {(5, "train", 0)}


@pytest.mark.parametrize("name", [name for name, lines in PROTOCOLS.items() if lines[0][0] == "distil"])
def test_medsams_published_encoder_is_the_teacher(stages, name: str):
    first, *others = stages(name)
    assert first["teacher"] == {"name": "medsam_vit_b", "set": {}, "weights": "medsam_vit_b", "recipe": None}
    assert first["embeddings"] == ("live" if name == "litemedsam_distil" else "cached")
    assert first["consistent"] == (not name.startswith("rep_medsam"))  # Rep-MedSAM, Section 2.3: the student alone
    assert not any(stage["teacher"] for stage in others)


def test_rep_medsam_distils_from_a_fifth_of_the_ct_images(stages):
    assert [stage["sampler"]["fractions"] for stage in stages("rep_medsam")] == [{"CT": 0.2}, {}, {}]


def test_rep_medsams_code_jitters_colours_always(stages):
    sizes = {"brightness": 0.4, "contrast": 0.5, "saturation": 0.4, "hue": 0.2, "probability": 1.0}
    assert [stage["colour"] for stage in stages("rep_medsam_code")] == [sizes] * 3


@pytest.mark.parametrize("name", ["grays_anatomy", "grays_anatomy_code"])
def test_grays_anatomy_takes_1000_of_a_modality_and_keeps_the_smallest_validation_loss(stages, name: str):
    (stage,) = stages(name)
    assert stage["sampler"] == {"rule": "per-modality", "number": 1000, "fractions": {}}
    kept = stage["validation"]
    assert (kept["share"], kept["metric"], kept["keep"], kept["every"]) == (0.01, "loss", "best", None)


def test_an_assumed_number_of_epochs_is_told():
    assert "10 are assumed" in shipped_recipe("medsam").source


def test_no_other_recipe_holds_cases_back(stages):
    others = [name for name in PROTOCOLS if not name.startswith("grays_anatomy")]
    assert not any(stage["validation"] for name in others for stage in stages(name))


def test_no_shipped_recipe_names_a_data_set_since_no_label_is_in_every_suite():
    assert not any(stage.data for name in shipped_recipes() for stage in shipped_recipe(name).chain)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_stage_says_where_it_is_from_and_what_code_does_less(name: str):
    recipe = shipped_recipe(name)
    assert all(stage.source for stage in recipe.chain)
    one_fewer = {"swin_litemedsam_code", "rep_medsam_code", "grays_anatomy_code", "litemedsam"}
    assert ("one epoch fewer" in " ".join(stage.source for stage in recipe.chain)) == (name in one_fewer)


@pytest.mark.parametrize("name", shipped_recipes())
def test_what_is_shown_as_json_is_the_same_recipe(bench, name: str):
    shown = json.loads(bench("show", "recipe", name, "--json"))
    recipe = shipped_recipe(name)
    assert shown == recipe_data(recipe)
    assert Recipe.model_validate(shown).chain == recipe.chain


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_recipe_is_explained_on_one_screen(bench, name: str):
    page = bench("show", "recipe", name).splitlines()
    assert len(page) <= 40
    assert max(map(len, page)) <= 80
    assert page[0].startswith(f"{name}: ")
    assert page[1].split() == [word for i, s in enumerate(shipped_recipe(name).chain, 1) for word in (str(i), s.stage)]


def test_the_page_of_a_recipe_says_what_the_paper_prints(bench):
    page = " ".join(bench("show", "recipe", "rep_medsam").split())
    for part in ("Rep-MedSAM paper", "5 epochs", "0.0005", "2e-05", "colour jitter", "Table 2", "Not stated"):
        assert part in page


def texts(**fields: Any) -> dict[str, str]:
    recipe = Recipe.model_validate({"steps": 1} | fields)
    return {heading: cells[0] for heading, cells in recipe_rows(recipe.chain)}


@pytest.mark.parametrize(
    ("fields", "heading", "text"),
    [
        ({"steps": 240}, "length", "240 steps"),
        ({"steps": None, "epochs": 1}, "length", "1 epoch"),
        ({"schedule": "linear", "warmup": 20}, "schedule", "20 steps of warm-up, then linear to zero"),
        (
            {"schedule": "plateau", "plateau": {"factor": 0.8, "patience": 3}},
            "schedule",
            "plateau: × 0.8 after 3 epochs (training loss)",
        ),
        ({"loss": {"bce": 0.5, "iou": 0}}, "loss", "Dice + 0.5 BCE"),
        ({"loss": {"squared": True}}, "loss", "Dice² + BCE² + MSE(IoU)²"),
        ({"eps": 1e-6, "betas": [0.8, 0.99]}, "optimiser", "AdamW, betas 0.8 0.99, eps 1e-06, weight decay 0.01"),
        ({"flips": 0}, "augmentation", "none"),
        ({"colour": {"probability": 0.3}}, "augmentation", "flips p 0.5 each, colour jitter 0.4 0.5 0.4 0.2 p 0.3"),
        ({"box_jitter": 0}, "box jitter", "none"),
        (
            {"box_jitter": 2, "propagated_boxes": 0.5},
            "box jitter",
            "0..2 px outward; p 0.5 from the slice before, ±2 px",
        ),
        ({"box_jitter": 2, "loop_starts": 0.2}, "box jitter", "0..2 px outward; p 0.2 where the 3D loop starts"),
        ({"sampler": {"rule": "balanced"}}, "sampler", "each modality alike"),
        ({"clip": 1}, "clipping", "norm 1"),
        ({"clip_percentile": 90}, "clipping", "percentile 90 of norms so far"),
        (
            {"validation": {"share": 0.2, "every": 5, "metric": "dsc", "patience": 4}},
            "validation",
            "20% of cases, every 5 steps, largest DSC kept, ends after 4 without gain",
        ),
        ({"data": "more"}, "data", "more"),
        ({"ema": 0.999, "freeze": ["mask_decoder"]}, "more", "EMA 0.999; frozen: mask_decoder"),
        ({"scale": 0.5}, "more", "images at 0.5 of the network's side"),
        ({"batch_norm": "running"}, "more", "batch normalisation by running statistics"),
        ({"batch_norm": "batch"}, "more", "batch normalisation by the batch's statistics, frozen parts too"),
        ({"prompts": "box"}, "more", "points and scribbles from the box"),
        ({"objects": 3, "batch": 4, "micro_batch": 2, "bf16": True}, "more", "3 objects an image; in parts of 2; bf16"),
    ],
)
def test_each_line_of_the_page_tells_its_field(fields: dict[str, Any], heading: str, text: str):
    assert texts(**fields)[heading] == text


def test_lines_that_no_stage_uses_are_left_out():
    assert not {"data", "more"} & texts().keys()


@pytest.mark.parametrize(
    ("teacher", "text"),
    [
        ({"weights": "a.pth"}, "medsam_vit_b, weights a.pth; embeddings cached"),
        ({"recipe": "medsam"}, "medsam_vit_b, trained by medsam; embeddings cached"),
        ({"set": {"depth": 2}}, "medsam_vit_b, depth=2, as initialised; embeddings cached"),
    ],
)
def test_the_page_tells_what_the_teacher_is(teacher: dict[str, Any], text: str):
    assert texts(stage="distil", teacher={"name": "medsam_vit_b"} | teacher)["teacher"] == text


def test_a_recipe_of_an_unknown_name_is_told_with_a_suggestion(capsys):
    with pytest.raises(SystemExit):
        main(["show", "recipe", "rep_medsm"])
    assert "Did you mean 'rep_medsam'?" in capsys.readouterr().err


def test_recipes_are_listed_with_their_stages_and_source(bench):
    rows = {row["name"]: row for row in json.loads(bench("list", "recipes", "--json"))}
    assert rows["rep_medsam"]["stages"] == [
        {"stage": "distil", "length": "5 epochs"},
        {"stage": "train", "length": "8 epochs"},
        {"stage": "finetune", "length": "12 epochs"},
    ]
    assert "steps=240" in rows["brief"]["fields"]
    lines = bench("list", "recipes").splitlines()
    assert max(map(len, lines)) <= 80
    (line,) = [line for line in lines if " rep_medsam " in line]
    assert "distil, train, finetune" in line
    assert "Rep-MedSAM paper" in line
