"""Images that are not ours: told apart by content, their limits read from outside, what they leave behind named."""

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from harness.commands.runtime import Asked, remarks, suite_of
from harness.config import ImageRef
from harness.errors import BenchError
from harness.measure.runtime import engine, foreign
from harness.measure.runtime.bundle import make_bundle
from harness.measure.runtime.docker import DockerSandbox
from harness.measure.runtime.dockercli import Answer, Mounts, StrictOptions, strict_argv
from harness.measure.runtime.engine import Engine
from harness.measure.runtime.sandbox import Limits
from harness.plan import make_plan
from harness.results import Results
from harness.schema import Record
from harness.suite import Suite
from harness.suitefile import InvalidSuite, read_suite
from tests.harness.runtime.support import MIB, PlainContext, make_case, runtime_job

DIGEST = "1bd56a21dbda55c8e37abc98ca03c9a7f3d3a6353eef4a2e0e97cce9b2ebc276"
IMAGE = f"sha256:{DIGEST}"
CONTAINER = "c" * 64
LIMITS = Limits(512 * MIB, 2, 60)


def archive(path: Path, manifest: object, mode: str = "w") -> Path:
    """A tar that holds ``manifest.json`` behind a layer."""
    with tarfile.open(path, mode) as out:
        for name, data in (("layer/data", b"x" * 100), ("manifest.json", json.dumps(manifest).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    return path


class FakeDocker:
    """A ``docker`` that answers with prepared texts, the longest beginning of the command first."""

    def __init__(self, monkeypatch) -> None:
        self.answers: dict[str, tuple[int, str, str]] = {}
        self.calls: list[list[str]] = []
        monkeypatch.setenv("DOCKER_HOST", "tcp://engine.test:2375")  # no socket: everything is said to the command
        monkeypatch.setattr(foreign, "_LOADED", {})
        engine.facts_at.cache_clear()
        for module in ("dockercli", "docker", "foreign", "engine"):
            monkeypatch.setattr(f"harness.measure.runtime.{module}.call", self)

    def __call__(self, argv, timeout_s=0.0):
        self.calls.append(list(argv))
        said = " ".join(argv[1:])
        found = max((words for words in self.answers if said.startswith(words)), key=len, default=None)
        return Answer(*self.answers[found]) if found is not None else Answer(0, "", "")

    def said(self, words: str) -> list[list[str]]:
        return [argv for argv in self.calls if " ".join(argv[1:]).startswith(words)]


@pytest.fixture
def docker(monkeypatch):
    return FakeDocker(monkeypatch)


def inspected(code: int = 0) -> dict[str, tuple[int, str, str]]:
    """What the engine says of a container that ran with ``LIMITS``."""
    moments = {"StartedAt": "2026-01-02T03:04:05Z", "FinishedAt": "2026-01-02T03:04:06Z"}
    state = {**moments, "OOMKilled": False, "ExitCode": code}
    host = {
        "Memory": LIMITS.memory_bytes,
        "MemorySwap": LIMITS.memory_bytes,
        "NanoCpus": 2 * 10**9,
        "CpusetCpus": "0,1",
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "PidsLimit": 512,
    }
    return {
        "inspect --type container": (0, json.dumps({"Id": CONTAINER, "State": state, "HostConfig": host}), ""),
        "image inspect": (0, f"{IMAGE}\n", ""),
    }


def prepared(tmp_path: Path, docker: FakeDocker, **settings) -> tuple[DockerSandbox, object]:
    """A sandbox prepared for an image, and its bundle."""
    docker.answers |= inspected()
    spec = runtime_job(tmp_path, sandbox="docker").model_copy(
        update={"image": ImageRef(source="team:1", **settings), "inputs": {"image": IMAGE}, "deployment": None}
    )
    sandbox = DockerSandbox()
    sandbox._engine = Engine(cpus=2, driver="cgroupfs", cgroup="1", version="20.10")
    bundle = make_bundle(spec, PlainContext(tmp_path / "job"))
    sandbox.prepare(bundle, lambda _: None)
    return sandbox, bundle


# which image it is


@pytest.mark.parametrize("config", [f"{DIGEST}.json", f"blobs/sha256/{DIGEST}"])
def test_the_id_of_a_tar_is_read_from_its_manifest_without_loading_it(tmp_path, docker, config):
    path = archive(tmp_path / "team.tar", [{"Config": config, "RepoTags": ["team:1"], "Layers": []}])
    assert foreign.identify(str(path)) == IMAGE
    assert docker.calls == []


def test_a_compressed_tar_is_read_as_well(tmp_path):
    path = archive(tmp_path / "team.tar.gz", [{"Config": f"{DIGEST}.json"}], "w:gz")
    assert foreign.identify(str(path)) == IMAGE


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ([{"Config": f"{DIGEST}.json"}] * 2, "holds 2 images"),
        ([{"Config": "../../etc/passwd"}], "names no image"),
        ({"Config": f"{DIGEST}.json"}, "is not an archive of `docker save`"),
    ],
)
def test_a_tar_that_is_not_one_saved_image_is_one_sentence(tmp_path, manifest, said):
    with pytest.raises(BenchError, match=said):
        foreign.identify(str(archive(tmp_path / "team.tar", manifest)))


def test_a_file_that_is_no_tar_and_one_that_is_not_there_are_one_sentence(tmp_path):
    (tmp_path / "text.tar").write_text("no tar")
    with pytest.raises(BenchError, match=r"text\.tar: is not an archive of `docker save`"):
        foreign.identify(str(tmp_path / "text.tar"))
    with pytest.raises(BenchError, match=r"gone\.tar: no such file"):
        foreign.identify(str(tmp_path / "gone.tar"))


def test_an_image_that_is_not_here_is_one_sentence_with_the_remedy(docker):
    docker.answers = {"image inspect": (1, "", "No such image")}
    with pytest.raises(BenchError, match=r"there is no image team:9 on this machine.*`docker pull`"):
        foreign.identify("team:9")


def test_without_an_engine_the_id_is_unknown_and_the_job_can_still_be_planned(docker):
    docker.answers = {"": (1, "", "Cannot connect to the Docker daemon")}
    assert foreign.identify("team:1") == foreign.UNKNOWN


def test_tables_call_an_image_by_its_last_name():
    assert foreign.short_name("registry.example/lab/team:latest") == "team"
    assert foreign.short_name("team:2") == "team:2"
    assert foreign.short_name("downloads/team.tar.gz") == "team"


def test_a_tar_is_loaded_once_and_an_image_that_is_there_is_not_loaded_again(tmp_path, docker):
    image = foreign.Foreign(str(archive(tmp_path / "team.tar", [{"Config": f"{DIGEST}.json"}])), IMAGE)
    docker.answers = {"image inspect": (0, IMAGE, "")}
    assert foreign.bring(image, lambda _: None) == IMAGE
    assert not docker.said("load")
    docker.answers = {"image inspect": (1, "", "No such image"), "load": (1, "", "no space left on device")}
    with pytest.raises(BenchError, match="docker could not load it: no space left on device"):
        foreign.bring(image, lambda _: None)


def test_a_tar_that_was_replaced_since_the_plan_is_refused_and_not_loaded(tmp_path, docker):
    path = archive(tmp_path / "team.tar", [{"Config": f"{DIGEST}.json"}])
    image = foreign.Foreign(str(path), foreign.identify(str(path)))
    archive(path, [{"Config": f"{'0' * 64}.json"}])
    os.utime(path, ns=(1, 1))
    docker.answers = {"image inspect": (1, "", "No such image")}
    with pytest.raises(BenchError, match=r"team\.tar has changed since the run was planned; start the run again"):
        foreign.bring(image, lambda _: None)
    assert not docker.said("load")


def test_what_was_loaded_from_a_tar_is_removed_after_the_last_job_and_what_was_there_stays(
    tmp_path, docker, monkeypatch
):
    image = foreign.Foreign(str(archive(tmp_path / "team.tar", [{"Config": f"{DIGEST}.json"}])), IMAGE)

    def load(argv, timeout_s=0.0):
        if argv[1] == "load":
            docker.answers["image inspect"] = (0, IMAGE, "")
        return docker(argv, timeout_s)

    docker.answers = {"image inspect": (1, "", "No such image"), "load": (0, "Loaded image: team:1\n", "")}
    monkeypatch.setattr(foreign, "call", load)
    assert [foreign.bring(image, lambda _: None) for _ in range(2)] == [IMAGE, IMAGE]
    foreign.unload(image)
    assert (len(docker.said("load")), docker.said("rmi")) == (1, [])
    foreign.unload(image)
    assert [argv[2:] for argv in docker.said("rmi")] == [["team:1"]]
    foreign.bring(image, lambda _: None)
    foreign.unload(image)
    assert len(docker.said("rmi")) == 1


def test_an_image_whose_name_means_another_one_since_the_plan_is_refused(docker):
    docker.answers = {"image inspect": (0, f"sha256:{'0' * 64}", "")}
    with pytest.raises(BenchError, match="has changed since the run was planned"):
        foreign.bring(foreign.Foreign("team:1", IMAGE), lambda _: None)


def test_the_last_name_of_an_image_is_not_taken_away_because_the_image_would_go_with_it(docker):
    docker.answers = {"image inspect": (0, '["medsam-bench-image-x-1n0:latest"]', "")}
    foreign.untag("medsam-bench-image-x-1n0")
    assert not docker.said("rmi")
    docker.answers = {"image inspect": (0, '["medsam-bench-image-x-1n0:latest", "team:1"]', "")}
    foreign.untag("medsam-bench-image-x-1n0")
    assert [argv[-1] for argv in docker.said("rmi")] == ["medsam-bench-image-x-1n0:latest"]


def test_names_of_ended_processes_are_taken_away_and_those_of_living_ones_stay(docker):
    dead, living = "medsam-bench-image-x-4194305n0", f"medsam-bench-image-x-{os.getpid()}n0"
    docker.answers = {"images": (0, f"{dead}\n{living}\n", ""), "image inspect": (0, '["a:1", "b:1"]', "")}
    foreign.remove_stale_tags()
    assert [argv[-1] for argv in docker.said("rmi")] == [f"{dead}:latest"]


# the command


def test_init_user_and_the_bundle_are_not_forced_on_a_foreign_image(tmp_path, docker, monkeypatch):
    monkeypatch.setattr("os.getuid", lambda: 1000)
    sandbox, bundle = prepared(tmp_path, docker)
    sandbox.run_case(bundle, make_case(tmp_path), tmp_path / "out", LIMITS)
    command = docker.said("run --name")[0]
    assert not {"--init", "--user"} & set(command)
    assert not [word for word in command if "/workspace/bundle" in word]
    assert {"--read-only", "--cap-drop"} <= set(command)
    assert command[-3:] == [IMAGE, "sh", "predict.sh"]


def test_init_and_a_writable_root_are_there_when_they_are_asked_for(tmp_path, docker):
    sandbox, bundle = prepared(tmp_path, docker, init=True, writable_root=True)
    outcome = sandbox.run_case(bundle, make_case(tmp_path), tmp_path / "out", LIMITS)
    command = docker.said("run --name")[0]
    assert "--init" in command
    assert not {"--read-only", "--tmpfs"} & set(command)
    assert any("writable_root" in text for text in outcome.detail["not_enforced"])


def test_a_root_file_system_is_writable_only_without_the_read_only_flag():
    mounts = Mounts(Path("/in"), Path("/out"))
    assert "--read-only" in strict_argv("n", "i", mounts, LIMITS, StrictOptions((0,)))
    assert "--read-only" not in strict_argv("n", "i", mounts, LIMITS, StrictOptions((0,), writable_root=True))


def test_a_refused_write_to_the_images_own_files_names_the_setting_that_allows_it(tmp_path, docker):
    sandbox, bundle = prepared(tmp_path, docker)
    docker.answers |= inspected(1) | {"run": (1, "", "OSError: [Errno 30] Read-only file system: 'compiled.bin'")}
    outcome = sandbox.run_case(bundle, make_case(tmp_path), tmp_path / "out", LIMITS)
    assert outcome.status == "crashed"
    assert "`writable_root: true` of its row (`bench runtime --writable-root`) allows it" in outcome.reason
    assert outcome.reason.endswith("OSError: [Errno 30] Read-only file system: 'compiled.bin'")


# what is known of its runs


def test_of_the_phases_only_start_and_stop_are_known_and_nothing_the_image_says_is_believed(tmp_path, docker):
    sandbox, bundle = prepared(tmp_path, docker)
    docker.answers |= inspected(1)
    outcome = sandbox.run_case(bundle, make_case(tmp_path), tmp_path / "out", LIMITS)
    assert set(outcome.phases) == {"start", "stop", "unaccounted"}
    assert sum(outcome.phases.values()) == pytest.approx(outcome.wall_s)
    assert outcome.detail["inside"].startswith("not visible")


def test_every_run_has_limits_also_one_that_failed_and_where_no_group_is_seen_the_engine_is_asked(tmp_path, docker):
    sandbox, bundle = prepared(tmp_path, docker)
    docker.answers |= inspected(3)
    read = sandbox.run_case(bundle, make_case(tmp_path), tmp_path / "out", LIMITS).limits_read
    assert (read["memory_bytes"], read["swap_bytes"]) == (512 * MIB, 0)
    assert (read["cpus"], read["cpuset"], read["network"]) == (2.0, [0, 1], [])
    assert read["memory_source"] == "docker inspect, HostConfig"


def test_what_is_left_behind_does_not_survive_the_run_and_stands_in_its_details(tmp_path, docker, monkeypatch):
    sandbox, bundle = prepared(tmp_path, docker)
    case, out = make_case(tmp_path), tmp_path / "out"
    ran = docker.__call__

    def run(argv, timeout_s=0.0):
        if argv[1] == "run":
            np.savez_compressed(out / case.name, segs=np.zeros((40, 60), np.uint8))
            (out / "cache").mkdir()
            (out / "cache" / "model.blob").write_text("x" * 9)
        return ran(argv, timeout_s)

    monkeypatch.setattr("harness.measure.runtime.docker.call", run)
    outcome = sandbox.run_case(bundle, case, out, LIMITS)
    assert (outcome.status, outcome.reason) == ("ok", None)
    assert outcome.detail["left_behind"] == [{"name": "outputs/cache/model.blob", "bytes": 9}]
    assert [path.name for path in out.iterdir()] == [case.name]


# as a row of a suite


def suite(tmp_path: Path, **entry) -> Suite:
    cases = tmp_path / "cases"
    if not cases.exists():
        cases.mkdir()
        make_case(cases)
    runtime = {"data": ["test"], "deployments": ["plain"], "sandboxes": ["process"], "repeats": 2}
    measure = {"runtime": runtime, "complexity": {}, "accuracy": {"data": ["test"], "deployments": ["plain"]}}
    return Suite.model_validate(
        {
            "name": "s",
            "variants": {"theirs": {"image": "team:1", **entry}, "dummy": {}},
            "deployments": {"plain": {}},
            "datasets": {"test": str(cases)},
            "measure": measure,
        }
    )


def test_a_row_with_an_image_has_runtime_jobs_in_the_docker_sandbox_and_no_others(tmp_path, docker):
    docker.answers = inspected()
    jobs = [job for job in make_plan(suite(tmp_path), Results(tmp_path / "results")).jobs if job.row == "theirs"]
    assert [(job.spec.kind, job.sandbox, job.deployment, job.units) for job in jobs] == [
        ("runtime", "docker", "team:1", 2)
    ]
    assert jobs[0].spec.inputs["image"] == IMAGE
    assert jobs[0].spec.libraries == {}


def test_the_digest_of_its_job_follows_the_image_and_not_its_name(tmp_path, docker):
    def digest(source: str, identity: str, **settings) -> str:
        docker.answers = inspected() | {"image inspect": (0, identity, "")}
        plan = make_plan(suite(tmp_path, image={"source": source, **settings}), Results(tmp_path / "results"))
        return next(job.digest for job in plan.jobs if job.row == "theirs")

    assert digest("team:1", IMAGE) == digest("copy:2", IMAGE)
    assert digest("team:1", IMAGE) != digest("team:1", f"sha256:{'0' * 64}")
    assert digest("team:1", IMAGE) != digest("team:1", IMAGE, init=True)


def test_a_row_is_either_an_image_or_a_variant():
    with pytest.raises(ValueError, match="leave `weights` out"):
        Suite.model_validate({"name": "s", "variants": {"x": {"image": "a", "weights": "b"}}, "measure": {}})


def test_a_suite_says_what_is_wrong_with_its_image(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\nvariants:\n  theirs: {image: gone.tar}\n"
        "ablations:\n  a: {base: theirs, rows: {wide: {width: 2}}}\nmeasure: {complexity: true}\n"
    )
    with pytest.raises(InvalidSuite) as caught:
        read_suite(path)
    said = str(caught.value)
    assert "the file gone.tar does not exist" in said
    assert "an image has a runtime and nothing else to measure" in said
    assert "'theirs' is an image, it has nothing to vary" in said


# the command line


def asked(tmp_path: Path, **fields) -> Asked:
    rules = {"protocol": "cvpr24", "repeats": 2, "memory": "1GiB", "cpus": 1, "timeout": 9}
    given = {"image": "lab/team:latest", "cases": str(tmp_path), "beside": ["dummy"], "deployments": ["torch-fp32"]}
    return Asked(**{**given, "rules": rules, **fields})


def test_the_command_stands_for_a_suite_with_the_image_and_ours_beside_it(tmp_path):
    made = suite_of(asked(tmp_path, init=True))
    assert list(made.variants) == ["team", "dummy"]
    assert made.variants["team"].image == ImageRef(source="lab/team:latest", init=True)
    runtime = made.measure.runtime
    assert (runtime.sandboxes, runtime.protocol, runtime.repeats, runtime.timeout) == (("docker",), "cvpr24", 2, 9)
    assert list(suite_of(asked(tmp_path, beside=["none"])).variants) == ["team"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"beside": ["litemedsm"]}, "--beside litemedsm: there is no such variant. Did you mean"),
        ({"deployments": ["torch"]}, "--deployment torch: there is no such deployment."),
        ({"cases": "/nowhere"}, "--cases /nowhere: there is no such folder"),
        ({"rules": {"memory": "much"}}, "memory"),
    ],
)
def test_a_mistake_in_the_command_is_one_sentence(tmp_path, fields, said):
    with pytest.raises(BenchError, match=said):
        suite_of(asked(tmp_path, **fields))


def test_the_command_sums_up_failures_and_what_was_left_behind():
    detail = json.dumps({"left_behind": [{"name": "outputs/cache.bin", "bytes": 2048}]})
    fine = [Record("wall", 1.0, case="a", repeat=n, detail=detail) for n in range(2)]
    lines, usable = remarks([*fine, Record("wall", case="b", status="oom", reason="too much")])
    assert usable
    assert lines[0] == "1 of 3 runs oom: too much"
    assert "outputs/cache.bin (2.0 KiB, 2 of 3 runs)" in lines[1]
    assert remarks([Record("wall", case="b", status="oom", reason="too much")])[1] is False
