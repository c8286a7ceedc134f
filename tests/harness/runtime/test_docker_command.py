"""What is said to docker, and how its answers are read: no engine needed."""

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.errors import UnavailableError
from harness.measure.runtime import dockercli, engine, groups
from harness.measure.runtime.docker import ENGINE_GONE, DockerSandbox, _moment
from harness.measure.runtime.dockercli import Answer, Mounts, StrictOptions, cvpr24_argv, is_stale, strict_argv
from harness.measure.runtime.engine import Engine
from harness.measure.runtime.groups import ParentGroup
from harness.measure.runtime.sandbox import Limits, open_sandbox
from tests.harness.runtime.support import MIB, fake_bundle, make_case

MOUNTS = Mounts(Path("/d/in"), Path("/d/out"), Path("/d/bundle"))
LIMITS = Limits(8 << 30, 2, 600)
ENGINE = Engine(cpus=2, driver="cgroupfs", cgroup="1", version="20.10")


def value(argv: list[str], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def test_the_challenge_command_is_the_challenges_and_nothing_else():
    assert " ".join(cvpr24_argv("team", MOUNTS, LIMITS)) == (
        "docker container run -m 8G --name team --rm -v /d/in/:/workspace/inputs/ -v /d/out/:/workspace/outputs/ "
        "team:latest /bin/bash -c sh predict.sh"
    )
    assert cvpr24_argv("team", MOUNTS, LIMITS)[-1] == "sh predict.sh"
    assert "500000000b" in cvpr24_argv("team", MOUNTS, Limits(500_000_000, 2, 600))


def test_the_strict_command_sets_every_limit():
    options = StrictOptions((0, 1), user="7:8", parent="/above", labels={"a": "b"})
    argv = strict_argv("n", "image:1", MOUNTS, LIMITS, options)
    assert value(argv, "--memory") == value(argv, "--memory-swap") == f"{8 << 30}b"
    assert (value(argv, "--cpus"), value(argv, "--cpuset-cpus")) == ("2", "0,1")
    assert (value(argv, "--network"), value(argv, "--cap-drop")) == ("none", "ALL")
    assert (value(argv, "--user"), value(argv, "--cgroup-parent")) == ("7:8", "/above")
    assert value(argv, "--security-opt") == "no-new-privileges"
    assert {"--init", "--read-only"} <= set(argv)
    assert "--rm" not in argv
    assert "type=bind,source=/d/in,target=/workspace/inputs,readonly" in argv
    assert "type=bind,source=/d/bundle,target=/workspace/bundle,readonly" in argv
    assert "type=bind,source=/d/out,target=/workspace/outputs" in argv
    assert argv[-3:] == ["image:1", "sh", "predict.sh"]


def test_a_folder_with_a_comma_is_quoted_for_the_mount():
    argv = strict_argv("n", "i", Mounts(Path("/a,b"), Path("/o")), LIMITS, StrictOptions((0,)))
    assert 'type=bind,"source=/a,b",target=/workspace/inputs,readonly' in argv


def test_an_owner_is_stale_when_its_process_has_ended_or_its_id_belongs_to_another():
    here = socket.gethostname()
    mine = dockercli.owner_labels()[dockercli.OWNER]
    assert not is_stale(mine, here)
    assert is_stale(f"{os.getpid()}:1", here)
    assert is_stale("4194305:1", here)
    assert not is_stale("4194305:1", "another-machine")


def test_the_engines_time_stamps_are_read_to_the_microsecond_and_never_is_none():
    assert _moment("2026-01-02T03:04:05.123456789Z") == pytest.approx(1767323045.123456)
    assert _moment("0001-01-01T00:00:00Z") is None


def test_the_parent_group_is_a_slice_under_systemd_and_a_path_under_cgroupfs(tmp_path):
    assert ParentGroup(3, "cgroupfs", "1").argument == f"/medsambench{os.getpid()}n3"
    assert ParentGroup(3, "systemd", "2").argument == f"medsambench{os.getpid()}n3.slice"


@pytest.mark.parametrize(("version", "file"), [("1", "memory.max_usage_in_bytes"), ("2", "memory.peak")])
def test_the_peak_is_read_from_the_parent_group_in_both_versions(tmp_path, version, file):
    parent = ParentGroup(0, "cgroupfs", version, root=tmp_path)
    folder = (tmp_path / "memory" if version == "1" else tmp_path) / parent.argument.lstrip("/")
    assert parent.peak()[0] is None
    folder.mkdir(parents=True)
    (folder / file).write_text("12345\n")
    (folder / "memory.use_hierarchy").write_text("1\n")
    assert parent.peak()[0] == 12345


def test_groups_of_ended_processes_are_removed_and_those_of_living_ones_stay(tmp_path):
    dead, living = tmp_path / "cpu" / "medsambench4194305n0", tmp_path / "cpu" / f"medsambench{os.getppid()}n0"
    dead.mkdir(parents=True)
    living.mkdir()
    groups.remove_stale(tmp_path)
    assert not dead.exists()
    assert living.exists()


def test_more_cpus_than_the_engine_has_are_refused_and_not_lowered():
    sandbox = DockerSandbox()
    sandbox._engine = ENGINE
    assert sandbox.refuses(Limits(MIB, 2, 1)) is None
    assert "3 CPUs asked for, but the Docker engine's machine has 2" in sandbox.refuses(Limits(MIB, 3, 1))


def test_a_missing_engine_is_one_sentence_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "docker is not installed; `.ci/start-docker.sh`" in open_sandbox("docker").unavailable()


class FakeDocker:
    """A ``docker`` that answers with prepared texts: a dictionary from the first words to [exit, stdout, stderr]."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.answers: dict[str, tuple[int, str, str]] = {}
        self.calls: list[str] = []
        monkeypatch.setenv("DOCKER_HOST", "tcp://engine.test:2375")  # no socket: everything is said to the command
        engine.facts_at.cache_clear()
        for module in ("dockercli", "docker", "engine"):
            monkeypatch.setattr(f"harness.measure.runtime.{module}.call", self)

    def __call__(self, argv, timeout_s=0.0):
        self.calls.append(" ".join(argv[1:3]))
        for words, (code, out, err) in self.answers.items():
            if " ".join(argv[1:]).startswith(words):
                return Answer(code, out, err)
        return Answer(0, "", "")


@pytest.fixture
def docker(tmp_path, monkeypatch):
    return FakeDocker(tmp_path, monkeypatch)


def run(tmp_path: Path, sandbox: DockerSandbox):
    sandbox._engine = ENGINE
    bundle = fake_bundle(tmp_path / "b", "fine") if not (tmp_path / "b").exists() else tmp_path / "b"
    bundle = bundle if not isinstance(bundle, Path) else fake_bundle(tmp_path / "c", "fine")
    return sandbox.run_case(bundle, make_case(tmp_path), tmp_path / "out", LIMITS)


GONE = (1, "", "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?")
CUT_OFF = (125, "", "docker: unexpected EOF")


def ended(code: int, oom: bool = False) -> tuple[int, str, str]:
    """What ``docker inspect`` says of a container that has run."""
    return described("2026-01-02T03:04:05Z", "2026-01-02T03:04:06Z", code, oom)


def described(started: str, finished: str, code: int, oom: bool = False) -> tuple[int, str, str]:
    state = {"StartedAt": started, "FinishedAt": finished, "OOMKilled": oom, "ExitCode": code}
    return 0, json.dumps({"Id": "c" * 64, "State": state}), ""


NEVER = "0001-01-01T00:00:00Z"


def test_an_engine_that_is_gone_and_stays_away_is_unavailable_and_no_fault_of_the_case(tmp_path, docker, monkeypatch):
    monkeypatch.setattr(dockercli, "BACK_S", 0.0)
    docker.answers = {"run": CUT_OFF, "version": GONE, "inspect": GONE, "rm": GONE}
    with pytest.raises(UnavailableError, match=ENGINE_GONE):
        run(tmp_path, DockerSandbox())


def test_an_engine_that_is_back_within_seconds_is_waited_for_and_what_it_left_is_removed(tmp_path, docker):
    docker.answers = {"run": CUT_OFF, "inspect": GONE, "version": GONE, "ps": (0, "abc", "")}
    threading.Timer(0.2, docker.answers.pop, ("version",)).start()
    outcome = run(tmp_path, DockerSandbox())
    assert (outcome.status, outcome.reason) == ("crashed", ENGINE_GONE)
    assert docker.calls[-2:] == ["ps --all", "rm --force"]


def test_an_engine_that_is_back_at_once_costs_the_interrupted_case_alone(tmp_path, docker):
    sandbox = DockerSandbox()
    docker.answers = {"run": CUT_OFF, "inspect": ended(137)}
    first = run(tmp_path, sandbox)
    assert (first.status, first.reason) == ("crashed", ENGINE_GONE)
    docker.answers = {"run": (137, "", ""), "inspect": ended(137, oom=True)}
    back = sandbox.run_case(fake_bundle(tmp_path / "e", "fine"), make_case(tmp_path), tmp_path / "out", LIMITS)
    assert back.status == "oom"


def test_a_program_that_speaks_of_a_refused_connection_has_not_lost_the_engine(tmp_path, docker):
    docker.answers = {"run": (1, "", "OSError: connection refused"), "inspect": ended(1)}
    outcome = run(tmp_path, DockerSandbox())
    assert (outcome.status, outcome.reason) == ("crashed", "exit status 1: OSError: connection refused")


def test_an_engine_that_does_not_describe_itself_is_unavailable(docker):
    docker.answers = {"info": (1, "0|||", "Cannot connect to the Docker daemon")}
    with pytest.raises(UnavailableError, match="Cannot connect to the Docker daemon"):
        DockerSandbox().refuses(LIMITS)


@pytest.mark.parametrize("code", [125, 126, 127])
def test_only_docker_itself_can_fail_to_start_a_container(tmp_path, docker, code):
    docker.answers = {"run": (code, "", "docker: no"), "inspect": described(NEVER, NEVER, code)}
    assert run(tmp_path, DockerSandbox()).reason == "docker could not start the container: no"


def test_a_program_whose_end_the_engine_did_not_note_is_judged_by_its_exit_status(tmp_path, docker):
    docker.answers = {"run": (3, "", "the reason"), "inspect": (1, "", "Error: No such object")}
    outcome = run(tmp_path, DockerSandbox())
    assert (outcome.status, outcome.reason) == ("crashed", "exit status 3: the reason")


def test_a_container_that_cannot_be_started_says_what_docker_said(tmp_path, docker):
    refused = "docker: Error response from daemon: range of CPUs is from 0.01 to 2.00.\nSee 'docker run --help'."
    docker.answers = {"run": (125, "", refused), "inspect": described(NEVER, NEVER, 0)}
    outcome = run(tmp_path, DockerSandbox())
    assert outcome.status == "crashed"
    assert outcome.reason.startswith("docker could not start the container: Error response from daemon: range of CPUs")
    assert "rm --force" in docker.calls


def test_containers_that_have_ended_are_removed_together_and_in_doubt_at_once(tmp_path, docker):
    sandbox = DockerSandbox()
    sandbox._engine = ENGINE
    bundle, case = fake_bundle(tmp_path / "b", "fine"), make_case(tmp_path)
    docker.answers = {"run": (3, "", "no"), "inspect": ended(3)}
    for _ in range(9):
        sandbox.run_case(bundle, case, tmp_path / "out", LIMITS)
    assert "rm --force" not in docker.calls
    sandbox.run_case(bundle, case, tmp_path / "out", LIMITS)
    assert docker.calls.count("rm --force") == 1
    docker.answers["inspect"] = GONE
    sandbox.run_case(bundle, case, tmp_path / "out", LIMITS)
    assert docker.calls.count("rm --force") == 2


def test_the_challenges_container_removes_itself_and_is_removed_by_us_in_doubt_alone(tmp_path, docker):
    sandbox = DockerSandbox("cvpr24")
    start = {"Action": "start", "timeNano": 1, "Actor": {"ID": "c" * 64}}
    die = {"Action": "die", "timeNano": 2, "Actor": {"ID": "c" * 64, "Attributes": {"exitCode": "3"}}}
    docker.answers = {"container run": (3, "", "no"), "events": (0, f"{json.dumps(start)}\n{json.dumps(die)}\n", "")}
    assert run(tmp_path, sandbox).reason == "exit status 3: no"
    assert "rm --force" not in docker.calls
    docker.answers["events"] = GONE
    run(tmp_path, sandbox)
    assert "rm --force" in docker.calls


def test_whether_an_engine_answers_is_asked_once_for_jobs_that_are_prepared_together(docker, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: "/bin/docker")
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    engine._why_unavailable.cache_clear()
    assert [DockerSandbox().unavailable() for _ in range(3)] == [None] * 3
    assert docker.calls.count("version --format") == 1
    monkeypatch.setattr("time.monotonic", lambda: 103.0)
    docker.answers = {"version": GONE}
    assert "no Docker engine answers at tcp://engine.test:2375" in DockerSandbox().unavailable()


def test_ctrl_c_does_not_reach_the_command_line_and_a_call_that_takes_too_long_is_killed():
    mine = dockercli.call([sys.executable, "-c", "import os; print(os.getpid() == os.getsid(0))"])
    assert mine.stdout.strip() == "True"
    begun = time.monotonic()
    late = dockercli.call(["sh", "-c", "echo $$ >&2; exec sleep 30"], timeout_s=0.3)
    assert late.timed_out
    assert time.monotonic() - begun < 10
    assert not Path(f"/proc/{int(late.stderr)}").exists()


class EngineSocket:
    """A socket that answers every request with one text."""

    def __init__(self, path: Path, answer: bytes) -> None:
        self.asked: list[str] = []
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            line = self._listener.accept()[0]
            self.asked.append(line.recv(1 << 16).split()[1].decode())
            line.sendall(self._answer)
            line.close()


def test_the_engine_is_asked_over_its_socket_and_says_what_the_command_line_says(tmp_path, docker, monkeypatch):
    text = b'{"Id": "c"}'
    place = EngineSocket(tmp_path / "s", b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/s")
    assert engine.container("a b") == Answer(0, '{"Id": "c"}', "")
    assert engine.events("n", 1.0, 2.0).ok
    assert place.asked[0] == "/containers/a%20b/json"
    assert place.asked[1].startswith("/events?since=1.000&until=2.000&filters=")
    assert docker.calls == []


def test_a_container_that_the_engine_does_not_know_is_an_answer_and_not_a_reason_to_ask_again(
    tmp_path, docker, monkeypatch
):
    EngineSocket(tmp_path / "s", b'HTTP/1.1 404 No\r\n\r\n{"message": "No such container: n"}')
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/s")
    said = engine.container("n")
    assert (said.ok, said.unreachable, said.stderr) == (
        False,
        False,
        "Error response from daemon: No such container: n",
    )
    assert docker.calls == []


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b"SSH-2.0\r\n"])
def test_where_the_socket_breaks_off_the_command_line_is_asked(tmp_path, docker, monkeypatch, answer):
    EngineSocket(tmp_path / "s", answer)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/s")
    docker.answers = {"inspect": GONE}
    assert engine.container("n").unreachable
    assert docker.calls == ["inspect --type"]


def test_the_socket_is_the_command_lines_own_and_none_where_that_uses_another_context(tmp_path, monkeypatch):
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert engine.socket_path() == engine.USUAL_SOCKET
    (tmp_path / "config.json").write_text('{"currentContext": "rootless"}')
    assert engine.socket_path() is None
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert engine.socket_path() == engine.USUAL_SOCKET
    monkeypatch.setenv("DOCKER_HOST", "ssh://elsewhere")
    assert engine.socket_path() is None
