from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import reports
from harness.schema import MODALITIES
from reports import board, html
from reports.frame import Run, load_run
from tests.reports.synthetic import LOOP, NO_DOCKER, OOM, SyntheticRun


class Words(HTMLParser):
    """Visible text of every section, by its id, and all tags with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sections: dict[str, str] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._section, self._hidden = "", 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
        self._hidden += tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("style", "script")
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.sections[self._section] = " ".join(f"{self.sections.get(self._section, '')} {data}".split())


@pytest.fixture(scope="module")
def words(page: str) -> Words:
    return Words(page)


def test_the_page_names_no_address_outside_itself(words: Words, page: str) -> None:
    for tag, attributes in words.tags:
        for name in ("href", "src", "srcset", "action", "data", "poster"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:,")), f"<{tag} {name}={value}>"
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", page.replace(NO_DOCKER, ""))
    assert "default-src 'none'" in page


def test_the_same_run_gives_the_same_bytes(run: Run, page: str) -> None:
    assert html.render(run) == page


def test_the_report_is_written_into_the_run_folder_or_where_asked(synthetic: SyntheticRun, tmp_path: Path) -> None:
    folder, store = synthetic.write()
    assert reports.write_report(folder, store) == folder / "report.html"
    there = tmp_path / "elsewhere" / "page.html"
    assert reports.write_report(folder, store, there).read_bytes() == (folder / "report.html").read_bytes()


def test_the_training_note_stands_wherever_accuracy_stands(words: Words) -> None:
    for section in ("conclusions", "leaderboard", "accuracy", "training", "ablations"):
        assert "under-trained, 120 steps" in words.sections[section], section
    assert "say nothing about how good a model is" in words.sections["conclusions"]


def test_only_of_our_own_images_every_phase_is_said_to_be_recorded(synthetic: SyntheticRun, words: Words) -> None:
    assert "every phase recorded" in words.sections["conclusions"]
    synthetic.data["variants"]["swiftmedsam_v2"]["family"] = "image"
    assert "every phase recorded" not in html.render(load_run(*synthetic.write()))


def test_no_note_no_banner(synthetic: SyntheticRun) -> None:
    synthetic.data["jobs"] = [j for j in synthetic.data["jobs"] if j["variant"] == "dummy"]
    page = html.render(load_run(*synthetic.write()))
    assert 'class="banner"' not in page
    assert "under-trained" not in Words(page).sections["leaderboard"].replace("under-trained, n steps", "")


def test_every_status_is_a_badge_and_its_reason_is_text(words: Words, page: str) -> None:
    for status in ("oom", "crashed", "invalid-output", "skipped", "unsupported"):
        assert re.search(rf'<span class="badge \w+" title="[^"]+">{status}</span>', page), status
    problems = words.sections["problems"]
    for reason in (NO_DOCKER, OOM, "its training failed", "the loss is not a number", "values that are not finite"):
        assert reason in problems


def test_every_variant_stays_in_the_leaderboard(words: Words, run: Run) -> None:
    for label in run.info.variants:
        assert label in words.sections["leaderboard"]


def test_all_modalities_and_both_protocols_are_named(words: Words) -> None:
    text = words.sections["accuracy"]
    for modality in MODALITIES:
        assert modality in text
    for title in ("DSC, protocol strict", "NSD, protocol strict", "DSC, protocol cvpr24", "NSD, protocol cvpr24"):
        assert title in text
    assert "Macro" in text
    assert "Micro" in text


def test_a_tiny_size_is_marked_and_not_taken_for_a_papers_model(words: Words) -> None:
    assert "paper's model from tiny and tiny-depth2" in words.sections["conclusions"]
    assert words.sections["leaderboard"].count("tiny tiny") == 1


def test_provenance_says_machine_versions_digest_commit_and_command(words: Words, run: Run) -> None:
    text = words.sections["provenance"]
    provenance = run.info.provenance
    assert provenance.machine
    assert provenance.git
    for said in (
        provenance.machine.fingerprint,
        provenance.machine.cpu,
        provenance.git.commit,
        provenance.datasets["phantoms"].digest or "",
        "torch 2.13.0",
        "bench run suites/quickstart.yaml budget.steps=12",
        "uncommitted changes",
        run.info.id,
    ):
        assert said in text


def test_numbers_without_provenance_are_not_shown_and_the_page_says_why(synthetic: SyntheticRun) -> None:
    synthetic.data["provenance"] |= {"machine": None}
    words = Words(html.render(load_run(*synthetic.write())))
    assert "8.00 GiB" not in words.sections["runtime"]
    assert "does not state the machine" in words.sections["runtime"]
    assert "does not state the machine" in words.sections["conclusions"]


def test_an_interrupted_run_says_so_at_the_top(synthetic: SyntheticRun) -> None:
    synthetic.data["status"] = "interrupted"
    synthetic.job("accuracy", "dummy")["state"] = "pending"
    del synthetic.records[synthetic.job("accuracy", "dummy")["digest"]]
    words = Words(html.render(load_run(*synthetic.write())))
    assert "the run is interrupted, 1 of 29 jobs were not reached" in words.sections["conclusions"]
    assert "the run has not reached this job" in words.sections["problems"]


def test_hostile_names_and_reasons_are_text(synthetic: SyntheticRun) -> None:
    evil = "<script>alert(1)</script>"
    synthetic.data["suite"]["title"] = evil
    synthetic.job("runtime", "dummy", sandbox="docker")["reason"] = f'"><img src=x onerror=alert(1)> {evil}'
    page = html.render(load_run(*synthetic.write()))
    assert evil not in page
    assert "<img" not in page


def test_a_run_that_measured_nothing_is_still_a_page(synthetic: SyntheticRun) -> None:
    synthetic.data |= {"jobs": [], "status": "running", "finished": None, "seconds": None}
    page = html.render(load_run(*synthetic.write()))
    assert "no accuracy was measured" in page
    assert '<h2 id="h-provenance">' in page


def test_tables_are_marked_up_for_a_screen_reader(words: Words, run: Run) -> None:
    scrolls = [a for tag, a in words.tags if tag == "div" and a.get("class") == "scroll"]
    assert scrolls
    assert all(a["role"] == "region" and a["tabindex"] == "0" and a["aria-label"] for a in scrolls)
    heads = [a.get("scope") for tag, a in words.tags if tag == "th"]
    assert set(heads) == {"col", "row"}
    assert heads.count("row") > len(run.info.jobs), "in every table, not that of the jobs alone"
    assert ("html", {"lang": "en"}) in words.tags


@pytest.mark.parametrize(
    ("iso", "shown"),
    [
        ("2026-01-02T03:04:05Z", "2 January 2026, 03:04 UTC"),
        ("2026-01-02T03:04:05+02:00", "2 January 2026, 01:04 UTC"),
        (None, "–"),
        ("yesterday", "yesterday"),
    ],
)
def test_times_are_shown_in_utc(iso: str | None, shown: str) -> None:
    assert html.moment(iso) == shown


def test_the_3d_loop_of_the_volumes_is_named(page: str) -> None:
    assert f"Volumes: 3D loop {LOOP}." in page


def test_variants_with_loops_of_their_own_are_told_apart(tmp_path: Path) -> None:
    written = SyntheticRun(tmp_path)
    jobs = [job for job in written.data["jobs"] if job["kind"] == "accuracy" and job["settings"].get("loop")]
    jobs[0]["settings"]["loop"] = "gray"
    run = load_run(*written.write())
    found = html.loops(run, board.rows(run))
    assert f"Volumes of {jobs[0]['variant']}: 3D loop gray." in found
    assert any(LOOP in line for line in found)
