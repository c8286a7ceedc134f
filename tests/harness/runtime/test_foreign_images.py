"""Images that only obey the challenge's contract, on a real engine: measured by the command, every ending a status."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.config import ImageRef
from harness.measure.runtime import dockercli, images
from harness.measure.runtime.bundle import make_bundle
from harness.measure.runtime.foreign import identify
from harness.measure.runtime.sandbox import Limits, open_sandbox
from harness.results import Results, read_run
from harness.store import records_key, unseal
from tests.harness.runtime.support import MIB, PlainContext, make_case, need_engine, runtime_job

pytestmark = pytest.mark.docker
LIMITS = Limits(memory_bytes=256 * MIB, cpus=1, timeout_s=120)
PROGRAM = Path(__file__).with_name("submission.py")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module", autouse=True)
def engine():
    need_engine()


def build(folder: Path, name: str, mode: str, lines: str = "") -> str:
    """A foreign image: the base image, a program in a folder of its own choice, and ``predict.sh``."""
    folder.mkdir()
    (folder / "predict.py").write_bytes(PROGRAM.read_bytes())
    (folder / "Dockerfile").write_text(
        f"FROM {images.base_image()}\nWORKDIR /opt/team\nCOPY predict.py .\n"
        f"RUN echo 'python3 predict.py' > predict.sh\nENV MODE={mode}\n{lines}"
    )
    labels = [word for key, value in dockercli.owner_labels().items() for word in ("--label", f"{key}={value}")]
    argv = ["env", "DOCKER_BUILDKIT=0", "docker", "build", "--network", "none", "--force-rm", "--tag", name, *labels]
    done = dockercli.call([*argv, str(folder)], timeout_s=300)
    assert done.ok, done.stderr
    return name


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """``image(mode)``: the name of a foreign image that behaves so; all are removed at the end."""
    made: dict[str, str] = {}
    root = tmp_path_factory.mktemp("images")

    def make(mode: str, lines: str = "") -> str:
        key = mode + lines
        if key not in made:
            name = f"foreign-test-{len(made)}-{os.getpid()}:v1"
            made[key] = build(root / str(len(made)), name, mode or "fine", lines)
        return made[key]

    yield make
    for name in made.values():
        dockercli.call(["docker", "rmi", "--force", name])


@pytest.fixture
def measured(tmp_path):
    """``measured(image, protocol)``: one run of a small case; the outcome and the output folder."""
    used = []

    def run(source: str, protocol: str = "strict", output: Path | None = None, limits: Limits = LIMITS, **settings):
        update = {"image": ImageRef(source=source, **settings), "inputs": {"image": identify(source)}}
        spec = runtime_job(tmp_path, sandbox="docker").model_copy(update={**update, "deployment": None})
        sandbox = open_sandbox("docker", protocol)
        used.append(sandbox)
        bundle = make_bundle(spec, PlainContext(tmp_path / f"job{len(used)}"))
        sandbox.prepare(bundle, lambda _: None)
        folder = output or tmp_path / f"out{len(used)}"
        return sandbox.run_case(bundle, make_case(tmp_path), folder, limits), folder

    run.sandboxes = used
    yield run
    for sandbox in used:
        sandbox.cleanup()


def bench(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """``bench`` with results and the lock of timings of its own."""
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "harness.cli", *words, "--results", str(folder / "results")]
    return subprocess.run(argv, capture_output=True, text=True, env=environment, cwd=folder, check=False)


def walls(folder: Path) -> dict[str, list]:
    """Row → its ``wall`` records, of the latest run."""
    results = Results(folder / "results")
    found: dict[str, list] = {}
    for job in read_run(results.find_run())["jobs"]:
        records = unseal(results.store.get(records_key(job["digest"])))
        found.setdefault(job["variant"], []).extend(r for r in records if r.metric == "wall")
    return found


@pytest.fixture
def cases(tmp_path):
    folder = tmp_path / "cases"
    folder.mkdir()
    make_case(folder)
    return folder


def test_an_image_that_only_obeys_the_contract_is_measured_by_the_command_beside_ours(tmp_path, cases, image):
    words = ("--cases", str(cases), "--beside", "dummy", "--repeats", "2", "--memory", "512MiB", "--cpus", "1")
    done = bench("runtime", "--image", image(""), *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    found = walls(tmp_path)
    label = image("")
    assert [(r.status, r.reason) for rows in found.values() for r in rows] == [("ok", None)] * 4
    assert set(found) == {label, "dummy"}
    assert label in done.stdout
    assert "dummy" in done.stdout
    for row in found[label]:
        read = json.loads(row.detail)["limits_read"]
        assert (read["memory_bytes"], read["swap_bytes"], read["cpus"]) == (512 * MIB, 0, 1.0)
        assert (read["network"], read["root_writable"]) == ([], False)
        assert "left_behind" not in json.loads(row.detail)
    again = bench("runtime", "--image", image(""), *words, folder=tmp_path)
    assert "all from cache" in again.stderr
    assert "leaderboard" in bench("leaderboard", folder=tmp_path).stdout.lower()
    page = next((tmp_path / "results" / "runs").glob("*/report.html")).read_text()
    assert label in page


def test_a_tar_of_docker_save_is_loaded_is_the_same_image_as_its_name_and_is_removed_afterwards(tmp_path, cases, image):
    name = image("", "ENV TAR=1\n")
    identity = identify(name)
    assert dockercli.call(["docker", "save", "--output", str(tmp_path / "team.tar"), name]).ok
    assert dockercli.call(["docker", "rmi", "--force", name]).ok
    assert not dockercli.call(["docker", "image", "inspect", identity]).ok
    assert identify(str(tmp_path / "team.tar")) == identity
    words = ("--cases", str(cases), "--beside", "none", "--repeats", "1", "--memory", "512MiB", "--cpus", "1")
    done = bench("runtime", "--image", "team.tar", *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [r.status for r in walls(tmp_path)["team"]] == ["ok"]
    assert not dockercli.call(["docker", "image", "inspect", identity]).ok, "it was not there before"


def test_its_masks_are_those_it_wrote(measured, image, tmp_path):
    outcome, folder = measured(image(""))
    assert (outcome.status, outcome.reason) == ("ok", None)
    case = make_case(tmp_path)
    with np.load(folder / case.name) as output, np.load(case) as given:
        assert np.array_equal(output["segs"], given["imgs"][..., 0] > 127)


def test_only_start_and_stop_are_known_of_its_phases_and_memory_comes_from_the_group_above(measured, image):
    outcome, _ = measured(image(""))
    assert set(outcome.phases) == {"start", "stop", "unaccounted"}
    assert outcome.phases["start"] > 0
    assert outcome.peak_memory_bytes > 5 * MIB or "root" in outcome.detail["peak_memory"]


def test_a_cache_that_it_leaves_is_named_and_the_next_run_does_not_find_it(tmp_path, cases, image):
    words = ("--cases", str(cases), "--beside", "none", "--repeats", "2", "--memory", "512MiB", "--cpus", "1")
    done = bench("runtime", "--image", image("leaves-a-cache"), *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    left = [{"name": "outputs/cache/model.blob", "bytes": 5000}, {"name": "outputs/efficiency.csv", "bytes": 10}]
    rows = next(iter(walls(tmp_path).values()))
    assert [(r.status, json.loads(r.detail)["left_behind"]) for r in rows] == [("ok", left)] * 2
    assert "left behind in the mounted folders" in done.stderr
    assert "outputs/cache/model.blob (4.9 KiB, 2 of 2 runs)" in done.stderr


@pytest.mark.parametrize("protocol", ["strict", "cvpr24"])
@pytest.mark.parametrize(
    ("mode", "said"),
    [("nothing", "no output: 2DBox_US_0001.npz is missing"), ("wrong-shape", "'segs' has shape (60, 40)")],
)
def test_an_image_that_breaks_the_contract_has_an_invalid_output(measured, image, protocol, mode, said):
    outcome, _ = measured(image(mode), protocol)
    assert outcome.status == "invalid-output"
    assert said in outcome.reason
    assert outcome.limits_read["memory_bytes"] == LIMITS.memory_bytes


def test_the_challenge_command_runs_it_under_a_name_that_is_taken_away_afterwards(measured, image):
    def names() -> set[str]:
        found = dockercli.call(["docker", "images", "--format", "{{.Repository}}"]).stdout.split()
        return {name for name in found if name.startswith("medsam-bench-image-") and f"-{os.getpid()}n" in name}

    outcome, folder = measured(image("leaves-a-cache"), "cvpr24")
    assert (outcome.status, outcome.reason) == ("ok", None)
    assert outcome.limits_read["memory_bytes"] == LIMITS.memory_bytes
    assert outcome.limits_read["memory_source"].startswith("cgroup")
    assert [path.name for path in folder.iterdir()] == ["2DBox_US_0001.npz"]
    assert len(names()) == 1
    measured.sandboxes[-1].cleanup()
    assert names() == set()
    assert identify(image("leaves-a-cache"))


def test_an_image_that_writes_to_its_own_files_needs_the_setting_that_the_reason_names(measured, image):
    refused, _ = measured(image("writes-to-root"))
    assert refused.status == "crashed"
    assert "`bench runtime --writable-root`) allows it" in refused.reason
    assert "Read-only file system: 'compiled.bin'" in refused.reason
    allowed, _ = measured(image("writes-to-root"), writable_root=True)
    assert (allowed.status, allowed.reason) == ("ok", None)
    assert allowed.limits_read["root_writable"] is True


def test_an_image_with_a_user_of_its_own_runs_as_that_user(measured, image):
    outcome, _ = measured(image("", "USER 1234\n"))
    assert (outcome.status, outcome.limits_read["uid"]) == ("ok", 1234)


@pytest.fixture
def tiny_disk(tmp_path):
    """An output folder on a disk of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "disk" / "out"
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_under_the_outputs_is_a_crash_with_that_reason(measured, image, tiny_disk):
    outcome, _ = measured(image("fills-the-disk"), output=tiny_disk)
    assert (outcome.status, outcome.reason) == ("crashed", "exit status 1: OSError: [Errno 28] No space left on device")
    assert outcome.limits_read["memory_bytes"] == LIMITS.memory_bytes


def test_a_full_disk_that_the_program_hides_is_an_invalid_output_with_that_reason(measured, image, tiny_disk):
    outcome, _ = measured(image("fills-the-disk-and-goes-on"), output=tiny_disk)
    assert outcome.status == "invalid-output"
    assert "No space left on device" in outcome.reason
