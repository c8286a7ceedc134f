"""Deployments on the page: overview, details, warnings in every table, and figures of many of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reports import deployments, figures, html, leaderboard, tables, views
from reports.frame import Run, load_run
from reports.summary import conclude
from reports.views.deployments import UNTRAINED
from tests.reports.deployed import FROZEN, NO_FUSE, NO_GRAPH, WEIGHTS, CrowdedRun, DeployedRun
from tests.reports.test_html import Words

BOTH = "mask agreement 0.9712, under 0.99; slower than eager torch, ×1.32"


@pytest.fixture(scope="module")
def page(deployed_run: Run) -> str:
    return html.render(deployed_run)


@pytest.fixture(scope="module")
def words(page: str) -> Words:
    return Words(page)


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Nine variants × seven deployments: more than any figure can hold."""
    return load_run(*CrowdedRun(tmp_path_factory.mktemp("crowded"), variants=9, deployments=7).write())


def table_of(page: str, name: str) -> str:
    start = page.index(f'id="t-{name}"')
    return page[start : page.index("</figure>", start)]


def test_the_section_says_status_reason_weights_and_reach(words: Words) -> None:
    said = words.sections["deployments"]
    for part in (
        "onnxruntime", "dynamic int8", "0.9999", "lowest 0.8123", "3.2·10⁻⁵", "×0.53", "encode ×0.53", "37.6 MiB",
        "87 of 120", "mask decoder 47", "36 %", "mask decoder 91 %", WEIGHTS["litemedsam"][:12],
        "trained here, 12 steps", "under-trained, 12 steps", "reference", "unsupported", "crashed", NO_FUSE, NO_GRAPH,
        FROZEN, "11 images with 24 masks", deployments.RULE, UNTRAINED,
    ):  # fmt: skip
        assert part in said, part


def test_the_overview_is_variants_by_deployments(page: str) -> None:
    overview = table_of(page, "deployment-overview")
    assert re.findall(r'<th scope="col"[^>]*>([^<]+)', overview) == ["Variant", "ort-fp32", "ort-int8", "fused"]
    assert overview.count('<th scope="row"') == 5
    assert '<span class="flag">1 under 0.99, 1 slower</span>' in overview
    assert '<span class="flag">under 0.99, slower</span>' in overview


def test_agreement_is_never_rounded_up_on_the_page(page: str) -> None:
    overview = table_of(page, "deployment-overview")
    assert "0.9899" in overview, "0.98996 is not shown as the 0.99 it misses"
    assert overview.count("1.0000") == 1, "0.9999972 is not all"


def test_the_warning_stands_in_every_table_that_shows_the_deployment(page: str) -> None:
    for name in (
        "leaderboard-1", "dsc-strict-1", "nsd-strict-1", "dsc-cvpr24-1", "nsd-cvpr24-1", "deployments", "runtime",
        "runtime-cases", "phases", "problems",
    ):  # fmt: skip
        table = table_of(page, name)
        rows = [row for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL) if "ort-int8" in row]
        mine = [row for row in rows if "litemedsam" in row]
        assert mine, name
        assert all(BOTH in row for row in mine), name
    assert "mask agreement 0.9899, under 0.99" in table_of(page, "ablations"), "the warning of the base"
    jobs = page[page.index('aria-label="Jobs"') :]
    assert jobs.count(BOTH) == 3, "its deploy, accuracy and runtime job"


def test_a_warning_stands_in_the_head_of_its_row(page: str) -> None:
    """The head of a row stays in sight on a narrow screen, whatever the table is scrolled to."""
    for name in ("leaderboard-1", "dsc-strict-1", "deployments", "runtime", "runtime-cases", "phases"):
        table = table_of(page, name)
        heads = re.findall(r'<th scope="row".*?</th>', table, re.DOTALL)
        assert any('class="flag"' in head for head in heads), name
        assert 'class="flag"' not in re.sub(r'<th scope="row".*?</th>', "", table, flags=re.DOTALL), name


def test_the_conclusions_name_what_is_flagged(words: Words) -> None:
    said = words.sections["conclusions"]
    assert "3 of 5 compared deployments give the masks of eager torch in fp32" in said
    assert "3 more cannot be applied" in said
    assert "Slower than eager torch on this machine: litemedsam · ort-int8 (×1.32) and tiny · ort-fp32 (×1.41)." in said
    assert "litemedsam · ort-int8 (agreement 0.9712) and tiny · ort-int8 (agreement 0.9899)" in said


def test_an_impossible_time_is_no_gap_of_the_run(words: Words) -> None:
    assert "The time of litemedsam in the sandbox process" not in words.sections["conclusions"]


def test_many_flagged_deployments_are_counted_not_listed(crowded: Run) -> None:
    shown = [table(crowded) for table in (tables.accuracy_summary, tables.runtime_summary, tables.fidelity)]
    said = " ".join(conclude(crowded, [], *shown).cannot)
    assert re.search(r"and \d+ more, flagged in the tables", said)
    assert said.count("litemedsam_variant") == 6


def test_a_run_without_other_deployments_has_no_section(run: Run) -> None:
    assert views.deployment_section(tables.fidelity(run)) is None
    assert 'href="#deployments"' not in html.render(run)


def test_one_deployment_needs_no_overview_and_keeps_its_remarks(deployed: DeployedRun) -> None:
    kept = ("fused",)
    deployed.data["jobs"] = [j for j in deployed.data["jobs"] if j["kind"] != "deploy" or j["deployment"] in kept]
    deployed.data["jobs"] = [j for j in deployed.data["jobs"] if j["deployment"] not in ("ort-fp32", "ort-int8")]
    section = views.deployment_section(tables.fidelity(load_run(*deployed.write())))
    assert section is not None
    assert section.overview is None
    assert not section.folded
    assert section.details.remarks == (f"fused of litemedsam: unsupported: {NO_FUSE}",)


def test_of_many_deployments_the_overview_stays_and_the_details_fold(crowded: Run) -> None:
    section = views.deployment_section(tables.fidelity(crowded))
    assert section is not None
    assert section.folded
    assert section.details.tall, "a long table scrolls under its own head"
    assert section.overview is not None
    assert (len(section.overview.rows), len(section.overview.columns)) == (9, 7)
    assert any("of every variant" in r or "litemedsam_variant" in r for r in section.overview.remarks)


def test_an_unsupported_deployment_is_told_once_for_every_variant(deployed: DeployedRun) -> None:
    from tests.reports.deployed import unsupported

    for variant in ("tiny", "swiftmedsam_v2", "dummy"):
        deployed.deploy(variant, "fused", unsupported(NO_FUSE))
    section = views.deployment_section(tables.fidelity(load_run(*deployed.write())))
    assert section is not None
    assert section.overview is not None
    assert f"fused of every variant: unsupported: {NO_FUSE}" in section.overview.remarks


def test_figures_of_many_deployments_name_variants_alone(crowded: Run) -> None:
    rows = leaderboard.rows(crowded)
    assert len(rows) > figures.CROWDED
    drawn = figures.accuracy_cost(rows, "phantoms", "torch-fp32")
    dots = figures.modality_dots(tables.accuracy_by_modality(crowded), rows, "phantoms", "torch-fp32")
    for figure in (drawn, dots):
        assert figure is not None
        assert len(re.findall(r"<text[^>]*>litemedsam_variant_\d\d</text>", figure.svg)) == 9
        assert "torch-fp32" in figure.caption
        assert "onnxruntime" not in figure.svg
    assert drawn is not None
    assert "Small markers" in drawn.caption


def test_bars_of_many_deployments_show_one_of_every_variant(crowded: Run) -> None:
    phases = tables.phases(crowded)
    figure = figures.phase_bars(phases, True, "torch-fp32")
    assert figure is not None
    assert len(re.findall(r"<text[^>]*>litemedsam_variant_\d\d · torch-fp32", figure.svg)) == 9
    assert "all others in the table of phases" in figure.caption


def test_a_variant_without_the_main_deployment_keeps_a_bar_and_a_marker(crowded: Run) -> None:
    rows = leaderboard.rows(crowded)
    phases = tables.phases(crowded)
    bars = figures.phase_bars(phases, True, "of none")
    cost = figures.accuracy_cost(rows, "phantoms", "of none")
    assert bars is not None
    assert cost is not None
    for name in crowded.variant_order():
        assert name in bars.svg
        assert name in cost.svg


def test_a_flagged_series_says_so_in_the_legend_and_beside_its_bar(deployed_run: Run) -> None:
    drawn = figures.accuracy_cost(leaderboard.rows(deployed_run), "phantoms")
    bars = figures.phase_bars(tables.phases(deployed_run), True)
    assert drawn is not None
    assert bars is not None
    assert "litemedsam · ort-int8 (flagged)" in drawn.svg
    assert "litemedsam · ort-fp32 (flagged)" not in drawn.svg
    assert "litemedsam · ort-int8 · process (flagged)" in bars.svg


def test_a_flag_is_not_hidden_by_the_style_of_narrow_screens() -> None:
    style = (Path(html.__file__).parent / "templates" / "style.css").read_text()
    rules = re.findall(r"([^{}]*\.flag[^{}]*)\{([^}]*)\}", style)
    assert rules
    assert not any("none" in body or "hidden" in body for _, body in rules)
