"""The limits of a container as they are read from outside, from made-up control groups."""

import os
import time
from pathlib import Path

import pytest

from harness.measure.runtime import outside
from tests.harness.runtime.support import MIB

CONTAINER = "c" * 64


def files(folder: Path, contents: dict[str, str]) -> None:
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("version", ["1", "2"])
def test_the_limits_are_read_from_the_control_group_of_the_container_in_both_versions(tmp_path, version):
    old = {
        "memory/docker/G/memory.limit_in_bytes": "536870912\n",
        "memory/docker/G/memory.memsw.limit_in_bytes": "536870912\n",
        "cpu/docker/G/cpu.cfs_quota_us": "150000\n",
        "cpu/docker/G/cpu.cfs_period_us": "100000\n",
        "cpuset/docker/G/cpuset.cpus": "0-1\n",
        "pids/docker/G/pids.max": "512\n",
    }
    new = {
        "docker/G/memory.max": "536870912\n",
        "docker/G/memory.swap.max": "0\n",
        "docker/G/cpu.max": "150000 100000\n",
        "docker/G/cpuset.cpus.effective": "0-1\n",
        "docker/G/pids.max": "512\n",
    }
    files(tmp_path, old if version == "1" else new)
    base = tmp_path / "memory" if version == "1" else tmp_path
    read = outside.merged({}, outside.read_group(base / "docker" / "G", base, tmp_path, version))
    assert (read["memory_bytes"], read["swap_bytes"], read["pids"]) == (512 * MIB, 0, 512)
    assert (read["cpu_quota"], read["cpuset"], read["cpus"]) == (1.5, [0, 1], 1.5)
    assert read["memory_source"] == f"cgroup v{version}, read from outside"


def test_a_group_without_limits_reads_as_none_and_not_as_a_number(tmp_path):
    files(tmp_path, {"G/memory.max": "max\n", "G/cpu.max": "max 100000\n"})
    read = outside.read_group(tmp_path / "G", tmp_path, tmp_path, "2")
    assert not {"memory_bytes", "cpu_quota"} & set(read)


def test_the_watch_reads_the_container_that_starts_and_not_those_that_were_there(tmp_path):
    (tmp_path / "docker" / ("a" * 64)).mkdir(parents=True)
    watch = outside.LimitsWatch("cgroupfs", "2", None, None, root=tmp_path)
    with watch:
        files(tmp_path, {f"docker/{CONTAINER}/memory.max": "1048576\n"})
        deadline = time.monotonic() + 5
        while not watch.of(CONTAINER) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert watch.of(CONTAINER)["memory_bytes"] == MIB
    assert watch.of("a" * 64) == {}
    assert watch.of(None) == {}


def test_where_the_engine_no_longer_tells_the_id_the_only_container_below_a_group_of_its_own_is_meant(tmp_path):
    with outside.LimitsWatch("cgroupfs", "2", "/above", None, root=tmp_path) as watch:
        files(tmp_path, {f"above/{CONTAINER}/memory.max": "1048576\n"})
        deadline = time.monotonic() + 5
        while not watch.of(None) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert watch.of(None)["memory_bytes"] == MIB


def test_a_group_under_systemd_is_found_by_the_id_in_its_name(tmp_path):
    watch = outside.LimitsWatch("systemd", "2", None, None, root=tmp_path)
    (tmp_path / "system.slice" / f"docker-{CONTAINER}.scope").mkdir(parents=True)
    (tmp_path / "system.slice" / "sshd.service").mkdir()
    assert list(watch._containers()) == [CONTAINER]


def test_the_watch_stops_after_two_equal_readings_of_the_program(tmp_path, monkeypatch):
    looks = []
    monkeypatch.setattr(outside, "_is_starting", lambda pid: False)  # this process, which is in no container
    plain = outside.read_group
    monkeypatch.setattr(outside, "read_group", lambda *args: looks.append(plain(*args)) or looks[-1])
    with outside.LimitsWatch("cgroupfs", "2", "/above", None, root=tmp_path) as watch:
        files(
            tmp_path,
            {f"above/{CONTAINER}/memory.max": "1048576\n", f"above/{CONTAINER}/cgroup.procs": f"{os.getpid()}"},
        )
        watch._thread.join(5)
        assert not watch._thread.is_alive()
    assert looks[-1] == looks[-2]
    assert len(looks) <= 4
    assert watch.of(None)["uid"] == os.getuid()


def test_a_process_in_the_mount_namespace_of_the_machine_is_not_the_program_yet():
    assert outside._is_starting(str(os.getpid()))


def test_a_container_that_removes_itself_and_whose_group_is_not_seen_is_asked_for_once(tmp_path, monkeypatch):
    asked = []
    told = {"Id": CONTAINER, "HostConfig": {"Memory": MIB}}
    monkeypatch.setattr(outside, "inspected", lambda name: asked.append(name) or told)
    monkeypatch.setattr(outside, "_ASK_AFTER_S", 0.05)
    with outside.LimitsWatch("cgroupfs", "2", None, "team", root=tmp_path) as watch:
        watch._thread.join(5)
    assert asked == ["team"]
    assert watch.of(CONTAINER)["memory_bytes"] == MIB
