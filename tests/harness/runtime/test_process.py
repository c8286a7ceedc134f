"""The process sandbox: every way a run can end is a status with a reason, and nothing is left running."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from harness.measure.runtime.process import ProcessSandbox
from harness.measure.runtime.sandbox import Limits
from harness.measure.runtime.verdict import Ended, judge
from tests.harness.runtime.support import MIB, ROOMY, fake_bundle, make_case, measuring_process

FAKE = ProcessSandbox(worker="tests.harness.runtime.fake_worker")
SMALL = Limits(memory_bytes=512 * MIB, cpus=1, timeout_s=60)


def run(tmp_path: Path, mode: str, limits: Limits = ROOMY, **environment: str):
    return FAKE.run_case(
        fake_bundle(tmp_path / "b", mode, **environment), make_case(tmp_path), tmp_path / "out", limits
    )


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone_within(pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(alive(pid) for pid in pids)


def test_a_run_that_obeys_the_contract_is_ok_and_its_phases_sum_to_the_wall_time(tmp_path):
    outcome = run(tmp_path, "fine")
    assert (outcome.status, outcome.reason) == ("ok", None)
    assert sum(outcome.phases.values()) == pytest.approx(outcome.wall_s)
    assert {"start", "interpreter", "stop", "unaccounted"} <= set(outcome.phases)
    assert 10 * MIB < outcome.peak_memory_bytes < 512 * MIB


@pytest.mark.parametrize(
    ("mode", "status", "reason"),
    [
        ("crash", "crashed", "exit status 3: the reason stands here"),
        ("signal", "crashed", "killed by SIGSEGV"),
        ("killed", "crashed", "killed by SIGKILL"),
        ("missing", "invalid-output", "2DBox_US_0001.npz is missing"),
        ("shape", "invalid-output", "shape (39, 60), the case needs (40, 60)"),
        ("dtype", "invalid-output", "dtype float32"),
        ("label", "invalid-output", "labels 9..9, the case has 2 boxes"),
        ("limit", "crashed", "limit not in force: memory: asked for 2.0 GiB, read back 1.0 TiB"),
    ],
)
def test_a_misbehaving_program_gets_a_status_and_a_reason(tmp_path, mode, status, reason):
    outcome = run(tmp_path, mode)
    assert outcome.status == status
    assert reason in outcome.reason


def test_a_program_that_wants_more_memory_than_its_limit_ends_as_oom(tmp_path):
    outcome = run(tmp_path, "memory", SMALL)
    assert outcome.status == "oom"
    assert str(SMALL.memory_bytes) in outcome.reason
    assert outcome.limits_read["memory_bytes"] == SMALL.memory_bytes


def test_a_program_that_takes_too_long_is_killed_with_everything_it_started(tmp_path):
    pids = tmp_path / "pids"
    outcome = run(tmp_path, "hang", Limits(1024 * MIB, 1, timeout_s=1.0), PIDS=str(pids))
    assert outcome.status == "timeout"
    assert outcome.wall_s == pytest.approx(1.0, abs=0.5)
    assert gone_within([int(pid) for pid in pids.read_text().split()], 5)


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal of a parent is Linux's")
def test_the_program_dies_with_the_measuring_process(tmp_path):
    pids = tmp_path / "pids"
    parent = measuring_process(tmp_path, __name__, pids)
    worker = int(pids.read_text().split()[0])
    assert alive(worker)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    try:
        assert gone_within([worker], 5)
    finally:
        os.kill(int(pids.read_text().split()[1]), signal.SIGKILL)


def test_the_peak_memory_is_that_of_the_program_and_not_of_the_process_that_started_it(tmp_path):
    ballast = bytearray(os.urandom(1 << 20)) * 400
    outcome = run(tmp_path, "fine")
    assert outcome.peak_memory_bytes < len(ballast)


def test_limits_are_read_back_and_what_is_not_enforced_is_said(tmp_path):
    outcome = run(tmp_path, "fine", Limits(1024 * MIB, 0.5, 60))
    assert outcome.limits_read["memory_bytes"] == 1024 * MIB
    assert len(outcome.limits_read["cpuset"]) == 1
    said = " ".join(outcome.detail["not_enforced"])
    assert "network" in said
    assert "fraction of 0.5" in said


def test_more_cpus_than_there_are_are_refused_and_not_lowered():
    refusal = FAKE.refuses(Limits(1024 * MIB, 4096, 60))
    assert refusal.startswith("4096 CPUs asked for, but this process has ")


def test_the_challenge_protocol_is_refused_because_it_is_a_docker_command():
    assert "sandbox: docker" in ProcessSandbox("cvpr24").refuses(ROOMY)


@pytest.mark.parametrize(
    ("told", "stderr", "status"),
    [
        ({"status": "invalid-output", "reason": "logits that are not finite"}, "", "invalid-output"),
        ({"status": "oom", "reason": "its arrays need more"}, "", "oom"),
        ({}, "RuntimeError: [enforce fail] can't allocate memory", "oom"),
        ({"status": "crashed", "reason": "no"}, "Killed", "crashed"),
    ],
)
def test_what_the_program_tells_about_its_failure_decides_the_status(tmp_path, told, stderr, status):
    case = tmp_path / "2DBox_US_0001.npz"
    found, reason = judge(Ended(1, stderr), {"cases": {case.stem: told}}, case, tmp_path, SMALL)
    assert found == status
    assert told.get("reason", "can't allocate") in reason
