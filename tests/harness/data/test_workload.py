"""The published workload: the papers' 14 cases by name, size and number of objects, and a small set that ends."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import numpy as np
import pytest
import yaml

from harness.config import PhantomData, Subset, WorkloadData
from harness.data import Case, dataset_digest, open_dataset
from harness.data.materialise import read_manifest
from harness.data.workload import WORKLOAD, WorkloadCase, spans, work_of, workload_cases
from harness.data.workload_scene import draw, first_slices
from harness.protocols import LOOPS
from harness.schema import MODALITIES
from harness.suitefile import SUITES

FULL, SMALL = WorkloadData(scale="full"), WorkloadData(scale="small")
PRINTED = {
    "3DBox_CT_0566": ((287, 512, 512), 6),
    "3DBox_CT_0888": ((237, 512, 512), 6),
    "3DBox_CT_0860": ((246, 512, 512), 1),
    "3DBox_MR_0621": ((115, 400, 400), 6),
    "3DBox_MR_0121": ((64, 290, 320), 6),
    "3DBox_MR_0179": ((84, 512, 512), 1),
    "3DBox_PET_0001": ((264, 200, 200), 1),
    "2DBox_US_0525": ((256, 256), 1),
    "2DBox_X-Ray_0053": ((320, 640), 34),
    "2DBox_Dermoscopy_0003": ((3024, 4032), 1),
    "2DBox_Endoscopy_0086": ((480, 560), 1),
    "2DBox_Fundus_0003": ((2048, 2048), 1),
    "2DBox_Microscope_0008": ((1536, 2040), 19),
    "2DBox_Microscope_0016": ((1920, 2560), 241),
}


def named(spec: WorkloadData, name: str) -> WorkloadCase:
    return next(case for case in workload_cases(spec) if case.name == name)


@pytest.fixture(scope="module")
def published() -> dict[str, dict[str, list[float]]]:
    """Source of each table of published runtimes → case → seconds, LiteMedSAM first."""
    text = (SUITES / "published" / "runtime.yaml").read_text()
    return {table["source"].partition(" ")[0]: table["seconds"] for table in yaml.safe_load(text)["tables"]}


def assert_sound(case: Case, wanted: WorkloadCase) -> None:
    """Size, objects, boxes and extents are those asked for."""
    assert case.truth is not None
    assert case.size == wanted.shape
    assert case.objects == wanted.objects
    assert np.array_equal(np.unique(case.truth), np.arange(wanted.objects + 1))
    n = case.ndim
    for label, box in enumerate(case.boxes, start=1):
        inside = case.truth[tuple(slice(box[a], box[a + n] + 1) for a in reversed(range(n)))] == label
        assert inside.any()
        for axis in range(n):  # tight: the mask touches all sides
            assert np.moveaxis(inside, axis, 0)[0].any()
            assert np.moveaxis(inside, axis, 0)[-1].any()
    if n == 3:
        assert tuple(case.boxes[:, 5] - case.boxes[:, 2] + 1) == wanted.spans
        assert (case.boxes[:, 2] < case.boxes[:, 5]).all()
        assert len({int((box[5] - box[2]) / 2 + box[2]) for box in case.boxes}) == case.objects
    assert case.image.std() > 15


def test_the_cases_have_the_printed_names_sizes_and_numbers_of_objects() -> None:
    assert {case.name: (case.shape, case.objects) for case in workload_cases(FULL)} == PRINTED
    assert [case.name for case in workload_cases(FULL)] == sorted(PRINTED)
    assert [case.name for case in WORKLOAD] == list(PRINTED)


def test_the_modality_comes_from_the_name() -> None:
    assert {case.modality for case in workload_cases(FULL)} == set(MODALITIES) - {"OCT", "Mammography"}
    assert named(FULL, "2DBox_Microscope_0016").modality == "Microscopy"


def test_every_case_has_published_runtimes_of_three_papers(published: dict[str, dict[str, list[float]]]) -> None:
    assert len(published) == 3
    for seconds in published.values():
        assert list(seconds) == list(PRINTED)


def test_extents_are_what_the_baselines_times_imply(published: dict[str, dict[str, list[float]]]) -> None:
    grays, rep = (published[name] for name in ("Gray's", "Rep-MedSAM"))
    for case in WORKLOAD:
        if case.name.startswith("3D"):
            implied = mean(table[case.name][0] / table["2DBox_US_0525"][0] for table in (grays, rep))
            assert abs(case.object_slices[0] - implied) < 0.5, case.name


@pytest.mark.parametrize("spec", [FULL, SMALL], ids=lambda s: s.scale)
def test_objects_of_a_volume_differ_in_extent_and_fit(spec: WorkloadData) -> None:
    for case in workload_cases(spec):
        if case.name.startswith("3D"):
            assert len(set(case.spans)) == case.objects
            assert min(case.spans) >= 2
            assert max(case.spans) <= case.shape[0]
        else:
            assert case.spans == ()


def test_spans_sum_to_what_is_asked_for_or_say_that_it_is_too_little() -> None:
    assert spans(512, 6) == (25, 49, 73, 97, 121, 147)
    assert spans(27, 6) == (2, 3, 4, 5, 6, 7)
    with pytest.raises(ValueError, match="26 slices are too few for 6 objects"):
        spans(26, 6)


def test_a_pass_of_litemedsam_takes_a_minute_at_most_when_small_and_24_when_full() -> None:
    small, full = work_of(workload_cases(SMALL)), work_of(workload_cases(FULL))
    assert (small.object_slices, small.encodings, small.boxes) == (30, 37, 131)
    assert (full.object_slices, full.encodings, full.boxes) == (1024, 1031, 1322)
    assert 50 < small.seconds(encoding=1.3, box=0.07) <= 60
    assert full.seconds(encoding=1.3, box=0.07) == pytest.approx(1432.8, abs=0.1)


def test_the_arithmetic_counts_what_the_default_loop_visits() -> None:
    """An inclusive loop goes through every slice of a box once."""
    for case in workload_cases(SMALL):
        for span in case.spans:
            up, down = LOOPS["litemedsam-2024-05-23"].slices(1, span, depth=case.shape[0] + 2)
            assert len(up) + len(down) == span


def test_small_keeps_the_proportions() -> None:
    for small, full in zip(workload_cases(SMALL), workload_cases(FULL), strict=True):
        assert small.name == full.name
        assert small.objects == max(1, round(full.objects / 3))
        assert small.shape[-2:] == (full.shape[-2] // 2, full.shape[-1] // 2)
    objects = [case.objects for case in workload_cases(SMALL)]
    assert sum(objects) == 101 + 4 * 2 + 3


@pytest.mark.parametrize("name", PRINTED)
def test_a_small_case_is_what_it_was_asked_to_be(name: str) -> None:
    wanted = named(SMALL, name)
    assert_sound(draw(wanted), wanted)


def test_the_same_seed_gives_the_same_bytes_and_another_one_other_bytes() -> None:
    for name in ("3DBox_MR_0121", "2DBox_X-Ray_0053"):
        first, again = draw(named(SMALL, name)), draw(named(SMALL, name))
        other = draw(named(WorkloadData(scale="small", seed=1), name))
        np.testing.assert_array_equal(first.image, again.image)
        np.testing.assert_array_equal(first.truth, again.truth)
        assert not np.array_equal(first.truth, other.truth)
        assert not np.array_equal(first.image, other.image)


def test_middle_slices_differ_for_any_seed() -> None:
    crowded = named(SMALL, "3DBox_MR_0121")
    for seed in range(50):
        for depth, extents in ((crowded.shape[0], crowded.spans), (64, (7, 13, 19, 25, 31, 37))):
            starts = first_slices(np.random.default_rng(seed), depth, extents)
            assert len({start + (span - 1) // 2 for start, span in zip(starts, extents, strict=True)}) == len(extents)
            assert all(s >= 0 and s + span <= depth for s, span in zip(starts, extents, strict=True))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_the_data_set_is_kept_on_disk_and_made_once(cache: Path) -> None:
    said: list[tuple[float, str]] = []
    first = open_dataset(SMALL, cache, lambda share, what: said.append((share, what)))
    assert (first.name, len(first.cases)) == ("workload", 14)
    assert said[0] == (0.0, "phantom 2DBox_Dermoscopy_0003")
    assert said[-1][0] == 1.0
    manifest = read_manifest(first.path)
    assert manifest is not None
    assert manifest.spec == {"kind": "workload", "scale": "small", "seed": 0}
    stamps = {info.name: info.path.stat().st_mtime_ns for info in first.cases}
    again = open_dataset(SMALL, cache)
    assert {info.name: info.path.stat().st_mtime_ns for info in again.cases} == stamps
    assert [info.digest for info in again.cases] == [info.digest for info in first.cases]
    assert [c.name for c in again.select(Subset(names=("2DBox_Mic*",)))] == [
        "2DBox_Microscope_0008",
        "2DBox_Microscope_0016",
    ]
    info = next(c for c in again.cases if c.name == "2DBox_Microscope_0016")
    assert (info.modality, info.shape, info.objects) == ("Microscopy", (960, 1280, 3), 80)


def test_scale_and_seed_make_another_digest_without_generating(tmp_path: Path) -> None:
    specs = [SMALL, FULL, WorkloadData(seed=1), PhantomData()]
    assert len({dataset_digest(spec, tmp_path) for spec in specs}) == len(specs)
    assert dataset_digest(SMALL, tmp_path) == dataset_digest(WorkloadData(), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["2DBox_Microscope_0016", "3DBox_CT_0566"])
def test_the_largest_cases_are_generated_at_the_printed_size(name: str) -> None:
    wanted = named(FULL, name)
    assert (wanted.shape, wanted.objects) == PRINTED[name]
    assert_sound(draw(wanted), wanted)
