"""`bench train`: its options and what `--set` changes of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.commands.train import Asked, training_document
from harness.errors import BenchError
from harness.recipe import Recipe, Stage
from harness.suitefile import read_document
from harness.yamlfile import InvalidSuite


def trained(recipe: str, *sets: str, **options: Any) -> tuple[Stage, ...]:
    document = training_document(Asked("litemedsam_tiny", recipe, sets, **options))
    return Recipe.model_validate(document.data["recipes"][recipe]).chain


def test_a_field_without_a_stage_is_set_in_all_stages() -> None:
    assert [(s.steps, s.epochs) for s in trained("rep_medsam", "steps=100")] == [(100, None)] * 3
    assert [s.batch for s in trained("swin_litemedsam", "batch=2")] == [2, 2]
    assert [s.flips for s in trained("swin_litemedsam", "flips=0.3")] == [0.3, 0.3]
    assert [s.epochs for s in trained("brief", "epochs=2")] == [2]


def test_a_field_of_one_stage_is_set_there_alone() -> None:
    assert [(s.steps, s.epochs) for s in trained("rep_medsam", "stages.1.steps=9")] == [
        (None, 5),
        (9, None),
        (None, 12),
    ]


def test_a_part_of_a_field_is_set_where_the_field_is() -> None:
    assert [bool(s.colour) for s in trained("rep_medsam", "colour.hue=0.1")] == [False, False, True]
    chain = trained("rep_medsam", "teacher.name=medsam_vit_tiny", "loss.iou=0.5")
    assert [s.teacher.name if s.teacher else None for s in chain] == ["medsam_vit_tiny", None, None]
    assert [s.loss.iou for s in chain] == [0.5, 0.5, 0.5]
    whole = trained("rep_medsam", "teacher={name: medsam_vit_tiny, recipe: brief}")
    assert [bool(s.teacher) for s in whole] == [True, False, False]


def test_later_settings_win() -> None:
    assert [s.batch for s in trained("brief", "batch=2", "batch=3")] == [3]


def test_the_teacher_option_gives_the_weights_of_every_teacher() -> None:
    teacher = trained("rep_medsam", teacher="mine.pth")[0].teacher
    assert teacher is not None
    assert (teacher.name, teacher.weights, teacher.recipe) == ("medsam_vit_b", "mine.pth", None)
    with pytest.raises(BenchError, match=r"--teacher mine\.pth: recipe 'brief' has no teacher"):
        trained("brief", teacher="mine.pth")


def test_given_weights_are_trained_further(tmp_path: Path) -> None:
    file = tmp_path / "start.safetensors"
    file.touch()
    suite, _ = read_document(training_document(Asked("litemedsam_tiny", weights=str(file))))
    entry = suite.variants["litemedsam_tiny"]
    assert (entry.weights, entry.fine_tune) == (str(file), "quick_tiny")


def test_a_recipe_that_another_replaces_for_a_variant_gives_way_to_it_with_all_that_is_set() -> None:
    suite, _ = read_document(training_document(Asked("litemedsam_tiny", "quick", sets=("learning_rate=0.25",))))
    assert suite.training is not None
    assert suite.training.recipe == "quick_tiny"
    assert suite.recipes["quick_tiny"].learning_rate == 0.25
    assert read_document(training_document(Asked("litemedsam", "quick")))[0].training.recipe == "quick"


def test_the_report_of_a_training_says_how_it_was_asked_for() -> None:
    asked = Asked("litemedsam_tiny", "brief", ("steps=2", "batch=1"), data="cases", seed=3)
    typed = "bench train litemedsam_tiny --recipe brief --data cases --set steps=2 --set batch=1 --seed 3"
    assert " ".join(asked.command) == typed


def test_a_stages_data_may_be_a_folder(tmp_path: Path) -> None:
    sets = ("stages.2.data=" + str(tmp_path), "teacher={name: medsam_vit_tiny}")
    suite, _ = read_document(training_document(Asked("rep_medsam_tiny", "rep_medsam", sets)))
    assert suite.recipes["rep_medsam"].chain[2].data == str(tmp_path)
    assert suite.datasets[str(tmp_path)].kind == "npz"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sets": ("stps=7",)}, "command line: recipes.brief.stps=7: recipes.brief.stps: is not a field"),
        ({"sets": ("stps=7",)}, "Did you mean 'steps'?"),
        ({"sets": ("steps=many",)}, "recipes.brief.steps: input should be a valid integer"),
        ({"sets": ("steps",)}, "--set steps: a field of the recipe is written key=value"),
        ({"sets": ("stages.0.steps=2",)}, "recipe 'brief' is one stage; leave 'stages.0' out of the key"),
        ({"sets": ("stages=3",)}, "recipes.brief.stages: input should be a valid tuple"),
        (
            {"recipe": "rep_medsam", "sets": ("stages.7.batch=2",)},
            "recipes.rep_medsam.stages: holds no field or item 7",
        ),
        ({"recipe": "rep_medsam", "sets": ("stages.0=3",)}, "recipes.rep_medsam.stages.0: input should be"),
        ({"recipe": "rep_medsam"}, "`bench import medsam_vit_b FILE` makes one"),
        (
            {"recipe": "rep_medsam", "teacher": "no.pth"},
            "--teacher no.pth: recipes.rep_medsam.stages.0.teacher.weights",
        ),
        ({"weights": "no.pth"}, "--weights no.pth: variants.litemedsam_tiny.weights: no.pth is neither a file nor"),
        ({"data": "/no/cases"}, "--data /no/cases: datasets.train.path: the folder /no/cases does not exist"),
        (
            {"sets": ('instead={"*_tny": "touch"}',)},
            "recipes.brief.instead.*_tny: no variant is called '*_tny'",
        ),
        (
            {"sets": ('instead={"*_tiny": "tuch"}',)},
            "recipes.brief.instead.*_tiny: there is no recipe 'tuch'. Did you mean 'touch'?",
        ),
        (
            {"sets": ('instead={"medsam*": "quick"}',)},
            "recipes.brief.instead.medsam*: recipe 'quick' is itself replaced for some variants",
        ),
        ({"recipe": "quik"}, "there is no recipe 'quik'. Did you mean 'quick'?"),
    ],
)
def test_every_mistake_is_one_sentence_that_names_the_option(options: dict[str, Any], said: str) -> None:
    with pytest.raises(BenchError) as caught:
        read_document(training_document(Asked("litemedsam_tiny", **{"recipe": "brief"} | options)))
    (line,) = str(caught.value).splitlines()
    assert said in line
    assert not isinstance(caught.value, InvalidSuite) or len(caught.value.problems) == 1
