from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reports import html
from reports.frame import Run
from tests.reports.cdp import Browser, find_chromium

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    binary = find_chromium()
    if binary is None:
        message = "no chromium found; install one or name it in MEDSAM_BENCH_CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with Browser(binary, tmp_path_factory.mktemp("profile"), seconds=180) as browser:
        yield browser


@pytest.fixture(scope="module", params=["run", "deployed_run"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the made-up run, without and with deployments."""
    run: Run = request.getfixturevalue(request.param)
    return html.write(run, tmp_path_factory.mktemp("page") / "report.html").as_uri()


@pytest.mark.parametrize("width", [390, 1366])
def test_the_page_opens_without_errors_and_without_the_network(browser: Browser, url: str, width: int) -> None:
    browser.open(url, width)
    errors = [e for e in browser.of("Log.entryAdded") if e["entry"]["level"] in ("error", "warning")]
    assert not errors
    assert not browser.of("Runtime.exceptionThrown")
    requested = {e["request"]["url"] for e in browser.of("Network.requestWillBeSent")}
    assert {u for u in requested if not u.startswith("data:")} == {url}


@pytest.mark.parametrize("width", [320, 390, 768, 1366])
def test_the_page_never_scrolls_sideways(browser: Browser, url: str, width: int) -> None:
    browser.open(url, width)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("innerWidth") == width


def test_the_leaderboard_fits_a_laptop(browser: Browser, url: str) -> None:
    browser.open(url, 1366)
    box = "document.querySelector('#leaderboard .scroll')"
    assert browser.evaluate(f"{box}.scrollWidth - {box}.clientWidth") <= 1


@pytest.mark.parametrize("width", [320, 390, 1366])
def test_the_notes_of_a_row_are_in_sight_however_far_its_table_is_scrolled(
    browser: Browser, url: str, width: int
) -> None:
    browser.open(url, width)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    notes = "[...document.querySelectorAll('tbody th .flag, tbody th .note')]"
    seen = "(b => b.width > 0 && b.height > 0 && b.left >= 0 && b.right <= innerWidth)(e.getBoundingClientRect())"
    assert browser.evaluate(f"{notes}.length") > 10
    if width < 640:  # there the tables do not fit, and the heads of their rows stay where they are
        browser.evaluate("document.querySelectorAll('.scroll').forEach(s => s.scrollLeft = 200)")
    assert browser.evaluate(f"{notes}.every(e => {seen})")


def test_text_is_large_enough_on_a_phone(browser: Browser, url: str) -> None:
    browser.open(url, 390)
    shown = "[...document.querySelectorAll('td, th, li, p, dd, .small, .tag')]"
    assert browser.evaluate(f"Math.min(...{shown}.map(e => parseFloat(getComputedStyle(e).fontSize)))") >= 11


def test_a_column_sorts_by_click_and_by_key_and_back(browser: Browser, url: str) -> None:
    browser.open(url, 1366)
    column = "[...document.querySelectorAll('#leaderboard tbody tr')].map(r => r.cells[2].dataset.sort ?? null)"
    before = browser.evaluate(column)
    browser.evaluate("document.querySelectorAll('#leaderboard thead th')[2].click()")
    values = [float(v) for v in browser.evaluate(column) if v is not None]
    assert values == sorted(values)
    assert browser.evaluate(column)[-1] is None, "cells without a value stay last"
    key = "new KeyboardEvent('keydown', {key: 'Enter'})"
    browser.evaluate(f"document.querySelectorAll('#leaderboard thead th')[2].dispatchEvent({key})")
    values = [float(v) for v in browser.evaluate(column) if v is not None]
    assert values == sorted(values, reverse=True)
    browser.evaluate("document.querySelectorAll('#leaderboard thead th')[2].click()")
    assert browser.evaluate(column) == before


def test_the_page_reads_the_same_without_script(browser: Browser, url: str) -> None:
    browser.open(url, 1366)
    with_script = browser.evaluate("document.querySelector('main').innerText")
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(url, 1366)
        assert browser.evaluate("document.querySelector('main').innerText") == with_script
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


# Contrast of the text against the nearest background that is not transparent (WCAG 2.1, relative luminance).
CONTRAST = """
(() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => sum + weight * linear(rgb[i] / 255), 0);
  const mix = (over, under) => over.slice(0, 3).map((v, i) => v * (over[3] ?? 1) + under[i] * (1 - (over[3] ?? 1)));
  const ground = (e) => {
    const own = parse(getComputedStyle(e).backgroundColor);
    const below = e.parentElement ? ground(e.parentElement) : parse(getComputedStyle(document.body).backgroundColor);
    return mix(own, below);
  };
  let worst = 99, where = "";
  const words = "p, li, td, th, dt, dd, h1, h2, h3, a, summary, figcaption, .small, .note, .badge, .tag, .sub";
  for (const e of document.querySelectorAll(words)) {
    if (!e.innerText || !e.innerText.trim()) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst) { worst = ratio; where = e.tagName + "." + e.className + ": " + e.innerText.slice(0, 30); }
  }
  return [worst, where];
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_light_and_dark(browser: Browser, url: str, scheme: str) -> None:
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    try:
        browser.open(url, 1366)
        worst, where = browser.evaluate(CONTRAST)
        assert worst >= 4.5, where
    finally:
        browser.call("Emulation.setEmulatedMedia", features=[])


def test_a_printed_page_opens_what_was_folded(browser: Browser, url: str, tmp_path: Path) -> None:
    browser.open(url, 1366)
    assert browser.call("Page.printToPDF")["data"]
    assert browser.evaluate("[...document.querySelectorAll('details')].every(d => d.open)")


def test_figures_use_the_width_of_the_page_and_stay_readable_on_a_phone(browser: Browser, url: str) -> None:
    browser.open(url, 1366)
    share = "svg.getBoundingClientRect().width / document.querySelector('main').getBoundingClientRect().width"
    figures = "[...document.querySelectorAll('.drawing svg')]"
    assert browser.evaluate(f"Math.min(...{figures}.map(svg => {share}))") > 0.98
    browser.open(url, 390)
    frame = "svg.parentElement.getBoundingClientRect().right <= innerWidth"
    assert browser.evaluate(f"{figures}.every(svg => {frame})")
    assert browser.evaluate(f"Math.min(...{figures}.map(svg => svg.getBoundingClientRect().width))") >= 828
