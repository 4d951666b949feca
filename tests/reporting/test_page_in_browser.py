"""The page in a real browser, without a network: nothing fails, all pictures are shown, nothing sticks out sideways."""

import pytest
from browser import CHROMIUM, Browser
from fabricated import STUDY, write_results

from blurdiff.cli import main

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
RUNS = ["rooms_none", "rooms_quartic"]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    long = "| n |\n|---:|\n" + "".join(f"| {n} |\n" for n in range(20))
    config = write_results(folder, sampler_study=STUDY, figures={"figure1": RUNS, "samples": RUNS, "metrics": RUNS})
    (folder / "results" / "metrics.md").write_text(long)
    assert main(["page", "--config", str(config)]) == 0
    return folder / "results" / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_opens_without_a_network(width, scheme, browser, page):
    browser.open(page, width, scheme)
    pictures = browser.evaluate("[...document.images].map(image => [image.complete, image.naturalWidth])")
    assert len(pictures) == 12 and all(complete and natural > 0 for complete, natural in pictures)
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    dark = browser.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    told = {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"}
    assert [event for event in browser.events if event["method"] in told] == []
    asked = [
        event["params"]["request"]["url"] for event in browser.events if event["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]


def test_tables_are_sorted_as_numbers(browser, page):
    browser.open(page, 1280, "light")
    column = "[...document.querySelectorAll('#samplers tbody tr')].map(row => row.cells[5].textContent)"
    assert browser.evaluate(column) == ["9.5", "80.0"]
    click = "document.querySelectorAll('#samplers th button')[5].click()"
    for expected in (["9.5", "80.0"], ["80.0", "9.5"]):
        browser.evaluate(click)
        assert browser.evaluate(column) == expected
    # Long tables are short until one asks for the rest.
    shown = "[...document.querySelectorAll('#{} tbody tr')].filter(row => row.offsetHeight).length"
    assert browser.evaluate(shown.format("metrics")) == 12
    browser.evaluate("document.querySelector('#metrics .all').click()")
    assert browser.evaluate(shown.format("metrics")) == 20
    assert browser.evaluate("document.querySelectorAll('#samplers th')[5].getAttribute('aria-sort')") == "descending"
