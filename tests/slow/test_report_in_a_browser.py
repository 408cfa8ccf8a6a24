"""Reports in Chromium, as a reader's eyes and mouse meet them: `make test-report`."""

import random
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from tests.folders import draw, write_run, write_sweep
from unmask.report import write

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: make test-report does that"
)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")

INKED = """figure => {
    const canvas = figure.querySelector("canvas");
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return pixels.filter((value, i) => i % 4 === 3 && value).length;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(params=[(1280, "light"), (400, "dark")], ids=["1280-light", "400-dark"])
def page(browser, request: pytest.FixtureRequest) -> Iterator["playwright.Page"]:
    """A window; whatever goes wrong in it, or is fetched, is remembered in `page.heard`."""
    width, scheme = request.param
    opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened.heard = []
    opened.on("pageerror", lambda error: opened.heard.append(str(error)))
    opened.on("console", lambda message: opened.heard.append(message.text))
    opened.on("request", lambda asked: asked.url.startswith("data:") or opened.heard.append(asked.url))
    yield opened
    opened.close()


def sweep_of(folder: Path, **keys: tuple[str, ...]) -> Path:
    random.seed(0)
    arms = [(dict(zip(keys, values, strict=True)), random.uniform(0, 20)) for values in product(*keys.values())]
    return write(write_sweep(folder, [*arms[:-1], (arms[-1][0], None)]))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = write_run(tmp_path / "run")
    draw(folder, size=64)
    return write(folder)


@pytest.fixture
def one_step(tmp_path: Path) -> Path:
    return write(write_run(tmp_path / "one_step", loss={20: 0.5}))


@pytest.fixture
def two_keys(tmp_path: Path) -> Path:
    return sweep_of(tmp_path / "two", objective=("mae", "simmim"), mask_ratio=("50", "75", "95"), seed=("0", "1", "2"))


@pytest.fixture
def three_keys(tmp_path: Path) -> Path:
    return sweep_of(tmp_path / "three", objective=("mae", "simmim"), mask_ratio=("50", "75"), depth=("2", "4", "12"))


@pytest.mark.parametrize("which", ["run", "one_step", "two_keys", "three_keys"])
def test_every_chart_is_drawn_nothing_is_fetched_and_it_fits_the_window(page, which: str, request):
    path = request.getfixturevalue(which)
    page.goto(path.as_uri())
    figures = page.query_selector_all("figure.chart")
    assert figures
    for figure in figures:
        assert figure.get_attribute("data-drawn") == "yes"
        assert figure.evaluate(INKED) > 500
    assert page.heard == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]


def test_pictures_show_and_sounds_can_be_played(page, run: Path):
    page.goto(run.as_uri())
    assert page.eval_on_selector(".medium img", "image => image.decode().then(() => image.naturalWidth)") == 64
    assert page.eval_on_selector("audio", "sound => (sound.load(), sound.play().then(() => sound.duration))") == 0.01


def test_a_click_on_a_heading_sorts_by_numbers_and_another_turns_it_round(page, two_keys: Path):
    page.goto(two_keys.as_uri())
    head = page.query_selector("#arms th:nth-child(6)")
    assert head.inner_text().startswith("linear accuracy")

    def values() -> list[str]:
        return page.eval_on_selector_all("#arms tbody td:nth-child(6)", "cells => cells.map(c => c.dataset.value)")

    before = values()
    numbers = sorted((value for value in before if value), key=float)
    assert before[:-1] != numbers
    for turned in (numbers, numbers[::-1]):
        head.click()
        assert values() == [*turned, ""]  # the arm that has failed is last either way


@pytest.mark.parametrize("which", ["run", "two_keys", "three_keys"])
def test_a_hover_tells_the_numbers(page, which: str, request):
    page.goto(request.getfixturevalue(which).as_uri())
    figure = page.query_selector("figure.chart")
    tip = figure.query_selector(".tip")
    assert not tip.is_visible()
    over = figure.query_selector(".u-over")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    end = {"run": "0.25", "two_keys": "mae:", "three_keys": "mae, "}[which]
    places = ((box["width"] - 3, box["height"] * share / 20) for share in range(20))
    told = []
    for x, y in places:
        over.hover(position={"x": x, "y": y})
        told += [tip.inner_text()] if tip.is_visible() else []
    assert any(end in words for words in told), told
    edge = tip.evaluate("tip => tip.getBoundingClientRect().right")
    assert edge <= page.viewport_size["width"]


def test_a_change_to_dark_draws_charts_again(page, run: Path):
    page.goto(run.as_uri())
    shade = "() => getComputedStyle(document.body).backgroundColor"
    before, scheme = page.evaluate(shade), page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    page.emulate_media(color_scheme="light" if scheme else "dark")
    assert page.evaluate(shade) != before
    assert page.query_selector("figure.chart").evaluate(INKED) > 1000
    assert page.eval_on_selector_all("figure.chart canvas", "all => all.length") == len(
        page.query_selector_all("figure.chart")
    )
