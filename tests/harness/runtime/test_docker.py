"""The docker sandbox on a real engine: limits hold, every ending is a status, and the next case still runs."""

import contextlib
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from harness.errors import BenchError, UnavailableError
from harness.measure.runtime import docker, dockercli, groups, images, job
from harness.measure.runtime.bundle import Bundle, make_bundle
from harness.measure.runtime.sandbox import Limits, open_sandbox
from tests.harness.runtime.support import (
    MIB,
    PlainContext,
    make_case,
    make_large_volume,
    need_engine,
    runtime_job,
)

pytestmark = pytest.mark.docker
NARROW = Limits(memory_bytes=96 * MIB, cpus=1, timeout_s=120)


@pytest.fixture(scope="module", autouse=True)
def engine():
    need_engine()


@pytest.fixture
def opened(tmp_path):
    """A prepared sandbox and the bundle it was prepared for: ``opened(variant, protocol)``."""
    used = []

    def make(variant: str = "dummy", protocol: str = "strict"):
        bundle = make_bundle(runtime_job(tmp_path, variant), PlainContext(tmp_path / variant))
        sandbox = open_sandbox("docker", protocol)
        used.append(sandbox)
        sandbox.prepare(bundle, lambda _: None)
        return sandbox, bundle

    yield make
    for sandbox in used:
        sandbox.cleanup()


def labels_of(folder: Path, case: Path) -> np.ndarray:
    with np.load(folder / case.name, allow_pickle=False) as arrays:
        return arrays["segs"]


def containers() -> list[str]:
    owner = f"label={dockercli.OWNER}={dockercli.owner_labels()[dockercli.OWNER]}"
    return dockercli.call(["docker", "ps", "--all", "--quiet", "--filter", owner]).stdout.split()


def test_the_limits_read_back_inside_are_those_asked_for(opened, tmp_path):
    sandbox, bundle = opened()
    outcome = sandbox.run_case(bundle, make_case(tmp_path), tmp_path / "out", Limits(256 * MIB, 0.5, 120))
    assert (outcome.status, outcome.reason) == ("ok", None)
    read = outcome.limits_read
    assert (read["memory_bytes"], read["swap_bytes"]) == (256 * MIB, 0)
    assert (read["cpus"], read["cpu_quota"], len(read["cpuset"])) == (0.5, 0.5, 1)
    assert read["pids"] == 512
    assert outcome.detail["not_enforced"] == []


def test_inside_there_is_no_network_no_root_and_no_writable_root_file_system(opened, tmp_path):
    sandbox, bundle = opened()
    read = sandbox.run_case(bundle, make_case(tmp_path), tmp_path / "out", NARROW).limits_read
    assert read["network"] == []
    assert read["uid"] != 0
    assert read["root_writable"] is False


def test_a_case_that_needs_more_than_the_limit_ends_as_oom_and_the_next_one_is_ok(opened, tmp_path):
    sandbox, bundle = opened()
    large = sandbox.run_case(bundle, make_large_volume(tmp_path, 200), tmp_path / "large", NARROW)
    assert large.status == "oom"
    assert large.limits_read["memory_bytes"] == NARROW.memory_bytes
    after = sandbox.run_case(bundle, make_case(tmp_path), tmp_path / "small", NARROW)
    assert (after.status, after.reason) == ("ok", None)
    sandbox.cleanup()
    assert containers() == []


def test_the_groups_of_a_run_are_gone_at_its_end_although_its_container_is_removed_later(opened, tmp_path):
    sandbox, bundle = opened()
    sandbox.run_case(bundle, make_case(tmp_path), tmp_path / "out", NARROW)
    assert list(groups._folders(f"{groups.PREFIX}{os.getpid()}n*", groups.ROOT)) == []
    assert len(containers()) == 1
    sandbox.cleanup()
    assert containers() == []


def test_the_peak_memory_covers_the_whole_run(opened, tmp_path):
    sandbox, bundle = opened()
    roomy = Limits(1024 * MIB, 1, 120)
    small = sandbox.run_case(bundle, make_case(tmp_path), tmp_path / "small", roomy)
    large = sandbox.run_case(bundle, make_large_volume(tmp_path, 200), tmp_path / "large", roomy)
    assert 10 * MIB < small.peak_memory_bytes < 150 * MIB
    assert 200 * MIB < large.peak_memory_bytes <= 1024 * MIB


def test_a_case_that_takes_too_long_is_a_timeout_and_leaves_no_container(opened, tmp_path):
    sandbox, bundle = opened()
    large = make_large_volume(tmp_path, 400)
    outcome = sandbox.run_case(bundle, large, tmp_path / "out", Limits(2048 * MIB, 0.1, timeout_s=2.0))
    assert (outcome.status, outcome.reason) == ("timeout", "not finished after 2 s")
    assert containers() == []


def test_a_torch_variant_gives_the_same_masks_in_the_container_and_in_a_process(opened, tmp_path):
    sandbox, bundle = opened("litemedsam_tiny")
    case, limits = make_case(tmp_path), Limits(4096 * MIB, 1, 300)
    contained = sandbox.run_case(bundle, case, tmp_path / "docker", limits)
    plain = open_sandbox("process").run_case(bundle, case, tmp_path / "process", limits)
    assert (contained.status, contained.reason, plain.status) == ("ok", None, "ok")
    assert contained.detail["versions"] == plain.detail["versions"]
    assert np.array_equal(labels_of(tmp_path / "docker", case), labels_of(tmp_path / "process", case))


def test_the_challenge_command_runs_the_same_image_as_a_submission(opened, tmp_path):
    sandbox, bundle = opened(protocol="cvpr24")
    outcome = sandbox.run_case(bundle, make_case(tmp_path), tmp_path / "out", Limits(8 << 30, 2, 120))
    assert (outcome.status, outcome.reason) == ("ok", None)
    assert outcome.limits_read["memory_bytes"] == 8 << 30
    assert {"start", "interpreter", "imports", "exit", "stop"} <= set(outcome.phases)
    assert outcome.phases["start"] > 0
    assert any(text.startswith("CPUs") for text in outcome.detail["not_enforced"])
    name = sandbox._image
    sandbox.cleanup()
    assert not dockercli.call(["docker", "image", "inspect", f"{name}:latest"]).ok


def test_the_challenge_command_out_of_memory_ends_as_oom(opened, tmp_path):
    sandbox, bundle = opened(protocol="cvpr24")
    beyond_memory_and_swap = make_large_volume(tmp_path, 400)
    outcome = sandbox.run_case(bundle, beyond_memory_and_swap, tmp_path / "out", NARROW)
    assert outcome.status == "oom"


def test_a_crash_in_the_container_has_the_last_line_of_standard_error(opened, tmp_path):
    sandbox, bundle = opened()
    (tmp_path / "torn").mkdir()
    torn = Bundle(tmp_path / "torn", bundle.description, "0")
    (torn.folder / "environment").write_text("echo 'no model here' >&2; exit 4\n")
    outcome = sandbox.run_case(torn, make_case(tmp_path), tmp_path / "out", NARROW)
    assert (outcome.status, outcome.reason) == ("crashed", "exit status 4: no model here")


def test_containers_of_killed_runs_are_removed_and_those_of_living_ones_stay():
    ended = subprocess.Popen(["true"])
    ended.wait()
    names = {"dead": f"{ended.pid}:1", "living": dockercli.owner_labels()[dockercli.OWNER]}
    for name, owner in names.items():
        labels = [
            "--label",
            f"{dockercli.OWNER}={owner}",
            "--label",
            f"{dockercli.HOST}={dockercli.owner_labels()[dockercli.HOST]}",
        ]
        made = dockercli.call(
            ["docker", "create", "--name", f"stale-test-{name}", *labels, images.base_image(), "true"]
        )
        assert made.ok, made.stderr
    try:
        dockercli.remove_stale()
        assert not dockercli.call(["docker", "inspect", "stale-test-dead"]).ok
        assert dockercli.call(["docker", "inspect", "stale-test-living"]).ok
    finally:
        dockercli.call(["docker", "rm", "--force", "stale-test-dead", "stale-test-living"])


def test_a_job_in_containers_end_to_end(tmp_path):
    cases = tmp_path / "cases"
    cases.mkdir()
    make_case(cases)
    context = PlainContext(tmp_path)
    job.run(runtime_job(cases, sandbox="docker", memory="128MiB"), context)
    assert [(row.status, row.reason) for row in context.rows("wall")] == [("ok", None)]
    assert context.rows("memory_limit")[0].value == 128 * MIB
    assert context.rows("cpu_limit")[0].value == 1.0
    phases = {row.phase: row.value for row in context.rows("phase")}
    assert sum(phases.values()) == pytest.approx(context.rows("wall")[0].value)


def test_an_engine_that_is_not_there_is_one_sentence_that_names_the_place(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    said = open_sandbox("docker").unavailable()
    assert "no Docker engine answers at unix:///nonexistent/docker.sock" in said
    assert "start-docker.sh" in said


def test_a_missing_base_image_is_one_sentence_with_the_remedy(opened, monkeypatch):
    monkeypatch.setenv(images.BASE_VARIABLE, "medsam-bench-no-such-image:1")
    with pytest.raises(BenchError, match=r"the base image medsam-bench-no-such-image:1 is not here and could not be"):
        opened()


class Line:
    """A line to the engine that can be cut while a container runs; what docker sees is an engine that dies."""

    def __init__(self, path: Path, engine: str) -> None:
        self.path, self.engine = path, engine
        self.ends: list[socket.socket] = []
        self.restore()

    def restore(self) -> None:
        self.path.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def cut(self) -> None:
        for end in [self.listener, *self.ends]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.ends.clear()
        self.path.unlink(missing_ok=True)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # cut
            while True:
                ours, theirs = listener.accept()[0], socket.socket(socket.AF_UNIX)
                theirs.connect(self.engine)
                self.ends += [ours, theirs]
                for one, other in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)


@pytest.fixture
def line(tmp_path_factory, monkeypatch):
    """The line that the tests below use and cut."""
    engine = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    assert engine.startswith("unix://"), f"the engine at {engine} is not behind a socket that a test can stand before"
    made = Line(tmp_path_factory.mktemp("line") / "docker.sock", engine.removeprefix("unix://"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{made.path}")
    yield made
    made.cut()
    monkeypatch.setenv("DOCKER_HOST", engine)
    dockercli.remove_own()  # what no call could remove while the line was cut
    groups.remove_kept()
    assert not list(groups.ROOT.glob(f"*/{groups.PREFIX}{os.getpid()}n*")), "a group was lost with the line"


def cut_once(line: Line, monkeypatch, *, back: bool) -> list[str]:
    """Cut the line a second after the second container was asked for; ``back``: restore it two seconds later."""
    started: list[str] = []
    plain = docker._run

    def cut() -> None:
        line.cut()
        if back:
            time.sleep(2.0)  # as long as an engine takes to start again
            line.restore()

    def run(name, argv, limits):
        started.append(name)
        if len(started) == 2:
            threading.Timer(1.0, cut).start()
        return plain(name, argv, limits)

    monkeypatch.setattr(docker, "_run", run)
    return started


def slow_cases(tmp_path: Path) -> Path:
    folder = tmp_path / "cases"
    folder.mkdir()
    for number in (1, 2):
        make_large_volume(folder, 300, f"3DBox_CT_000{number}")
    return folder


SLOW = {"sandbox": "docker", "memory": "1500MiB", "cpus": 0.2}
"""A case takes seconds, so that the line is cut while its container runs."""


def test_an_engine_that_dies_in_the_middle_and_comes_back_costs_that_run_and_no_other(tmp_path, line, monkeypatch):
    cut_once(line, monkeypatch, back=True)
    context = PlainContext(tmp_path)
    job.run(runtime_job(slow_cases(tmp_path), **SLOW), context)
    assert sorted((row.status, row.reason) for row in context.rows("wall")) == [
        ("crashed", docker.ENGINE_GONE),
        ("ok", None),
    ]


def test_an_engine_that_dies_in_the_middle_and_stays_away_is_told_and_no_case_is_blamed(tmp_path, line, monkeypatch):
    monkeypatch.setattr(dockercli, "BACK_S", 1.0)
    cut_once(line, monkeypatch, back=False)
    context = PlainContext(tmp_path)
    with pytest.raises(UnavailableError, match=f"{docker.ENGINE_GONE}: no Docker engine answers at"):
        job.run(runtime_job(slow_cases(tmp_path), **SLOW), context)
    assert not context.journal


def test_an_image_that_is_there_is_not_built_again(opened, monkeypatch):
    sandbox, bundle = opened()

    def refuse(*_):
        raise AssertionError("built again")

    monkeypatch.setattr(images, "_build", refuse)
    images._READY.clear()
    sandbox.prepare(bundle, lambda _: None)
    monkeypatch.setattr(images, "image_tag", refuse)
    sandbox.prepare(bundle, lambda _: None)  # within a minute the sources are not read again either
