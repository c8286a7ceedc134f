"""A plan: jobs with digests that change with what they depend on, and with nothing else."""

from pathlib import Path

import pytest

from harness.estimate import estimate
from harness.plan import Plan, make_plan, note_generations
from harness.results import Results
from harness.store import records_key, seal
from harness.suitefile import read_suite
from tests.harness.small import SMALL, write_suite


def plan_of(folder: Path, *overrides: str, text: str = SMALL, fresh: tuple[str, ...] = ()) -> Plan:
    suite, _ = read_suite(write_suite(folder, text), overrides)
    return make_plan(suite, Results(folder / "results"), fresh)


def changed(folder: Path, *overrides: str) -> set[str]:
    """Kind · variant of the jobs whose digest an override changes."""
    before = {j.title: j.digest for j in plan_of(folder).jobs}
    after = {j.title: j.digest for j in plan_of(folder, *overrides).jobs}
    assert before.keys() == after.keys()
    return {" · ".join(title.split(" · ")[:2]) for title in before if before[title] != after[title]}


def test_a_suite_becomes_its_jobs_in_an_order_that_works(tmp_path: Path):
    plan = plan_of(tmp_path)
    assert [(j.spec.kind, j.row) for j in plan.jobs] == [
        ("complexity", "dummy"),
        ("complexity", "litemedsam_tiny"),
        ("train", "litemedsam_tiny"),
        ("accuracy", "dummy"),
        ("accuracy", "litemedsam_tiny"),
        ("runtime", "dummy"),
        ("runtime", "litemedsam_tiny"),
    ]
    seen: set[str] = set()
    for job in plan.jobs:
        assert set(job.needs) <= seen
        seen.add(job.digest)


def test_the_same_suite_gives_the_same_digests(tmp_path: Path):
    assert plan_of(tmp_path).digest == plan_of(tmp_path).digest


def test_planning_runs_and_generates_nothing(tmp_path: Path):
    plan_of(tmp_path)
    assert not list((tmp_path / "results").rglob("*.npz"))


def test_a_changed_recipe_reruns_what_is_trained_and_what_depends_on_it(tmp_path: Path):
    assert changed(tmp_path, "recipes.quick.steps=7") == {
        "train · litemedsam_tiny",
        "accuracy · litemedsam_tiny",
        "runtime · litemedsam_tiny",
    }


def test_a_changed_test_set_reruns_measurements_and_no_training(tmp_path: Path):
    assert changed(tmp_path, "datasets.test.seed=3") == {
        "accuracy · dummy",
        "accuracy · litemedsam_tiny",
        "runtime · dummy",
        "runtime · litemedsam_tiny",
    }


def test_a_changed_variant_reruns_that_variant_alone(tmp_path: Path):
    assert changed(tmp_path, "variants.litemedsam_tiny.set.iou_head_depth=3") == {
        "complexity · litemedsam_tiny",
        "train · litemedsam_tiny",
        "accuracy · litemedsam_tiny",
        "runtime · litemedsam_tiny",
    }


def test_a_changed_protocol_reruns_that_measurement_alone(tmp_path: Path):
    assert changed(tmp_path, "measure.accuracy.protocols=[strict]") == {
        "accuracy · dummy",
        "accuracy · litemedsam_tiny",
    }
    assert changed(tmp_path, "measure.runtime.memory=2GiB") == {"runtime · dummy", "runtime · litemedsam_tiny"}


def test_titles_and_gates_change_no_digest(tmp_path: Path):
    assert changed(tmp_path, "title=Other", "gates.dsc={metric: dsc, max_drop: 0.1}") == set()


def test_a_jobs_digest_does_not_depend_on_where_its_files_lie(tmp_path: Path):
    import shutil

    import harness.data as data

    source = tmp_path / "a"
    data.open_dataset(plan_of(tmp_path).suite.datasets["test"], tmp_path / "cache")
    made = next((tmp_path / "cache").rglob("*.npz")).parent
    source.mkdir()
    for path in made.glob("*.npz"):
        shutil.copy(path, source)
    shutil.copytree(source, tmp_path / "b")
    one = plan_of(tmp_path, f"datasets.test={source}")
    two = plan_of(tmp_path, f"datasets.test={tmp_path / 'b'}")
    assert [j.digest for j in one.jobs] == [j.digest for j in two.jobs]


def test_a_stored_job_is_cached(tmp_path: Path):
    job = plan_of(tmp_path).jobs[0]
    results = Results(tmp_path / "results")
    results.store.put_if_absent(records_key(job.digest), seal([]))
    assert [j.cached for j in plan_of(tmp_path).jobs] == [True] + [False] * 6


def test_fresh_asks_again_for_a_kind_and_for_what_depends_on_it(tmp_path: Path):
    before = plan_of(tmp_path)
    fresh = plan_of(tmp_path, fresh=("train",))
    different = [a.title for a, b in zip(before.jobs, fresh.jobs, strict=True) if a.digest != b.digest]
    assert [t.split(" · ")[0] for t in different] == ["train", "accuracy", "runtime"]
    note_generations(fresh, Results(tmp_path / "results"))
    assert plan_of(tmp_path).digest == fresh.digest, "later runs use the fresh results"
    train = next(j for j in fresh.jobs if j.spec.kind == "train")
    Results(tmp_path / "results").store.put_if_absent(records_key(train.digest), seal([]))
    assert plan_of(tmp_path, fresh=("train",)).digest != fresh.digest


def test_equal_rows_share_one_job(tmp_path: Path):
    text = SMALL.replace("  litemedsam_tiny:\n", "  litemedsam_tiny:\n  twin: {name: litemedsam_tiny}\n")
    plan = plan_of(tmp_path, text=text)
    assert len(plan.jobs) - len(plan.unique) == 4


def test_weights_from_a_file_are_trained_further_where_the_row_says_fine_tune(tmp_path: Path):
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"any")
    given = f"variants.litemedsam_tiny={{weights: {weights}, fine_tune: quick}}"
    plan, scratch = plan_of(tmp_path, given), plan_of(tmp_path)
    (job,), (from_scratch,) = ([j for j in p.jobs if j.spec.kind == "train"] for p in (plan, scratch))
    assert job.spec.weights.sha256 is not None
    assert job.digest != from_scratch.digest
    assert {j.spec.weights.train_job for j in plan.jobs if j.spec.kind == "accuracy" and j.row != "dummy"} == {
        job.digest
    }


def test_weights_from_a_file_replace_training(tmp_path: Path):
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"any")
    given = f"variants.litemedsam_tiny={{weights: {weights}, recipe: quick}}"  # the recipe is for rows without
    plan = plan_of(tmp_path, given)
    assert "train" not in [j.spec.kind for j in plan.jobs]
    assert plan.jobs[-1].spec.weights.sha256 is not None


def test_zero_steps_mean_no_training(tmp_path: Path):
    plan = plan_of(tmp_path, "recipes.quick.steps=0")
    assert "train" not in [j.spec.kind for j in plan.jobs]


def test_every_training_seed_is_trained_and_its_accuracy_measured(tmp_path: Path):
    plan = plan_of(tmp_path, "training.seeds=[0, 1, 2]")
    kinds = [j.spec.kind for j in plan.jobs if j.row == "litemedsam_tiny"]
    assert kinds.count("train") == kinds.count("accuracy") == 3
    assert kinds.count("runtime") == 1


def test_timings_belong_to_a_machine_and_run_alone(tmp_path: Path):
    for job in plan_of(tmp_path).jobs:
        assert (job.spec.machine is not None) == (job.spec.kind == "runtime") == job.spec.exclusive


def test_an_estimate_says_whether_it_rests_on_history(tmp_path: Path):
    plan = plan_of(tmp_path)
    seconds, sure = estimate(plan.unique, Results(tmp_path / "results"))
    assert seconds > 0
    assert not sure


def test_a_job_specification_can_be_sent_to_another_machine(tmp_path: Path):
    import pickle

    for job in plan_of(tmp_path).jobs:
        assert pickle.loads(pickle.dumps(job.spec)).digest == job.digest
        assert type(job.spec).model_validate_json(job.spec.model_dump_json()).digest == job.digest


@pytest.mark.parametrize("kind", ["train", "accuracy", "complexity", "runtime"])
def test_the_sources_a_digest_covers_exist(kind: str):
    from harness.dependencies import CODE
    from harness.provenance import ROOT

    for name in CODE[kind]:  # type: ignore[index]
        assert (ROOT / name).exists(), name


def test_a_variant_whose_registered_hyperparameters_change_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import dataclasses

    import variants

    before = {j.title: j.digest for j in plan_of(tmp_path).jobs}
    resolve = variants.resolve

    def wider(name: str, overrides: object) -> object:
        spec = resolve(name, overrides)  # type: ignore[arg-type]
        if name != "litemedsam_tiny":
            return spec
        return dataclasses.replace(spec, hyperparameters={**spec.hyperparameters, "decoder_mlp_dim": 256})

    monkeypatch.setattr(variants, "resolve", wider)
    after = {j.title: j.digest for j in plan_of(tmp_path).jobs}
    assert {t for t in before if before[t] != after[t]} == {t for t in before if "litemedsam_tiny" in t}


def test_an_ablation_row_that_equals_its_base_shares_the_bases_jobs(tmp_path: Path):
    text = SMALL + "ablations:\n  heads: {base: litemedsam_tiny, grid: {iou_head_depth: [2, 3]}}\n"
    plan = plan_of(tmp_path, text=text)
    assert len(plan.jobs) - len(plan.unique) == 4


def test_an_interrupted_fresh_run_goes_on_with_the_same_repetition(tmp_path: Path):
    fresh = plan_of(tmp_path, fresh=("train",))
    note_generations(fresh, Results(tmp_path / "results"))
    assert plan_of(tmp_path, fresh=("train",)).digest == fresh.digest


def test_a_subset_that_names_no_case_of_a_folder_is_told_before_anything_runs(tmp_path: Path):
    import harness.data as data
    from harness.errors import BenchError

    folder = data.open_dataset(plan_of(tmp_path).suite.datasets["test"], tmp_path / "cache").path
    with pytest.raises(BenchError, match="nosuch"):
        plan_of(tmp_path, f"datasets.test={folder}", "subsets.few={names: [nosuch]}")


def test_a_deployment_that_is_not_the_reference_is_prepared_before_it_is_measured(tmp_path: Path):
    overrides = ("deployments.ort.backend=onnxruntime", "measure.accuracy.deployments=[torch-fp32, ort]")
    plan = plan_of(tmp_path, *overrides)
    deploys = {j.row: j for j in plan.jobs if j.spec.kind == "deploy"}
    assert set(deploys) == {"dummy", "litemedsam_tiny"}
    measured = [j for j in plan.jobs if j.spec.kind == "accuracy" and j.row == "litemedsam_tiny"]
    reference, deployed = measured
    assert reference.spec.deploy_job is None
    assert deployed.spec.deploy_job == deploys["litemedsam_tiny"].digest
    assert deploys["litemedsam_tiny"].digest in deployed.needs
    kinds = [j.spec.kind for j in plan.jobs]
    assert kinds.index("train") < kinds.index("deploy") < kinds.index("accuracy")


def test_a_job_of_a_backend_without_torch_does_not_depend_on_torch(tmp_path: Path):
    overrides = ("deployments.ort.backend=onnxruntime", "measure.accuracy.deployments=[ort]")
    plan = plan_of(tmp_path, *overrides)
    accuracy = next(j.spec for j in plan.jobs if j.spec.kind == "accuracy" and j.row == "litemedsam_tiny")
    deploy = next(j.spec for j in plan.jobs if j.spec.kind == "deploy" and j.row == "litemedsam_tiny")
    assert "onnxruntime" in accuracy.libraries
    assert "torch" not in accuracy.libraries
    assert {"torch", "onnx", "onnxruntime"} <= set(deploy.libraries)
    assert deploy.machine is not None


def test_a_comparison_is_asked_for_without_measuring_accuracy_or_runtime(tmp_path: Path):
    overrides = ("deployments.fast.precision=bf16", "measure.fidelity.deployments=[fast, torch-fp32]")
    plan = plan_of(tmp_path, *overrides)
    assert {(j.row, j.deployment) for j in plan.jobs if j.spec.kind == "deploy"} == {
        ("dummy", "fast"),
        ("litemedsam_tiny", "fast"),
    }
