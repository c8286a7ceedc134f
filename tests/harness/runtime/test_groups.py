"""What a control group tells of a run: peaks, anonymous memory and throttling, in both versions of the interface."""

import os
import shutil
import subprocess
import sys
import threading
import time

import pytest

from harness.measure.runtime import groups
from harness.measure.runtime.bundle import Bundle, make_bundle
from harness.measure.runtime.groups import ParentGroup, Usage
from harness.measure.runtime.process import ProcessSandbox
from harness.measure.runtime.sandbox import Limits, open_sandbox
from harness.measure.runtime.watch import INTERVAL_S, Group, Watch, parse_throttled
from tests.harness.runtime.support import (
    MIB,
    ROOMY,
    PlainContext,
    fake_bundle,
    make_case,
    need_engine,
    runtime_job,
    uncached_file,
)

FAKE = ProcessSandbox(worker="tests.harness.runtime.fake_worker")
USED = {"1": "memory.usage_in_bytes", "2": "memory.current"}
versions = pytest.mark.parametrize("version", ["1", "2"], ids=["version 1", "version 2"])


def group_of(folder, version, pids=(), used=1 << 40, cpu=b""):
    group = Group(version, folder / "memory", folder / "cpu")
    group.memory.mkdir(parents=True)
    group.cpu.mkdir(parents=True)
    (group.memory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    (group.memory / USED[version]).write_text(f"{used}\n")
    (group.cpu / "cpu.stat").write_bytes(cpu)
    return group


@pytest.fixture
def holder():
    """Starts a process that holds that many MiB, and returns its id."""
    started = []

    def start(mebibytes):
        code = f"import sys; held = bytearray({mebibytes} << 20); print('.', flush=True); sys.stdin.read()"
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == b".\n"
        return process.pid

    yield start
    for process in started:
        process.communicate()


def until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


@pytest.mark.parametrize("time_held_up", [b"throttled_time 1500000000", b"throttled_usec 1500000"])
def test_throttling_is_counted_in_seconds_in_both_versions(time_held_up):
    stat = b"nr_periods 40\nnr_throttled 3\n" + time_held_up + b"\n"
    assert parse_throttled(stat) == {"periods": 40, "throttled": 3, "seconds": 1.5}


def test_a_group_without_a_controller_of_cpu_time_has_no_throttling(tmp_path):
    assert parse_throttled(b"usage_usec 4\n") is None
    assert Group("2", tmp_path, tmp_path / "none").throttled() is None


@pytest.mark.parametrize(
    ("version", "file"), [("1", "memory.oom_control"), ("2", "memory.events")], ids=["version 1", "version 2"]
)
def test_kills_for_want_of_memory_are_counted(tmp_path, version, file):
    group = group_of(tmp_path, version)
    assert group.oom_kills() is None
    (group.memory / file).write_text("low 0\nunder_oom 0\noom 7\noom_kill 2\n")
    assert group.oom_kills() == 2


@versions
def test_anonymous_memory_is_the_sum_over_the_processes_and_its_sampling_is_told(tmp_path, holder, version):
    with Watch(group_of(tmp_path, version, [holder(40), holder(60)])) as watch:
        until(lambda: watch.samples > 2)
    peak, source = watch.anonymous()
    assert 100 * MIB < peak < 140 * MIB
    assert "RssAnon of the processes in the control group" in source
    assert f"{watch.samples} samples, one every {1000 * INTERVAL_S:g} ms" in source


@versions
def test_pages_that_processes_share_never_count_beyond_the_whole_group(tmp_path, holder, version):
    with Watch(group_of(tmp_path, version, [holder(40), holder(60)], used=50 * MIB)) as watch:
        until(lambda: watch.samples > 2)
    assert watch.anonymous()[0] == 50 * MIB


def test_the_largest_sample_stands(tmp_path, holder):
    group = group_of(tmp_path, "2", [holder(60)])
    with Watch(group) as watch:
        until(lambda: watch.samples > 0)
        (group.memory / "cgroup.procs").write_text("")
        time.sleep(10 * INTERVAL_S)
    assert watch.anonymous()[0] > 60 * MIB


def test_a_group_that_never_comes_is_no_number_and_a_reason(tmp_path):
    with Watch(Group("2", tmp_path / "a", tmp_path / "a")) as watch:
        time.sleep(5 * INTERVAL_S)
    peak, reason = watch.anonymous()
    assert peak is None
    assert "no process was seen in" in reason


def test_a_group_may_come_after_the_watch_and_go_before_it(tmp_path, holder):
    with Watch(Group("2", tmp_path / "late" / "memory", tmp_path / "late" / "cpu")) as watch:
        time.sleep(3 * INTERVAL_S)
        shutil.copytree(group_of(tmp_path / "made", "2", [holder(40)]).memory.parent, tmp_path / "late")
        until(lambda: watch.samples > 0)
        shutil.rmtree(tmp_path / "late")
        time.sleep(10 * INTERVAL_S)
    assert watch.anonymous()[0] > 40 * MIB


@versions
def test_the_container_is_the_only_group_below_its_parent(tmp_path, holder, version):
    parent = ParentGroup(0, "cgroupfs", version, root=tmp_path)
    for folder in {parent.group.memory / "0123", parent.group.cpu / "0123"}:
        folder.mkdir(parents=True)
        (folder.parent / "cpu.stat").write_bytes(b"nr_periods 0\nnr_throttled 0\nthrottled_usec 0\n")
        (folder / "cpu.stat").write_bytes(b"nr_periods 9\nnr_throttled 4\nthrottled_usec 2000000\n")
    (parent.group.memory / "0123" / "cgroup.procs").write_text(f"{holder(40)}\n")
    with groups.watching(parent, "cgroupfs", version, tmp_path) as usage_of:
        time.sleep(0.3)
        shutil.rmtree(parent.group.cpu / "0123")
        time.sleep(0.3)
        usage = usage_of(None)
    assert usage.throttled == {"periods": 9, "throttled": 4, "seconds": 2.0}
    assert usage.anonymous[0] > 40 * MIB
    assert usage.peak[0] is None


@pytest.mark.parametrize(
    ("driver", "folder", "scope"), [("cgroupfs", "docker", "{}"), ("systemd", "system.slice", "docker-{}.scope")]
)
@versions
def test_without_a_group_above_it_a_container_is_found_among_the_engines_own(
    tmp_path, holder, driver, folder, scope, version
):
    mine, other = "a" * 64, "b" * 64
    base = tmp_path / "memory" / folder if version == "1" else tmp_path / folder
    (base / scope.format(other)).mkdir(parents=True)
    with groups.watching(None, driver, version, tmp_path) as usage_of:
        made = base / scope.format(mine)
        made.mkdir()
        (made / "memory.use_hierarchy").write_text("1")
        (made / ("memory.max_usage_in_bytes" if version == "1" else "memory.peak")).write_text(str(90 * MIB))
        (made / "cgroup.procs").write_text(f"{holder(40)}\n")
        time.sleep(0.3)
        shutil.rmtree(made)
        usage = usage_of(mine)
        assert usage.peak[0] == 90 * MIB
        assert "at most 100 ms before its end" in usage.peak[1]
        assert 40 * MIB < usage.anonymous[0] < 60 * MIB
        assert "was not seen in" in usage_of(other).anonymous[1], "it was there before"
        assert "was not seen in" in usage_of(None).peak[1]


def test_a_group_that_an_engine_left_behind_with_its_containers_is_removed(tmp_path):
    for pid in (4194305, os.getpid()):  # in containers the same few numbers come again
        (tmp_path / "cpu" / f"medsambench{pid}n2" / ("c" * 64)).mkdir(parents=True)
    groups.remove_stale(tmp_path)
    assert list((tmp_path / "cpu").iterdir()) == []


def test_a_group_that_still_holds_a_container_is_kept_and_removed_when_the_container_is_gone(tmp_path):
    parent = groups.ParentGroup(7, "cgroupfs", "1", tmp_path)
    container = tmp_path / "memory" / parent.argument.lstrip("/") / "container"
    (container / "cgroup.procs").mkdir(parents=True)
    (container / "cgroup.procs" / "held").touch()  # a folder that rmdir refuses, as the kernel refuses a busy group
    groups.discard(parent)
    groups.remove_kept()
    assert container.is_dir()
    (container / "cgroup.procs" / "held").unlink()
    groups.remove_kept()
    assert list((tmp_path / "memory").iterdir()) == []
    assert parent not in groups._KEPT


def test_what_the_worker_had_at_its_end_is_told_as_a_lower_bound_and_not_as_a_peak():
    usage = Usage.unknown("no group here").completed({"cgroup_peak_bytes": 77, "anonymous_bytes": 55})
    assert usage.peak == (77, "the container's control group, read inside at the worker's end; no group here")
    assert usage.anonymous == (
        None,
        "no group here; at least the 55 bytes that the worker had at its end (RssAnon)",
    )
    assert Usage.unknown("no group here").completed({}).anonymous == (None, "no group here")


def test_a_watch_takes_little_time_from_the_program_and_leaves_no_thread(tmp_path):
    threads = threading.active_count()
    begin, clock = time.process_time(), time.monotonic()
    with Watch(group_of(tmp_path, "1", [os.getpid()])) as watch:
        time.sleep(1.0)
    assert watch.samples > 20
    assert (time.process_time() - begin) / (time.monotonic() - clock) < 0.04, "share of one CPU"
    assert threading.active_count() == threads


def test_in_a_process_the_peak_of_anonymous_memory_leaves_out_what_is_read_from_files(tmp_path):
    ballast = uncached_file(tmp_path / "ballast", 100 * MIB)
    bundle = fake_bundle(tmp_path / "b", "ballast", BALLAST=str(ballast), HELD=str(200 * MIB))
    outcome = FAKE.run_case(bundle, make_case(tmp_path), tmp_path / "out", ROOMY)
    assert (outcome.status, outcome.reason) == ("ok", None)
    assert 200 * MIB < outcome.peak_anonymous_bytes < 230 * MIB
    assert "one every 10 ms" in outcome.detail["peak_anonymous"]


def test_in_a_process_children_count_too(tmp_path):
    bundle = fake_bundle(tmp_path / "b", "children")
    outcome = FAKE.run_case(bundle, make_case(tmp_path), tmp_path / "out", ROOMY)
    assert (outcome.status, outcome.reason) == ("ok", None)
    assert 120 * MIB < outcome.peak_anonymous_bytes < 200 * MIB


@pytest.mark.docker
@pytest.mark.parametrize("above", [True, False], ids=["a group above it", "in the engine's own group"])
def test_in_a_container_the_peak_of_anonymous_memory_leaves_out_the_page_cache(tmp_path, monkeypatch, above):
    need_engine()
    if above and groups.unusable():
        pytest.skip(f"{groups.unusable()}; the other case is how it is done here")
    if not above:
        monkeypatch.setattr(groups, "unusable", lambda: "not root")
    bundle = make_bundle(runtime_job(tmp_path), PlainContext(tmp_path / "dummy"))
    folder = shutil.copytree(bundle.folder, tmp_path / "heavy")
    uncached_file(folder / "ballast", 300 * MIB).chmod(0o644)
    load = (
        "cat /workspace/bundle/ballast >/dev/null; python3 -c 'import time; b = bytearray(200 << 20); time.sleep(.2)'"
    )
    with (folder / "environment").open("a") as stream:
        stream.write(f"{load}\n")
    sandbox = open_sandbox("docker")
    sandbox.prepare(bundle, lambda _: None)
    try:
        heavy = Bundle(folder, bundle.description, "0")
        outcome = sandbox.run_case(heavy, make_case(tmp_path), tmp_path / "out", Limits(1024 * MIB, 0.5, 120))
    finally:
        sandbox.cleanup()
    assert (outcome.status, outcome.reason) == ("ok", None)
    assert 200 * MIB < outcome.peak_anonymous_bytes < 240 * MIB
    with_the_cache = outcome.peak_anonymous_bytes + 290 * MIB  # the two need not peak at one moment
    assert outcome.peak_memory_bytes > with_the_cache
    assert outcome.detail["throttled"]["periods"] > 0, "the container has a quota, its parent has none"
    assert not list(groups.ROOT.glob(f"*/medsambench{os.getpid()}n*"))


def test_the_anonymous_peak_is_never_above_the_peak_of_the_group():
    usage = Usage((70, "the group"), (90, "samples")).completed({})
    assert usage.anonymous == (70, "samples, and at most the peak of the group")
    assert usage.peak == (70, "the group")


@versions
def test_a_group_that_goes_with_its_last_process_is_asked_for_its_peak_with_every_new_most(holder, tmp_path, version):
    group = group_of(tmp_path, version, [holder(20)])
    peak = group.memory / ("memory.max_usage_in_bytes" if version == "1" else "memory.peak")
    (group.memory / "memory.use_hierarchy").write_text("1")
    peak.write_text("1")
    watch = Watch(group, fleeting=True)
    watch._look()
    peak.write_text(f"{100 * MIB}")
    watch._sample()
    assert watch.last_peak == 100 * MIB
    watch._family.close()
