"""Jobs of a session take turns; repeats go on until medians are precise; a disturbed machine is told."""

import json
from pathlib import Path

import pytest

from harness.errors import UnavailableError
from harness.measure.runtime import disturbance, job, session
from harness.measure.runtime.disturbance import State, compare
from harness.measure.runtime.sandbox import Outcome
from harness.schema import Record
from tests.harness.runtime.support import PlainContext, make_case, runtime_job

NAMES = ("2DBox_US_0001", "2DBox_US_0002")


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    folder = tmp_path / "cases"
    folder.mkdir()
    for name in NAMES:
        make_case(folder, name)
    return folder


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Runs in the order in which they are made: threads of the deployment, case.  They "take" 0.1 s each."""
    made: list[tuple[str, str]] = []

    def run_case(_self, bundle, case_file, *_):
        made.append((bundle.environment["OMP_NUM_THREADS"], case_file.stem))
        return Outcome("ok", None, 0.1, phases={"unaccounted": 0.1})

    monkeypatch.setattr("harness.measure.runtime.process.ProcessSandbox.run_case", run_case)
    return made


def jobs(tmp_path: Path, cases: Path, count: int, **settings):
    """``count`` jobs that differ in the number of threads."""
    made = []
    for threads in range(1, count + 1):
        spec = runtime_job(cases, **settings)
        deployment = spec.deployment.model_copy(update={"threads": threads})
        made.append((spec.model_copy(update={"deployment": deployment}), PlainContext(tmp_path / str(threads))))
    return made


def details(context: PlainContext) -> list[dict]:
    return [json.loads(row.detail) for row in context.rows("wall")]


def test_jobs_take_turns_on_every_case_in_an_order_that_changes(tmp_path, cases, runs):
    together = jobs(tmp_path, cases, 4, repeats=6)
    assert job.run_together(together, lambda _: None) == [None] * 4
    warm, measured = runs[:4], runs[4:]
    assert {case for _, case in warm} == {NAMES[0]}
    rounds = [measured[start : start + 4] for start in range(0, len(measured), 4)]
    assert all(len({case for _, case in turn}) == 1 for turn in rounds)
    assert all({threads for threads, _ in turn} == set("1234") for turn in rounds)
    assert len({tuple(threads for threads, _ in turn) for turn in rounds}) > 3


def test_every_run_says_in_which_session_and_at_which_place_it_was_made(tmp_path, cases, runs):
    together = jobs(tmp_path, cases, 2, repeats=2)
    job.run_together(together, lambda _: None)
    told = [detail for _, context in together for detail in details(context)]
    assert len({detail["session"] for detail in told}) == 1
    assert sorted(detail["place"] for detail in told) == list(range(8))
    assert {detail["page_cache"] for detail in told} == {"warm"}


def test_finished_runs_of_one_job_are_not_made_again_while_the_other_goes_on(tmp_path, cases, runs):
    first, second = jobs(tmp_path, cases, 2, repeats=1)
    job.run_together([first], lambda _: None)
    runs.clear()
    job.run_together([first, second], lambda _: None)
    assert {threads for threads, _ in runs} == {"2"}


def test_a_job_that_cannot_go_on_leaves_the_others_in_turn(tmp_path, cases, monkeypatch):
    def run_case(_self, bundle, case_file, *_):
        if bundle.environment["OMP_NUM_THREADS"] == "1" and case_file.stem == NAMES[1]:
            raise UnavailableError("the engine is gone")
        return Outcome("ok", None, 0.1)

    monkeypatch.setattr("harness.measure.runtime.process.ProcessSandbox.run_case", run_case)
    together = jobs(tmp_path, cases, 2, repeats=2)
    problems = job.run_together(together, lambda _: None)
    assert str(problems[0]) == "the engine is gone"
    assert problems[1] is None
    assert list(together[0][1].journal) == [f"0/{NAMES[0]}"]
    assert len(together[1][1].journal) == 4


def test_repeats_go_on_for_all_until_the_median_of_each_is_precise(tmp_path, cases, monkeypatch):
    noisy = iter([1.0, 2.0, 0.5, 1.5, 0.7, 1.9, *[1.0] * 50])

    def run_case(_self, bundle, *_):
        return Outcome("ok", None, 1.0 if bundle.environment["OMP_NUM_THREADS"] == "1" else next(noisy))

    monkeypatch.setattr("harness.measure.runtime.process.ProcessSandbox.run_case", run_case)
    together = jobs(tmp_path, cases, 2, repeats=2, precision=0.05, page_cache="warm", subset={"names": [NAMES[0]]})
    job.run_together(together, lambda _: None)
    quiet, loud = (context.rows("wall") for _, context in together)
    assert len(quiet) == len(loud)
    assert 10 < len(loud) < 30


def test_precision_asks_for_no_more_than_the_most_repeats_and_the_budget(tmp_path, cases, monkeypatch):
    values = iter([float(number) for number in range(1, 1000)])
    monkeypatch.setattr(
        "harness.measure.runtime.process.ProcessSandbox.run_case", lambda *_: Outcome("ok", None, next(values))
    )
    ((_, most),) = together = jobs(tmp_path / "a", cases, 1, precision=0.01, max_repeats=7)
    job.run_together(together, lambda _: None)
    assert len(most.journal) == 7 * len(NAMES)
    ((_, least),) = together = jobs(tmp_path / "b", cases, 1, repeats=2, precision=0.01, budget=1e-6)
    job.run_together(together, lambda _: None)
    assert len(least.journal) == 2 * len(NAMES)


def test_a_case_that_fails_is_not_repeated_for_precision(tmp_path, cases, monkeypatch):
    monkeypatch.setattr(
        "harness.measure.runtime.process.ProcessSandbox.run_case", lambda *_: Outcome("oom", "too much", 1.0)
    )
    ((_, context),) = together = jobs(tmp_path, cases, 1, precision=0.01)
    job.run_together(together, lambda _: None)
    assert len(context.journal) == len(NAMES)


def test_an_interrupted_session_goes_on_with_the_times_it_has(tmp_path, cases, runs):
    ((spec, context),) = jobs(tmp_path, cases, 1, precision=0.01, subset={"names": [NAMES[0]]})
    context.journal = {f"{n}/{NAMES[0]}": [Record("wall", 0.1, case=NAMES[0], repeat=n)] for n in range(5)}
    job.run(spec, context)
    assert len(runs) - 1 == 1  # one more after warming: six equal times are an interval of no width


def test_cases_of_one_name_in_two_data_sets_are_each_measured_on_their_own_file(tmp_path, cases, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    make_case(other, NAMES[0])
    seen: list[tuple[str, Path]] = []

    def run_case(_self, bundle, case_file, *_):
        seen.append((bundle.environment["OMP_NUM_THREADS"], case_file.parent))
        return Outcome("ok", None, 0.1)

    monkeypatch.setattr("harness.measure.runtime.process.ProcessSandbox.run_case", run_case)
    (first, _), (_, there) = jobs(tmp_path, cases, 2, subset={"names": [NAMES[0]]})[0], jobs(tmp_path, other, 2)[1]
    second = jobs(tmp_path, other, 2, precision=0.05)[1][0]
    here = PlainContext(tmp_path / "1")
    assert job.run_together([(first, here), (second, there)], lambda _: None) == [None, None]
    assert set(seen) == {("1", cases), ("2", other)}
    assert len(here.journal) == 1
    assert len(there.journal) == 6  # equal times: six are an interval of no width


def test_a_job_that_cannot_be_made_ready_fails_alone(tmp_path, cases, runs, monkeypatch):
    real = job.make_bundle

    def make_bundle(spec, context):
        if spec.deployment.threads == 1:
            raise RuntimeError("the weights do not fit")
        return real(spec, context)

    monkeypatch.setattr(job, "make_bundle", make_bundle)
    together = jobs(tmp_path, cases, 2)
    problems = job.run_together(together, lambda _: None)
    assert "the weights do not fit" in str(problems[0])
    assert problems[1] is None
    assert len(together[1][1].journal) == len(NAMES)


def test_equal_files_are_brought_into_the_page_cache_once_by_the_smallest_case(tmp_path, cases, runs):
    spec = runtime_job(cases, repeats=1)
    together = [(spec, PlainContext(tmp_path / "a")), (spec, PlainContext(tmp_path / "b"))]
    job.run_together(together, lambda _: None)
    assert len(runs) == 1 + 2 * len(NAMES)


def test_a_run_that_killed_its_process_three_times_is_given_up(tmp_path, cases, runs):
    ((spec, context),) = jobs(tmp_path, cases, 1)
    context.work.mkdir(parents=True)
    (context.work / "attempting").write_text(json.dumps({"case": f"0/{NAMES[0]}", "times": 3}))
    job.run(spec, context)
    first, second = context.rows("wall")
    assert (first.status, second.status) == ("crashed", "ok")
    assert "the process died" in first.reason


def test_a_cold_page_cache_without_the_right_to_it_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(UnavailableError, match="needs root"):
        session.drop_page_cache(tmp_path / "missing" / "drop_caches")


def test_with_a_cold_page_cache_it_is_dropped_before_every_run_and_nothing_warms_it(tmp_path, cases, runs, monkeypatch):
    dropped = []
    monkeypatch.setattr(session, "drop_page_cache", lambda: dropped.append(len(runs)))
    job.run_together(jobs(tmp_path, cases, 1, repeats=2, page_cache="cold"), lambda _: None)
    assert len(runs) == 4
    assert dropped == [0, 1, 2, 3]


def state(steal: float = 0.0, throttled: int | None = 0, probe: float = 0.003, busy: float = 0.0) -> State:
    return State({"user": busy, "idle": 10.0 - busy, "steal": steal}, throttled, (0.5, 0.4, 0.3), probe)


def test_a_quiet_machine_is_not_disturbed():
    after = State({"user": 2.0, "idle": 11.0, "steal": 0.01}, 0, None, 0.0032)
    assert compare(state(), after, 0.003)["disturbed"] == []


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (State({"user": 2.0, "idle": 10.0, "steal": 0.5}, 0, None, 0.003), "hypervisor took 20% of the CPU time"),
        (state(throttled=3), "throttled 3 times"),
        (state(probe=0.006), "took 2.0 times its fastest"),
    ],
)
def test_what_disturbs_the_machine_is_said_in_words(after: State, words: str):
    (said,) = compare(state(), after, 0.003)["disturbed"]
    assert words in said


@pytest.mark.parametrize(("others", "disturbed"), [(1.0, False), (4.0, True)])
def test_other_work_on_the_machine_is_what_neither_the_run_nor_the_engine_took(others: float, disturbed: bool):
    after = State({"user": 6.0 + others, "idle": 10.0, "steal": 0.0}, 0, None, 0.003)
    found = compare(state(), after, 0.003, own_s=6.0)
    assert found["others"] == pytest.approx(others / (6.0 + others), abs=1e-3)
    assert bool(found["disturbed"]) is disturbed
    assert "others" not in compare(state(), after, 0.003)


def test_the_state_of_this_machine_can_be_read_in_some_milliseconds():
    found = disturbance.read_state()
    assert found.probe_s > 0
    assert {"user", "idle"} <= found.cpu.keys()
