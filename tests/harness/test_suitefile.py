"""A suite file: includes, overrides, and every mistake told at once with file, line and a way to mend it."""

from pathlib import Path

import pytest

from harness.suite import expand
from harness.suitefile import SUITES, find_suite, load_suite, read_suite
from harness.yamlfile import InvalidSuite, load

GOOD = """\
name: small
variants:
  dummy:
  litemedsam_tiny: {recipe: quick}
deployments:
  torch-fp32: {threads: 2}
datasets:
  train: {kind: phantoms, seed: 1}
  test: {kind: phantoms, seed: 2}
recipes:
  quick: {steps: 3}
training: {data: train, recipe: quick}
subsets:
  few: {spread: 2}
measure:
  accuracy: {data: [test], deployments: [torch-fp32]}
  complexity:
"""


def write(folder: Path, text: str, name: str = "suite.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def problems(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(InvalidSuite) as caught:
        read_suite(path, overrides)
    return [str(p) for p in caught.value.problems]


def test_a_good_suite_loads_and_expands(tmp_path: Path):
    suite, _ = read_suite(write(tmp_path, GOOD))
    assert list(expand(suite)) == ["dummy", "litemedsam_tiny"]
    assert suite.measure.complexity is not None
    assert suite.measure.runtime is None


@pytest.mark.parametrize(("word", "asked"), [("null", True), ("true", True), ("{}", True), ("false", False)])
def test_complexity_needs_no_fields_and_can_be_left_out(tmp_path: Path, word: str, asked: bool):
    suite, _ = read_suite(write(tmp_path, GOOD), [f"measure.complexity={word}"])
    assert (suite.measure.complexity is not None) == asked


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_suite_is_valid(path: Path):
    read_suite(path)


def test_the_json_schema_that_ships_is_current():
    import json

    from harness.commands.listing import suite_schema

    assert json.loads((SUITES / "suite.schema.json").read_text()) == suite_schema(), (
        "run `bench show schema > suites/suite.schema.json`"
    )


def test_a_shipped_suite_is_found_by_name_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert find_suite("quickstart") == SUITES / "quickstart.yaml"
    assert load_suite("suites/quickstart.yaml").name == "quickstart"


def test_a_typo_in_a_field_is_told_with_line_and_suggestion(tmp_path: Path):
    path = write(tmp_path, GOOD.replace("threads", "thread"))
    (problem,) = problems(path)
    assert "suite.yaml:6: deployments.torch-fp32.thread: is not a field" in problem
    assert "Did you mean 'threads'?" in problem


def test_a_typo_in_a_variant_is_told_with_a_suggestion(tmp_path: Path):
    (problem,) = problems(write(tmp_path, GOOD.replace("litemedsam_tiny", "litmedsam_tiny")))
    assert "suite.yaml:4" in problem
    assert "litemedsam_tiny" in problem


def test_all_mistakes_are_told_at_once(tmp_path: Path):
    text = (
        GOOD.replace("steps: 3", "steps: -3")
        .replace("threads: 2", "threads: two")
        .replace("data: [test]", "data: [tset]")
        .replace("training: {data: train", "training: {data: trian")
        .replace("name: small", "name: small\nmeasures: {}")
    )
    told = problems(write(tmp_path, text))
    assert [p.split(": ")[1] for p in told] == [
        "measures",
        "deployments.torch-fp32.threads",
        "recipes.quick.steps",
        "training.data",
        "measure.accuracy.data",
    ]
    assert "Did you mean 'measure'?" in told[0]
    assert "Did you mean 'test'?" in told[4]


def test_an_unknown_hyperparameter_is_told_before_anything_runs(tmp_path: Path):
    (problem,) = problems(
        write(tmp_path, GOOD.replace("{recipe: quick}", "{recipe: quick, set: {deptsh: [1, 1, 1, 1]}}"))
    )
    assert "deptsh" in problem
    assert "depths" in problem


def test_a_key_written_twice_is_told(tmp_path: Path):
    (problem,) = problems(write(tmp_path, GOOD + "name: again\n"))
    assert "suite.yaml:18: name: is written twice" in problem


def test_broken_yaml_is_told_with_its_line(tmp_path: Path):
    (problem,) = problems(write(tmp_path, GOOD.replace("{spread: 2}", "{spread: 2")))
    assert "not valid YAML" in problem
    assert ":15:" in problem or ":14:" in problem


def test_a_missing_file_says_so(tmp_path: Path):
    (problem,) = problems(tmp_path / "nothing.yaml")
    assert "nothing.yaml" in problem
    assert "cannot be read" in problem


def test_includes_are_merged_and_later_values_win(tmp_path: Path):
    write(tmp_path, GOOD, "base.yaml")
    suite, document = read_suite(write(tmp_path, "include: base.yaml\nname: derived\nrecipes: {quick: {steps: 9}}\n"))
    assert suite.name == "derived"
    assert suite.recipes["quick"].steps == 9
    assert document.place(("datasets", "test")).source.endswith("base.yaml")


def test_a_missing_include_is_told_with_a_suggestion(tmp_path: Path):
    write(tmp_path, GOOD, "base.yaml")
    (problem,) = problems(write(tmp_path, "include: [bse.yaml]\n"))
    assert "'bse.yaml' does not exist" in problem
    assert "Did you mean 'base.yaml'?" in problem


def test_files_that_include_each_other_are_refused(tmp_path: Path):
    write(tmp_path, "include: b.yaml\n", "a.yaml")
    write(tmp_path, "include: a.yaml\n", "b.yaml")
    (problem,) = problems(tmp_path / "a.yaml")
    assert "includes itself" in problem


def test_an_override_sets_any_field_and_its_mistakes_name_the_command_line(tmp_path: Path):
    path = write(tmp_path, GOOD)
    suite, _ = read_suite(path, ["recipes.quick.steps=7", "measure.accuracy.subset=few", "variants.dummy=null"])
    assert suite.recipes["quick"].steps == 7
    assert suite.measure.accuracy is not None
    assert suite.measure.accuracy.subset == "few"
    (problem,) = problems(path, "recipes.quick.stps=7")
    assert problem.startswith("command line: recipes.quick.stps=7")
    assert "Did you mean 'steps'?" in problem


def test_a_data_set_is_replaced_by_a_folder_in_one_override(tmp_path: Path):
    path = write(tmp_path, GOOD)
    suite, _ = read_suite(path, [f"datasets.test={tmp_path}"])
    assert suite.datasets["test"].kind == "npz"
    (problem,) = problems(path, "datasets.test=/does/not/exist")
    assert "the folder /does/not/exist does not exist" in problem


@pytest.mark.parametrize("text", ["steps", "=3", "recipes.quick.steps.more=1"])
def test_an_override_that_is_none_is_told(tmp_path: Path, text: str):
    assert problems(write(tmp_path, GOOD), text)


def test_ablation_rows_and_grids_expand_from_their_base(tmp_path: Path):
    text = GOOD + (
        "ablations:\n"
        "  rows: {base: litemedsam_tiny, rows: {shallow: {depths: [1, 1, 1, 1]}}}\n"
        "  grid: {base: litemedsam_tiny, grid: {decoder_heads: [2, 4], decoder_depth: [1, 2]}}\n"
    )
    rows = expand(read_suite(write(tmp_path, text))[0])
    assert list(rows)[2:] == [
        "litemedsam_tiny+shallow",
        "litemedsam_tiny+decoder_heads=2,decoder_depth=1",
        "litemedsam_tiny+decoder_heads=2,decoder_depth=2",
        "litemedsam_tiny+decoder_heads=4,decoder_depth=1",
        "litemedsam_tiny+decoder_heads=4,decoder_depth=2",
    ]
    assert rows["litemedsam_tiny+shallow"].base == "litemedsam_tiny"
    assert rows["litemedsam_tiny+shallow"].recipe == "quick"


def test_an_ablation_of_nothing_is_told(tmp_path: Path):
    told = problems(write(tmp_path, GOOD + "ablations:\n  a: {base: nobody, rows: {x: {decoder_depth: 1}}}\n"))
    assert any("there is no variant 'nobody'" in p for p in told)


def test_places_follow_lists(tmp_path: Path):
    document = load(write(tmp_path, "gates:\n  - {metric: dsc, max_drop: 0.1}\n  - {metric: dsk, max_drop: 0.1}\n"))
    assert document.place(("gates", 1, "metric")).line == 3


def test_two_ablations_may_not_give_one_name_to_two_rows(tmp_path: Path):
    row = "{base: litemedsam_tiny, rows: {x: {decoder_depth: 1}}}"
    (problem,) = problems(write(tmp_path, GOOD + f"ablations:\n  a: {row}\n  b: {row}\n"))
    assert "'litemedsam_tiny+x' is a row of ablation 'a' too" in problem


def test_a_gate_for_a_variant_that_is_not_there_is_told(tmp_path: Path):
    text = GOOD + "gates:\n  dsc: {metric: dsc, variants: [litemedsam_tny], max_drop: 0.1}\n"
    (problem,) = problems(write(tmp_path, text))
    assert "Did you mean 'litemedsam_tiny'?" in problem


@pytest.mark.parametrize("value", ["!foo bar", "2021-13-45", "&x {b: *x}", "a\x07b"])
def test_what_yaml_cannot_make_sense_of_is_told_and_not_raised(tmp_path: Path, value: str):
    assert problems(write(tmp_path, GOOD.replace("name: small", f"name: small\ntitle: {value}")))


def test_rules_of_ranking_are_presets_or_written_out(tmp_path: Path):
    text = GOOD + "ranking: [test-based, {name: fast, scheme: rank-then-aggregate, weights: {dsc: 1, wall: 2}}]\n"
    preset, own = read_suite(write(tmp_path, text))[0].ranking
    assert preset == "test-based"
    assert getattr(own, "weights", None) == {"dsc": 1, "wall": 2}
    assert read_suite(write(tmp_path, GOOD))[0].ranking[0] == "mean-then-rank"


@pytest.mark.parametrize(
    ("ranking", "said"),
    [
        ("[test-base]", "input should be 'mean-then-rank', "),
        ("[{name: a, scheme: test-based, weights: {flops: 1}}]", "nothing is ranked by 'flops'; a rule may weigh: dsc"),
        ("[{name: a, scheme: test-based, weights: {dsc: 0}}]", "greater than 0"),
        ("[{name: a, scheme: test-based, weight: {dsc: 1}}]", "Did you mean 'weights'?"),
        ("[test-based, test-based]", "two rules are called 'test-based'"),
        ("[{name: test-based, scheme: test-based, weights: {dsc: 1}}]", "is the name of a preset with other rules"),
    ],
)
def test_a_rule_of_ranking_that_is_wrong_is_told(tmp_path: Path, ranking: str, said: str):
    told = problems(write(tmp_path, GOOD + f"ranking: {ranking}\n"))
    assert any(said in problem for problem in told), told


TAUGHT = GOOD.replace(
    "  quick: {steps: 3}\n",
    "  quick: {steps: 3}\n"
    "  taught: {steps: 3, stages: [{stage: distil, teacher: {name: medsam_vit_tiny, recipe: quick}}, {data: test}]}\n",
)


def test_recipes_may_name_variants_recipes_and_data_sets_of_the_suite(tmp_path: Path):
    suite, _ = read_suite(write(tmp_path, TAUGHT))
    assert suite.recipes["taught"].chain[1].data == "test"


@pytest.mark.parametrize(
    ("written", "wrong", "said"),
    [
        ("data: test}", "data: tset}", "taught.stages.1.data: there is no data set 'tset'. Did you mean 'test'?"),
        ("recipe: quick}}", "recipe: quik}}", "taught.stages.0.teacher.recipe: there is no recipe 'quik'. Did you"),
        ("name: medsam_vit_tiny", "name: medsam_vit_tny", "taught.stages.0.teacher.name: no variant 'medsam_vit_tny'"),
        ("name: medsam_vit_tiny", "name: dummy", "stages.0.teacher.name: dummy has no embedding to imitate"),
        ("medsam_vit_tiny,", "medsam_vit_tiny, set: {dpth: 2},", "taught.stages.0.teacher.set: "),
        ("recipe: quick}}", "recipe: taught}}", "taught.stages.0.teacher.recipe: trains the teacher of 'taught', "),
        ("teacher: {name: medsam_vit_tiny, recipe: quick}", "steps: 2", "recipes.taught: stage 1: `distil` needs a"),
    ],
)  # fmt: skip
def test_a_name_in_a_recipe_that_nothing_has_is_told_with_its_stage(
    tmp_path: Path, written: str, wrong: str, said: str
):
    assert TAUGHT.count(written) == 1
    (problem,) = problems(write(tmp_path, TAUGHT.replace(written, wrong)))
    assert said in problem
    assert "suite.yaml:12" in problem


def test_teachers_that_need_each_other_are_refused(tmp_path: Path):
    def taught_by(other: str) -> str:
        return f"{{steps: 1, stage: distil, teacher: {{name: medsam_vit_tiny, recipe: {other}}}}}"

    text = GOOD.replace("  quick: {", f"  a: {taught_by('b')}\n  b: {taught_by('a')}\n  quick: {{")
    told = problems(write(tmp_path, text))
    assert [p.split(": ")[1] for p in told] == ["recipes.a.teacher.recipe", "recipes.b.teacher.recipe"]


def test_a_teachers_weights_must_be_there_where_a_row_needs_them(tmp_path: Path):
    text = TAUGHT.replace("recipe: quick}}", "weights: no.pth}}")
    assert read_suite(write(tmp_path, text), ["training.recipe=taught"])  # only of dummy, which is not trained
    (problem,) = problems(write(tmp_path, text), "variants.litemedsam_tiny.recipe=taught")
    assert "recipes.taught.stages.0.teacher.weights: no.pth is neither a file nor an imported checkpoint" in problem
    through = "recipes.quick={steps: 1, stage: distil, teacher: {name: medsam_vit_tiny, recipe: taught}}"
    assert problems(write(tmp_path, text), through) == [problem]
    given = tmp_path / "teacher.pth"
    given.touch()
    assert read_suite(write(tmp_path, text.replace("no.pth", str(given))), ["variants.litemedsam_tiny.recipe=taught"])
