"""Limits are read from control groups of both versions, inside and outside a container."""

import resource

import pytest

from harness.measure.runtime import limits
from harness.measure.runtime.sandbox import Limits, differences

GIB = 1 << 30


@pytest.fixture
def tree(tmp_path, monkeypatch):
    def make(groups: dict[str, str], files: dict[str, str]):
        monkeypatch.setattr(limits, "own_groups", lambda: groups)
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return limits.read_limits(str(tmp_path))

    return make


def test_version_1_outside_a_container_takes_the_smallest_limit_on_the_way_up(tree):
    files = {
        "memory/a/b/memory.limit_in_bytes": "9223372036854771712",
        "memory/a/memory.limit_in_bytes": str(GIB),
        "memory/a/b/memory.memsw.limit_in_bytes": str(GIB),
        "memory/memory.limit_in_bytes": "9223372036854771712",
        "cpu/a/b/cpu.cfs_quota_us": "150000",
        "cpu/a/b/cpu.cfs_period_us": "100000",
        "memory/a/b/memory.max_usage_in_bytes": "77",
    }
    read = tree({"memory": "/a/b", "cpu": "/a/b"}, files)
    assert (read["memory_bytes"], read["memory_source"]) == (GIB, "cgroup v1")
    assert read["swap_bytes"] == 0
    assert read["cpu_quota"] == 1.5
    assert read["cgroup_peak_bytes"] == 77


def test_version_1_inside_a_container_the_mount_is_the_own_group(tree):
    read = tree({"memory": "/docker/xyz"}, {"memory/memory.limit_in_bytes": str(GIB)})
    assert read["memory_bytes"] == GIB


def test_version_2_reads_the_unified_files(tree):
    files = {
        "cgroup.controllers": "cpu memory",
        "memory.max": str(2 * GIB),
        "memory.swap.max": "0",
        "memory.peak": "99",
        "cpu.max": "50000 100000",
        "pids.max": "512",
    }
    read = tree({"": "/"}, files)
    assert (read["cgroup_version"], read["memory_bytes"], read["swap_bytes"]) == (2, 2 * GIB, 0)
    assert (read["cpu_quota"], read["pids"], read["cgroup_peak_bytes"]) == (0.5, 512, 99)


def test_no_limit_is_none_in_both_versions(tree):
    unlimited = resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY
    assert unlimited, "this test needs a shell without a data limit"
    read = tree({"": "/"}, {"cgroup.controllers": "memory", "memory.max": "max", "cpu.max": "max 100000"})
    assert read["memory_bytes"] is None
    assert read["cpu_quota"] is None


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"memory_bytes": None}, "memory: asked for 1.0 GiB, read back none"),
        ({"memory_bytes": 2 * GIB}, "memory: asked for 1.0 GiB, read back 2.0 GiB"),
        ({"cpuset": [0, 1, 2]}, "CPUs: asked for 2, read back CPU numbers [0, 1, 2]"),
        ({"cpus": 1.0}, "CPU time: asked for 2, read back 1.0"),
        ({"swap_bytes": GIB}, "swap: asked for none, read back 1.0 GiB on a machine with 2.0 GiB"),
        ({"swap_bytes": None}, "swap: asked for none, read back no limit on a machine with 2.0 GiB"),
        ({"network": ["eth0"]}, "network: asked for none, read back eth0"),
        ({"pids": None}, "processes: asked for 512 at most, read back no limit"),
        ({"root_writable": True}, "root file system: asked for read-only, read back writable"),
    ],
)
def test_every_difference_between_asked_and_read_is_found(change, word):
    read = {"memory_bytes": GIB, "memory_source": "cgroup v1", "cpuset": [0, 1], "cpus": 2.0, "network": []}
    read |= {"swap_bytes": 0, "machine_swap_bytes": 2 * GIB, "pids": 512, "root_writable": False}
    asked = Limits(GIB + 1, 2, 60)
    enforced = dict.fromkeys(("cpu_quota", "network", "swap", "pids", "read_only"), True)
    assert differences(asked, read, **enforced) == []
    found = differences(asked, {**read, **change}, **enforced)
    assert len(found) == 1
    assert found[0].startswith(word)


def test_swap_that_is_not_counted_is_none_on_a_machine_without_swap():
    read = {"memory_bytes": GIB, "cpuset": [0], "swap_bytes": None, "machine_swap_bytes": 0}
    assert differences(Limits(GIB, 1, 60), read, cpu_quota=False, network=True, swap=True) == []


def test_the_swap_of_the_machine_is_known():
    assert limits.read_limits()["machine_swap_bytes"] >= 0
