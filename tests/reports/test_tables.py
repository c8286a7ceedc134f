from __future__ import annotations

import pytest

from harness.schema import Record
from reports import tables
from reports.frame import Run, load_run
from tests.reports.synthetic import SyntheticRun

BAD = {"status": "crashed", "reason": "it broke"}


def dsc(case: str, modality: str, value: float | None, label: int | None = 1, **more: object) -> Record:
    about = {"case": case, "modality": modality, "ndim": 2, "protocol": "strict"}
    return Record("dsc", value, object=label, **about, **more)  # type: ignore[arg-type]


def summary_of(synthetic: SyntheticRun, records: list[Record], variant: str = "tiny") -> dict:
    synthetic.replace(synthetic.job("accuracy", variant, seed=0)["digest"], records)
    table = tables.accuracy_summary(load_run(*synthetic.write()))
    rows = table[(table["variant"] == variant) & (table["metric"] == "dsc") & (table["protocol"] == "strict")]
    assert len(rows) == 1
    return dict(rows.iloc[0])


def test_a_case_is_the_mean_of_its_objects_and_macro_weighs_modalities_alike(synthetic: SyntheticRun) -> None:
    row = summary_of(
        synthetic,
        [
            dsc("a", "CT", 0.2, 1),
            dsc("a", "CT", 0.6, 2),
            dsc("b", "US", 0.8),
            dsc("c", "US", 1.0),
            dsc("d", "US", 0.6),
        ],
    )
    assert row["macro"] == pytest.approx((0.4 + 0.8) / 2)
    assert row["micro"] == pytest.approx((0.4 + 0.8 + 1.0 + 0.6) / 4)
    assert (row["cases"], row["objects"], row["modalities"]) == (4, 5, 2)
    assert (row["unit"], row["direction"]) == ("1", "higher")


def test_a_failed_case_counts_as_zero_and_is_counted(synthetic: SyntheticRun) -> None:
    row = summary_of(synthetic, [dsc("a", "CT", 0.8), dsc("b", "CT", None, None, **BAD)])
    assert row["macro"] == pytest.approx(0.4)
    assert (row["cases"], row["failed"], row["status"], row["reason"]) == (2, 1, "ok", "it broke")


def test_a_skipped_case_and_an_undefined_value_are_left_out_and_counted(synthetic: SyntheticRun) -> None:
    skipped = dsc("b", "CT", None, None, status="skipped", reason="not asked for")
    row = summary_of(synthetic, [dsc("a", "CT", 0.8), skipped, dsc("c", "CT", None)])
    assert row["macro"] == pytest.approx(0.8)
    assert (row["cases"], row["failed"], row["skipped"], row["undefined"]) == (3, 0, 1, 1)


def test_an_undefined_object_does_not_pull_its_case_down(synthetic: SyntheticRun) -> None:
    row = summary_of(synthetic, [dsc("a", "CT", 0.8, 1), dsc("a", "CT", None, 2)])
    assert row["macro"] == pytest.approx(0.8)


def test_all_cases_failed_is_not_ok(synthetic: SyntheticRun) -> None:
    row = summary_of(synthetic, [dsc("a", "CT", None, None, **BAD)])
    assert (row["status"], row["macro"]) == ("crashed", 0.0)


def test_a_value_of_the_case_itself_goes_before_the_mean_of_its_objects(synthetic: SyntheticRun) -> None:
    row = summary_of(synthetic, [dsc("a", "CT", 0.2, 1), dsc("a", "CT", 0.6, 2), dsc("a", "CT", 0.9, None)])
    assert row["macro"] == pytest.approx(0.9)
    assert row["objects"] == 2


def test_seeds_are_averaged_last(synthetic: SyntheticRun) -> None:
    job = synthetic.job("accuracy", "tiny")
    synthetic.data["jobs"].append({**job, "seed": 1, "digest": "1" * 64})
    synthetic.replace("1" * 64, [dsc("a", "CT", 1.0), dsc("b", "CT", 1.0)])
    row = summary_of(synthetic, [dsc("a", "CT", 0.5)])
    assert row["macro"] == pytest.approx((0.5 + 1.0) / 2)
    assert (row["seeds"], row["cases"]) == (2, 2)


def test_accuracy_of_a_job_that_never_ran_is_a_row_with_a_reason(run: Run) -> None:
    table = tables.accuracy_summary(run)
    rows = table[table["variant"] == "swiftmedsam_v1"]
    assert len(rows) == 4
    assert set(rows["status"]) == {"skipped"}
    assert set(rows["reason"]) == {"its training failed"}
    assert rows["macro"].isna().all()


def test_all_eleven_modalities_appear_in_their_order(run: Run) -> None:
    from harness.schema import MODALITIES

    table = tables.accuracy_by_modality(run)
    assert tuple(table["modality"].unique()) == MODALITIES
    failed = table[(table["variant"] == "swiftmedsam_v2") & (table["modality"] == "PET")]
    assert set(failed["failed"]) == {1}
    assert set(failed["value"]) == {0.0}


def test_tables_show_the_note_wherever_they_show_accuracy(run: Run) -> None:
    for table in (tables.accuracy_summary(run), tables.accuracy_by_modality(run)):
        assert set(table.loc[table["variant"] == "tiny", "note"]) == {"under-trained, 120 steps"}
    ablation = tables.ablations(run)
    accuracy = ablation[ablation["metric"].isin(["dsc", "nsd"])]
    assert set(accuracy["note"]) == set(accuracy["base_note"]) == {"under-trained, 120 steps"}


def test_complexity_has_the_whole_the_parts_and_what_was_not_counted(run: Run) -> None:
    table = tables.complexity(run).set_index("variant")
    lite = table.loc["litemedsam"]
    assert (lite["params"], lite["uncounted"]) == (9_791_300, 31)
    assert lite["operators"] == "aten::gelu × 22, aten::softmax × 9"
    assert lite["flops_image_encoder"] == pytest.approx(0.96 * lite["flops"])
    assert table.loc["dummy", "params_status"] == "unsupported"


def timed(case: str, *walls: float) -> list[Record]:
    return [Record("wall", w, case=case, repeat=i, protocol="strict") for i, w in enumerate(walls)]


def test_a_runtime_row_is_the_median_over_cases_of_the_median_over_repeats(synthetic: SyntheticRun) -> None:
    job = synthetic.job("runtime", "tiny", sandbox="process")
    synthetic.replace(job["digest"], [*timed("a", 1, 2, 9), *timed("b", 4, 4, 4), *timed("c", 5, 7, 6)])
    run = load_run(*synthetic.write())
    cases = tables.runtime_cases(run)
    cases = cases[(cases["variant"] == "tiny") & (cases["sandbox"] == "process")].set_index("case")
    assert cases["wall"].to_dict() == {"a": 2, "b": 4, "c": 6}
    assert (cases.loc["a", "wall_min"], cases.loc["a", "wall_max"], cases.loc["a", "repeats"]) == (1, 9, 3)
    summary = tables.runtime_summary(run)
    row = summary[(summary["variant"] == "tiny") & (summary["sandbox"] == "process")].iloc[0]
    assert (row["wall"], row["ok"], row["failed"]) == (4, 3, 0)


def test_a_failed_case_has_no_time_and_is_counted(run: Run) -> None:
    summary = tables.runtime_summary(run)
    rows = summary[(summary["variant"] == "litemedsam") & (summary["sandbox"] == "process")]
    assert set(rows["failed"]) == {1}
    assert set(rows["ok"]) == {7}
    cases = tables.runtime_cases(run)
    bad = cases[cases["status"] == "oom"]
    assert len(bad) == 2
    assert bad["wall"].isna().all()
    assert bad["reason"].str.contains("memory limit").all()


def test_a_skipped_sandbox_is_a_row_with_a_reason(run: Run) -> None:
    summary = tables.runtime_summary(run)
    docker = summary[summary["sandbox"] == "docker"]
    assert len(docker) == 6
    assert set(docker["status"]) == {"skipped"}
    assert docker["reason"].str.contains("no Docker engine").all()


def test_limits_are_those_read_back(run: Run) -> None:
    summary = tables.runtime_summary(run)
    row = summary[(summary["variant"] == "tiny") & (summary["sandbox"] == "process")].iloc[0]
    assert (row["memory_limit"], row["cpu_limit"]) == ([8.0 * 1024**3], [2.0])


def test_phases_add_up_to_the_mean_wall_time(run: Run) -> None:
    wall = run.frame[(run.frame["metric"] == "wall") & (run.frame["status"] == "ok")]
    means = wall.groupby(["variant", "deployment"])["value"].mean()
    sums = tables.phases(run).groupby(["variant", "deployment"])["seconds"].sum()
    assert sums.to_dict() == pytest.approx(means.to_dict())


def test_training_says_steps_convergence_and_failure(run: Run) -> None:
    table = tables.training(run).set_index("variant")
    assert (table.loc["tiny", "steps"], table.loc["tiny", "planned"]) == (120, 120)
    assert not table["converged"].any()
    assert table.loc["swiftmedsam_v1", "status"] == "crashed"
    assert len(tables.training_curves(run)) == 12 + 12 + 120 + 120


def test_an_ablation_is_compared_on_the_cases_both_have(synthetic: SyntheticRun) -> None:
    base = synthetic.job("accuracy", "tiny")["digest"]
    row = synthetic.job("accuracy", "tiny-depth2")["digest"]
    synthetic.replace(base, [dsc("a", "CT", 0.5), dsc("only base", "CT", 0.1)])
    synthetic.replace(row, [dsc("a", "CT", 0.7), dsc("only row", "CT", 0.0)])
    table = tables.ablations(load_run(*synthetic.write()))
    found = table[table["metric"] == "dsc"].iloc[0]
    assert found["difference"] == pytest.approx(0.2)
    assert (found["cases"], found["changed"]) == (1, "depth = 2 (base: default)")


def test_ablations_cover_accuracy_cost_and_time(run: Run) -> None:
    table = tables.ablations(run)
    assert set(table["metric"]) == {"dsc", "nsd", "params", "flops", "wall"}
    params = table[table["metric"] == "params"].iloc[0]
    assert params["difference"] == 640_000 - 812_340
    assert (table["difference"] - (table["value"] - table["base_value"])).abs().max() < 1e-9


def test_problems_list_everything_that_is_not_ok(run: Run) -> None:
    table = tables.problems(run)
    columns = ["kind", "variant", "deployment", "sandbox", "status", "reason"]
    bad = run.frame.loc[run.frame["status"] != "ok", columns].fillna("")
    listed = table[columns].fillna("")
    assert set(bad.itertuples(index=False, name=None)) == set(listed.itertuples(index=False, name=None))
    assert set(table["status"]) == {"oom", "crashed", "invalid-output", "skipped", "unsupported"}
    assert table["reason"].str.len().min() > 0
    oom = table[table["status"] == "oom"].iloc[0]
    assert oom["names"] == ["3DBox_CT_0000"]


def test_tables_of_a_run_that_measured_nothing_are_empty_not_broken(synthetic: SyntheticRun) -> None:
    synthetic.data["jobs"] = []
    run = load_run(*synthetic.write())
    for name in tables.__all__:
        if name != "FAILURES":
            assert getattr(tables, name)(run).empty, name


def second_seed(synthetic: SyntheticRun, records: list[Record] | None, **fields: object) -> None:
    """Another seed of the accuracy of ``tiny``; without records its whole job left none."""
    synthetic.data["jobs"].append({**synthetic.job("accuracy", "tiny"), "seed": 1, "digest": "1" * 64, **fields})
    if records is not None:
        synthetic.replace("1" * 64, records)


def test_cases_and_failures_are_distinct_cases_whatever_the_number_of_seeds(synthetic: SyntheticRun) -> None:
    skipped = {"status": "skipped", "reason": "left out"}
    second_seed(synthetic, [dsc("a", "CT", None, None, **BAD), dsc("b", "CT", 1.0), dsc("c", "CT", 1.0)])
    first = [dsc("a", "CT", None, None, **BAD), dsc("b", "CT", 0.5), dsc("c", "CT", None, None, **skipped)]
    row = summary_of(synthetic, first)
    assert (row["cases"], row["failed"], row["skipped"], row["seeds"]) == (3, 1, 1, 2)
    assert row["macro"] == pytest.approx((0.25 + 2 / 3) / 2)


def test_a_seed_whose_whole_job_failed_is_told_apart_from_failed_cases(synthetic: SyntheticRun) -> None:
    second_seed(synthetic, None, state="failed", reason="it broke")
    row = summary_of(synthetic, [dsc("a", "CT", 0.5)])
    assert (row["cases"], row["failed"], row["seeds"], row["lost_seeds"]) == (1, 0, 1, 1)
    assert (row["status"], row["reason"]) == ("ok", "it broke")


def test_time_and_memory_are_those_of_cases_whose_every_repeat_was_ok(synthetic: SyntheticRun) -> None:
    job = synthetic.job("runtime", "tiny", sandbox="process")
    records = [*timed("a", 1, 3), *timed("b", 50)]
    for case, repeat, memory in (("a", 0, 10.0), ("a", 1, 12.0), ("b", 0, 900.0)):
        records.append(Record("peak_memory", memory, case=case, repeat=repeat, protocol="strict"))
    records += [Record("phase", 50.0, case="b", repeat=0, protocol="strict", phase="encode")]
    for metric in ("wall", "peak_memory"):
        lost = {"case": "b", "repeat": 1, "protocol": "strict", "status": "timeout", "reason": "too slow"}
        records.append(Record(metric, None, **lost))
    synthetic.replace(job["digest"], records)
    run = load_run(*synthetic.write())
    cases = tables.runtime_cases(run)
    bad = cases[(cases["variant"] == "tiny") & (cases["case"] == "b")].iloc[0]
    assert (bad["status"], bad["repeats"]) == ("timeout", 1)
    assert bad[["wall", "wall_min", "peak_memory"]].isna().all()
    summary = tables.runtime_summary(run)
    row = summary[(summary["variant"] == "tiny") & (summary["sandbox"] == "process")].iloc[0]
    assert (row["wall"], row["peak_memory"]) == (2, 12)
    assert (row["cases"], row["ok"], row["failed"]) == (2, 1, 1)
    assert "tiny" not in set(tables.phases(run)["variant"])
