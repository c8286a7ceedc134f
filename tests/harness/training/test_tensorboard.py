"""TensorBoard watches: what was asked for is written once and live, and nothing about the job depends on it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from harness import tensorboard
from harness.cli import main
from harness.config import VariantRef
from harness.dependencies import CODE
from harness.errors import BenchError
from harness.jobs import JobSpec
from harness.results import Results
from harness.schema import Record
from harness.store import records_key, seal

ROOT = Path(__file__).resolve().parents[3]
READER = "tensorboard.backend.event_processing.event_accumulator"
SPEC = JobSpec(kind="train", variant=VariantRef(name="toy", set={"depth": 2}), settings={"stage": "distil"}, seed=3)


class StandIn:
    """A writer and a reader with the faces of the client's, for machines that lack it."""

    made = 0

    def __init__(self, folder: str, **_: Any) -> None:
        StandIn.made += 1
        self.path = Path(folder) / f"events.tfevents.{StandIn.made:04d}"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        self.pending: list[str] = []

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.pending.append(json.dumps([tag, value, step]))

    def flush(self) -> None:
        with self.path.open("a") as out:
            out.writelines(f"{line}\n" for line in self.pending)
        self.pending.clear()

    def close(self) -> None:
        self.flush()


class StandInReader:
    def __init__(self, folder: str, **_: Any) -> None:
        self.folder, self.held = Path(folder), dict[str, list[SimpleNamespace]]()

    def Reload(self) -> None:
        for path in sorted(self.folder.glob("*tfevents*")):
            for tag, value, step in map(json.loads, path.read_text().splitlines()):
                self.held.setdefault(tag, []).append(SimpleNamespace(step=step, value=value))

    def Tags(self) -> dict[str, list[str]]:
        return {"scalars": list(self.held)}

    def Scalars(self, tag: str) -> list[SimpleNamespace]:
        return self.held[tag]


INSTALLED = pytest.mark.skipif(find_spec("tensorboard") is None, reason="the extra `tensorboard` is not installed")


@pytest.fixture(params=["stand-in", pytest.param("real", marks=INSTALLED)])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client of TensorBoard: the real one where it is installed, and one of ours everywhere."""
    if request.param == "real":
        return
    writer, reader = ModuleType("torch.utils.tensorboard"), ModuleType(READER)
    writer.SummaryWriter = StandIn  # type: ignore[attr-defined]
    reader.EventAccumulator, reader.SCALARS = StandInReader, "scalars"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, writer.__name__, writer)
    for place in range(1, READER.count(".") + 1):
        name = READER.rsplit(".", place)[0]
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, READER, reader)
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: object())


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)


@pytest.fixture
def folder(client: None, tmp_path: Path) -> Iterator[Path]:
    """Where the events of trainings go, asked for as the command line asks."""
    with tensorboard.asked(str(tmp_path / "tb")):
        yield tmp_path / "tb"


def written(folder: Path, spec: JobSpec = SPEC) -> dict[str, list[tuple[int, float]]]:
    """Tag → steps and values that are on the disk."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    held = EventAccumulator(str(folder / tensorboard.folder_of(spec)), size_guidance={SCALARS: 0})
    held.Reload()
    return {tag: [(e.step, round(e.value, 6)) for e in held.Scalars(tag)] for tag in held.Tags()["scalars"]}


def steps(folder: Path, tag: str = "loss/train") -> list[int]:
    return [step for step, _ in written(folder)[tag]]


def train(watcher: tensorboard.Watcher, numbers: Sequence[int]) -> None:
    for step in numbers:
        watcher.step(step, {"train_loss": 1 / step, "learning_rate": 5e-4})


def journal(*numbers: int) -> list[Record]:
    losses = [Record("train_loss", 1 / step, repeat=step) for step in numbers]
    return [*losses, Record("validation_dsc", 0.75, repeat=numbers[-1]), Record("train_steps", float(numbers[-1]))]


def test_who_does_not_ask_gets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tensorboard.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    with tensorboard.watcher(SPEC, journal(1)) as watcher:
        train(watcher, [1, 2])
    assert not list(tmp_path.iterdir())


def test_scalars_have_a_place_each_and_are_there_before_the_training_ends(folder: Path) -> None:
    with tensorboard.watcher(SPEC) as watcher:
        watcher.step(1, {"train_loss": 0.75, "learning_rate": 0.25, "dice": 0.5})
        watcher.step(2, {"train_loss": 0.5, "validation_loss": 1.5, "validation_dsc": 0.125})
        assert written(folder) == {
            "loss/train": [(1, 0.75), (2, 0.5)],
            "learning_rate": [(1, 0.25)],
            "terms/dice": [(1, 0.5)],
            "loss/validation": [(2, 1.5)],
            "dsc/validation": [(2, 0.125)],
        }


def test_steps_that_are_taken_again_are_not_written_again(folder: Path) -> None:
    killed = tensorboard.watcher(SPEC)
    train(killed, range(1, 18))
    with tensorboard.watcher(SPEC) as resumed:
        train(resumed, range(11, 31))
    assert steps(folder) == steps(folder, "learning_rate") == list(range(1, 31))
    killed.close()


def test_what_the_journal_holds_and_the_folder_lacks_comes_first(folder: Path) -> None:
    killed = tensorboard.watcher(SPEC)
    train(killed, range(1, 4))
    with tensorboard.watcher(SPEC, journal(1, 2, 3, 4, 5)) as resumed:
        train(resumed, range(5, 8))
    assert steps(folder) == [1, 2, 3, 4, 5, 6, 7]
    assert written(folder)["dsc/validation"] == [(5, 0.75)]
    killed.close()


def test_stored_trainings_are_written_once(folder: Path, tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    results.store.put_if_absent(records_key(SPEC.digest), seal(journal(1, 2, 3)))
    never_done = SPEC.model_copy(update={"seed": 4})
    for _ in range(2):
        tensorboard.write_stored([SPEC, never_done], results)
    assert steps(folder) == [1, 2, 3]
    assert len(list(folder.rglob("*tfevents*"))) == 1


def test_a_writer_that_fails_does_not_end_the_training(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    with tensorboard.watcher(SPEC) as watcher:
        train(watcher, [1])
        monkeypatch.setattr(watcher._writer, "add_scalar", full)  # type: ignore[attr-defined]
        train(watcher, [2, 3])
    assert steps(folder) == [1]
    assert capsys.readouterr().err.count("No space left on device") == 1


def test_every_job_has_a_folder_of_its_own_whose_name_says_which() -> None:
    place = tensorboard.folder_of(SPEC).as_posix()
    assert place == f"toy,depth=2/distil-seed3-{SPEC.digest[:8]}"
    assert tensorboard.folder_of(SPEC.model_copy(update={"settings": {"stage": "distil", "batch": 8}})) != Path(place)
    strange = VariantRef(name="toy", set={"file": "../../etc/x y"})
    assert len(tensorboard.folder_of(SPEC.model_copy(update={"variant": strange})).parts) == 2


def test_it_is_no_part_of_a_job(client: None, tmp_path: Path) -> None:
    before = SPEC.digest
    with tensorboard.asked(str(tmp_path)):
        assert JobSpec.model_validate(SPEC.model_dump()).digest == before
    own = Path(tensorboard.__file__)
    assert not [code for code in CODE["train"] if own.is_relative_to(ROOT / code)]


def test_the_asking_ends_with_its_block(client: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tensorboard.VARIABLE, "elsewhere")
    monkeypatch.chdir(tmp_path)
    seen = []

    def fails() -> None:
        seen.append(os.environ[tensorboard.VARIABLE])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), tensorboard.asked("tb"):
        fails()
    assert seen == [str(tmp_path / "tb")]
    assert os.environ[tensorboard.VARIABLE] == "elsewhere"
    monkeypatch.delenv(tensorboard.VARIABLE)
    with tensorboard.asked("tb"):
        pass
    with tensorboard.asked(None):
        assert tensorboard.VARIABLE not in os.environ


@pytest.mark.parametrize("command", [["run", "suites/quickstart.yaml"], ["train", "litemedsam_tiny"]])
def test_without_the_package_the_command_says_what_brings_it(
    command: list[str], missing: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--tensorboard", "tb", "--results", str(tmp_path)])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("bench: --tensorboard tb: the package tensorboard is not installed; `pip install")
    assert not list(tmp_path.iterdir())


def test_a_worker_without_the_package_trains_all_the_same(
    missing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(tensorboard.VARIABLE, str(tmp_path))
    with tensorboard.watcher(SPEC) as watcher:
        train(watcher, [1])
    assert "the package is missing" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_folder(client: None, tmp_path: Path) -> None:
    (tmp_path / "tb").touch()
    with (
        pytest.raises(BenchError, match=r"--tensorboard .*tb: this is a file; name a folder"),
        tensorboard.asked(str(tmp_path / "tb")),
    ):
        pass
