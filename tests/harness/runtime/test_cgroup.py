"""The cgroup sandbox: limits of the kernel without an engine, every ending a status, and nothing is left behind."""

import errno
import json
import os
import signal
from pathlib import Path
from unittest.mock import Mock

import pytest

from harness.commands import doctor
from harness.errors import BenchError, UnavailableError
from harness.measure.runtime import cgroup, hierarchy, job
from harness.measure.runtime.cgroup import CgroupSandbox
from harness.measure.runtime.groups import ROOT
from harness.measure.runtime.hierarchy import Place, RunGroup, find_place, make_room, remove_stale_runs
from harness.measure.runtime.limits import read_limits
from harness.measure.runtime.sandbox import Limits, open_sandbox
from tests.harness.runtime.support import (
    MIB,
    ROOMY,
    PlainContext,
    fake_bundle,
    make_case,
    measuring_process,
    need_groups,
    runtime_job,
    uncached_file,
)
from tests.harness.runtime.test_process import alive, gone_within
from tests.harness.small import DUMMY, write_suite
from tests.harness.test_cli import bench

FAKE = CgroupSandbox(worker="tests.harness.runtime.fake_worker")
DEAD = 4194305  # beyond the largest process id of Linux
CONTROLLERS = ("memory", "cpu", "cpuset", "pids")
HALF = Limits(512 * MIB, 0.5, 60)


@pytest.fixture
def groups():
    """Real control groups; a test that uses them checks that none of ours is left."""
    need_groups()
    yield
    assert ours() == []


def ours():
    name = f"medsambench{os.getpid()}r"
    return [folder for folder, _, _ in os.walk(ROOT) if Path(folder).name.startswith(name)]


def run(tmp_path, mode, limits=ROOMY, sandbox=FAKE, **environment):
    bundle = fake_bundle(tmp_path / "b", mode, **environment)
    sandbox.prepare(bundle, lambda _: None)
    return sandbox.run_case(bundle, make_case(tmp_path), tmp_path / "out", limits)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A tree of control groups as files: ``tree(own groups, folder → files)``."""

    def make(own, folders, uid=0):
        monkeypatch.setattr(hierarchy, "own_groups", lambda: own)
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        for folder, files in folders.items():
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            for name, text in {"cgroup.procs": "", **files}.items():
                (tmp_path / folder / name).write_text(text)
        return tmp_path

    return make


def unified(controllers="cpuset cpu memory pids", procs="", enabled="", kind="domain"):
    files = {"cgroup.controllers": controllers, "cgroup.subtree_control": enabled, "cgroup.procs": procs}
    return files | ({"cgroup.type": kind} if kind else {})


def test_version_1_makes_groups_below_our_own_of_every_controller(tree):
    own = {"memory": "/job/7", "cpu": "/", "cpuset": "/elsewhere", "pids": "/"}
    root = tree(own, {"memory/job/7": {}, "cpu": {}, "cpuset": {}, "pids": {}})
    place = find_place(root)
    assert place.version == "1"
    assert place.folders["memory"] == root / "memory/job/7"
    assert place.folders["cpuset"] == root / "cpuset", "inside a container the mount shows our own group as its root"


def test_version_1_without_a_needed_controller_says_what_brings_it(tree):
    root = tree({}, {"memory": {}})
    with pytest.raises(UnavailableError, match=r"cannot be made below .* for cpu; run as root \(`sudo -E bench run"):
        find_place(root)


def test_version_1_without_a_wanted_controller_says_what_is_not_enforced(tree):
    place = find_place(tree({}, {"memory": {}, "cpu": {}, "pids": {}}))
    assert place.missing == ["cpuset"]
    assert any("affinity" in text for text in cgroup._not_enforced(place, ROOMY))


def test_version_1_writes_every_limit(tree):
    folders = {name: {} for name in CONTROLLERS}
    root = tree({}, {**folders, "cpuset": {"cpuset.mems": "0\n"}})
    group = RunGroup(find_place(root), 5)
    settings = {f"{file.parent.parent.name}/{file.name}": value for file, value in group._settings(HALF, [2, 3])}
    assert settings == {
        "memory/memory.limit_in_bytes": str(512 * MIB),
        "cpu/cpu.cfs_period_us": "100000",
        "cpu/cpu.cfs_quota_us": "50000",
        "pids/pids.max": "512",
        "cpuset/cpuset.mems": "0",
        "cpuset/cpuset.cpus": "2,3",
    }
    group.folders["memory"].mkdir()
    (group.folders["memory"] / "memory.memsw.limit_in_bytes").write_text("")
    assert str(512 * MIB) in [value for file, value in group._settings(HALF, [0]) if "memsw" in file.name]


def test_version_2_takes_the_nearest_group_without_processes(tree):
    folders = {"": unified(kind=""), "user": unified(), "user/session": unified(procs="1\n")}
    root = tree({"": "/user/session"}, folders)
    place = find_place(root)
    assert (place.version, place.folders["memory"], place.crowded) == ("2", root / "user", False)


def test_version_2_the_root_of_all_groups_may_hold_processes(tree):
    root = tree({"": "/"}, {"": unified(kind="", procs="1\n2\n")})
    assert find_place(root) == Place("2", dict.fromkeys(CONTROLLERS, root))


def test_version_2_a_delegated_group_is_emptied_into_a_leaf_first(tree):
    folders = {"": unified(kind=""), "user": unified(), "user/scope": unified("cpu memory", procs="11\n")}
    root = tree({"": "/user/scope"}, folders, uid=1000)
    place = find_place(root)
    assert place.crowded
    assert place.folders == dict.fromkeys(("memory", "cpu"), root / "user/scope")
    leaf = root / "user/scope/medsambench_rest"
    leaf.mkdir()
    (leaf / "cgroup.procs").write_text("")
    make_room(place)
    assert (leaf / "cgroup.procs").read_text() == "11"
    assert (root / "user/scope/cgroup.subtree_control").read_text() == "+memory", (
        "each controller in a write of its own"
    )


def test_version_2_a_process_that_was_moved_to_the_leaf_finds_the_group_above(tree):
    scope = "user/scope"
    own = {"": f"/{scope}/medsambench_rest"}
    leaf = f"{scope}/medsambench_rest"
    folders = {"": unified(kind=""), scope: unified(enabled="cpu memory"), leaf: unified(procs="1")}
    root = tree(own, folders, uid=1000)
    place = find_place(root)
    assert (place.folders["memory"], place.crowded) == (root / scope, False)


def test_version_2_without_delegation_says_how_to_get_it(tree):
    root = tree({"": "/user"}, {"": unified(kind=""), "user": unified("pids", procs="1\n")}, uid=1000)
    with pytest.raises(UnavailableError, match="systemd-run --user --scope -p Delegate=yes bench run"):
        find_place(root)


def test_version_2_writes_every_limit(tree):
    group = RunGroup(find_place(tree({"": "/"}, {"": unified(kind="")})), 5)
    settings = {file.name: value for file, value in group._settings(Limits(512 * MIB, 1.5, 60), [0, 1])}
    assert settings == {
        "memory.max": str(512 * MIB),
        "cpu.max": "150000 100000",
        "pids.max": "512",
        "cpuset.cpus": "0,1",
    }
    assert len(group.entrances) == 1, "one group for all controllers"


def test_a_limit_that_the_kernel_refuses_is_one_sentence(tree, monkeypatch):
    group = RunGroup(find_place(tree({"": "/"}, {"": unified(kind="")})), 6)
    refused = OSError(errno.EINVAL, "Invalid argument")
    monkeypatch.setattr(hierarchy, "_write", Mock(side_effect=refused))
    with pytest.raises(BenchError, match=r"the kernel refuses '536870912' for .*memory\.max") as caught:
        group.make(HALF, [0])
    assert not isinstance(caught.value, UnavailableError)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EROFS])
def test_groups_that_are_no_longer_ours_are_the_machines_state_and_no_fault_of_a_case(tree, monkeypatch, number):
    place = find_place(tree({"": "/"}, {"": unified(kind="")}))
    monkeypatch.setattr(hierarchy, "_write", Mock(side_effect=OSError(number, os.strerror(number))))
    with pytest.raises(UnavailableError, match=r"memory\.max can no longer be written .*`sandbox: docker`"):
        RunGroup(place, 7).make(HALF, [0])


def test_a_group_that_cannot_be_made_is_the_machines_state_too(tree):
    place = find_place(tree({"": "/"}, {"": unified(kind="")}))
    RunGroup(place, 8).folders["memory"].mkdir()
    with pytest.raises(UnavailableError, match="a control group can no longer be made"):
        RunGroup(place, 8).make(HALF, [0])


def test_where_nothing_is_mounted_another_sandbox_is_named(tmp_path):
    assert "use `sandbox: process`" in CgroupSandbox(root=tmp_path).unavailable()


def test_stale_groups_are_removed_wherever_they_are_and_others_stay(tmp_path):
    dead = [tmp_path / "cpu" / "job" / f"medsambench{pid}r0" for pid in (DEAD, os.getpid())]  # numbers come again
    others = [
        tmp_path / f"medsambench{os.getppid()}r0",
        tmp_path / f"medsambench{DEAD}n0",
        tmp_path / "medsambench_rest",
    ]
    for folder in (*dead, *others):
        folder.mkdir(parents=True)
    remove_stale_runs(tmp_path)
    assert not any(folder.exists() for folder in dead)
    assert all(folder.exists() for folder in others)


def test_the_challenge_protocol_is_refused_because_it_is_a_docker_command():
    assert "sandbox: docker" in open_sandbox("cgroup", "cvpr24").refuses(ROOMY)


def test_more_cpus_than_there_are_are_refused_and_not_lowered():
    assert FAKE.refuses(Limits(MIB, 4096, 60)).startswith("4096 CPUs asked for, but this process has ")


def test_the_doctor_tells_whether_it_can_be_used(monkeypatch):
    found = {finding.topic: finding for finding in doctor.findings()}["Sandbox cgroup"]
    assert found.ok == (CgroupSandbox().unavailable() is None)
    monkeypatch.setattr(CgroupSandbox, "unavailable", lambda _: "no groups; run as root")
    found = doctor._cgroup_sandbox()
    assert (found.ok, found.remedy) == (False, "no groups; run as root")


@pytest.mark.usefixtures("groups")
class TestRealGroups:
    def test_limits_are_read_back_fractions_of_a_cpu_too(self, tmp_path):
        outcome = run(tmp_path, "fine", HALF)
        assert (outcome.status, outcome.reason) == ("ok", None)
        read = outcome.limits_read
        assert read["memory_bytes"] == HALF.memory_bytes
        assert read["memory_source"].startswith("cgroup v")
        assert (read["cpu_quota"], read["cpus"], len(read["cpuset"])) == (0.5, 0.5, 1)
        assert outcome.detail["throttled"]["periods"] > 0
        assert sum(outcome.phases.values()) == pytest.approx(outcome.wall_s)
        assert any(text.startswith("isolation") for text in outcome.detail["not_enforced"])

    def test_there_is_no_network_unless_it_is_asked_for(self, tmp_path):
        outcome = run(tmp_path / "off", "fine")
        if os.geteuid() == 0:
            assert outcome.limits_read["network"] == []
        else:
            assert any(text.startswith("network") for text in outcome.detail["not_enforced"])
        if read_limits()["network"]:
            (tmp_path / "on").mkdir()
            online = run(tmp_path / "on", "fine", Limits(1024 * MIB, 1, 60, network=True))
            assert online.limits_read["network"] != []

    def test_the_anonymous_peak_leaves_out_the_page_cache_and_the_other_has_it(self, tmp_path):
        ballast = uncached_file(tmp_path / "ballast", 300 * MIB)
        outcome = run(tmp_path, "ballast", BALLAST=str(ballast), HELD=str(200 * MIB))
        assert (outcome.status, outcome.reason) == ("ok", None)
        assert 200 * MIB < outcome.peak_anonymous_bytes < 230 * MIB
        assert outcome.peak_memory_bytes > 500 * MIB
        assert "one every 10 ms" in outcome.detail["peak_anonymous"]

    def test_a_program_that_wants_more_memory_than_its_limit_is_killed_as_oom(self, tmp_path):
        outcome = run(tmp_path, "memory", HALF)
        assert outcome.status == "oom"
        assert str(HALF.memory_bytes) in outcome.reason
        assert outcome.detail["oom_kills"] > 0

    @pytest.mark.parametrize(
        ("mode", "status", "reason"),
        [
            ("crash", "crashed", "exit status 3: the reason stands here"),
            ("killed", "crashed", "killed by SIGKILL"),
            ("missing", "invalid-output", "2DBox_US_0001.npz is missing"),
            ("limit", "crashed", "limit not in force: memory: asked for 2.0 GiB, read back 1.0 TiB"),
        ],
    )
    def test_a_misbehaving_program_gets_a_status_and_a_reason(self, tmp_path, mode, status, reason):
        outcome = run(tmp_path, mode)
        assert outcome.status == status
        assert reason in outcome.reason

    def test_a_program_that_takes_too_long_is_killed_with_everything_it_started(self, tmp_path):
        pids = tmp_path / "pids"
        outcome = run(tmp_path, "hang", Limits(1024 * MIB, 1, timeout_s=1.0), PIDS=str(pids))
        assert outcome.status == "timeout"
        assert gone_within([int(pid) for pid in pids.read_text().split()], 5)

    def test_what_leaves_its_session_is_killed_with_the_group(self, tmp_path):
        pids = tmp_path / "pids"
        assert run(tmp_path, "escape", PIDS=str(pids)).status == "ok"
        assert gone_within([int(pids.read_text())], 5)

    def test_what_a_killed_measuring_process_left_is_removed_by_the_next(self, tmp_path):
        pids = tmp_path / "pids"
        parent = measuring_process(tmp_path, __name__, pids, 2)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        worker, left_behind = map(int, pids.read_text().split())
        assert gone_within([worker], 5)
        assert alive(left_behind)
        remove_stale_runs()
        assert gone_within([left_behind], 5)
        assert not [folder for folder, _, _ in os.walk(ROOT) if f"medsambench{parent.pid}r" in folder]

    def test_a_job_in_groups_end_to_end(self, tmp_path):
        cases = tmp_path / "cases"
        cases.mkdir()
        make_case(cases)
        context = PlainContext(tmp_path)
        job.run(runtime_job(cases, sandbox="cgroup", memory="512MiB", cpus=0.5), context)
        assert [(row.status, row.reason) for row in context.rows("wall")] == [("ok", None)]
        assert context.rows("memory_limit")[0].value == 512 * MIB
        assert context.rows("cpu_limit")[0].value == 0.5

    @pytest.mark.slow
    def test_a_suite_measures_in_groups_and_in_processes_beside_each_other(self, tmp_path):
        suite = write_suite(tmp_path, DUMMY.replace("sandboxes: [process]", "sandboxes: [cgroup, process]"))
        done = bench("run", str(suite), "--results", str(tmp_path / "results"))
        assert done.returncode == 0, done.stderr
        (run_folder,) = (tmp_path / "results" / "runs").iterdir()
        manifest = json.loads((run_folder / "run.json").read_text())
        runtime = {job["sandbox"]: job["state"] for job in manifest["jobs"] if job["kind"] == "runtime"}
        assert runtime == {"cgroup": "done", "process": "done"}
