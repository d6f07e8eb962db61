"""The page as a person meets it: opened from disk, clicked, typed at, narrow, dark, printed."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graft import page
from page import made
from page.browser import Browser

View = Callable[..., Browser]

# What a heading's table holds in its column, as shown, of the rows that have a value.
COLUMN = """
const [table, column] = arguments;
return [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.key).filter((key) => key !== "");
"""


def column(browser: Browser, table: Any, at: int) -> list[float]:
    """The numbers a column sorts by, from top to bottom."""
    return [float(key) for key in browser.run(COLUMN, table, at)]


def count(browser: Browser) -> int:
    """How many items the explorer says it found."""
    return int(browser.find("#count")[0].text.split(" of ")[0].replace(",", ""))


def test_text_that_looks_like_markup_is_text(view: View) -> None:
    browser = view()
    assert browser.run("return window.broken") is None
    assert made.HOSTILE in browser.run("return document.body.innerText")
    assert "no language head <b>here</b>" in browser.run("return document.body.textContent")
    assert browser.find("main img, #data ~ script ~ script") == []


def test_a_click_on_a_heading_sorts_and_another_turns_it_round(view: View) -> None:
    browser = view()
    table = browser.find(".board:not([hidden]) table.costs")[0]
    heading = table.find_elements("css selector", "th button.sort")[2]
    browser.click(heading)
    found = column(browser, table, 2)
    assert found == sorted(found) and len(set(found)) > 3
    cell = heading.find_element("xpath", "..")
    assert cell.get_attribute("aria-sort") == "ascending"
    browser.click(heading)
    assert column(browser, table, 2) == sorted(found, reverse=True)
    assert cell.get_attribute("aria-sort") == "descending"
    # Who failed stays below, either way; and a second heading takes the sign from the first.
    assert "prefix_tuning" in table.find_elements("css selector", "tbody tr")[-1].text
    browser.click(table.find_elements("css selector", "th button.sort")[0])
    assert cell.get_attribute("aria-sort") is None
    names = [row.text.split()[0] for row in table.find_elements("css selector", "tbody th")]
    assert names == sorted(names)


def test_the_keyboard_alone_sorts_and_skips(view: View) -> None:
    from selenium.webdriver.common.keys import Keys

    browser = view()
    body = browser.find("body")[0]
    body.send_keys(Keys.TAB)
    assert browser.run("return document.activeElement.className") == "skip"
    assert browser.run("return document.activeElement.getBoundingClientRect().left") >= 0
    heading = browser.find(".overview button.sort")[1]
    browser.run("arguments[0].focus()", heading)
    heading.send_keys(Keys.ENTER)
    assert heading.find_element("xpath", "..").get_attribute("aria-sort") == "descending"
    heading.send_keys(Keys.SPACE)
    assert heading.find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    heading.send_keys(Keys.TAB)
    assert browser.run("return document.activeElement.classList.contains('sort')")
    assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_search_rightness_and_flips_change_what_is_found(view: View, run: Path) -> None:
    rows = [row for row in pq.read_table(run / "items.parquet").to_pylist() if row["board"] == "minilm-trec-1000"]
    browser = view()
    assert count(browser) == len(rows) == 40
    search = browser.find("#search")[0]
    browser.click(search)
    search.send_keys("OSMOSIS")
    assert count(browser) == sum("osmosis" in row["input"] for row in rows) == 4
    browser.click(browser.find("#explorer button[type=reset]")[0])
    browser.run("return new Promise((done) => setTimeout(done, 50))")
    assert count(browser) == 40

    browser.click(browser.find("#explorer summary")[0])
    browser.choose("#rights label:nth-child(5) select", "wrong")  # zero_shot: prefix_tuning failed and is not there
    wrong = [row for row in rows if row["zero_shot.score"] < 50]
    assert count(browser) == len(wrong) > 0
    browser.choose("#rights label:nth-child(1) select", "right")
    assert count(browser) == sum(row["full.score"] > 50 for row in wrong)
    browser.click(browser.find("#explorer button[type=reset]")[0])

    browser.choose("#flip-a", "full")
    browser.choose("#flip-b", "tfidf")
    moved = [(row["full.score"] > 50, row["tfidf.score"] > 50) for row in rows]
    for words, wanted in {"only lost": [(True, False)], "gained or lost": [(True, False), (False, True)]}.items():
        browser.choose("#flip-way", words)
        assert count(browser) == sum(pair in wanted for pair in moved) > 0


def test_pages_turn_and_flips_of_the_table_lead_to_their_items(view: View) -> None:
    browser = view()
    first = browser.find("#found article")[0].text
    assert len(browser.find("#found article")) == 10 and not browser.find("#previous")[0].is_enabled()
    for _ in range(3):
        browser.click(browser.find("#next")[0])
    assert browser.find("#page")[0].text == "Page 4 of 4" and not browser.find("#next")[0].is_enabled()
    assert browser.find("#found article")[0].text != first
    button = browser.find(".board:not([hidden]) button.flips")[0]
    browser.click(button)
    browser.run("return new Promise((done) => setTimeout(done, 50))")
    assert browser.run("return document.getElementById('flip-way').value") == "both"
    assert 0 < count(browser) < 40


def test_another_board_changes_tables_charts_and_items(view: View) -> None:
    browser = view()
    before = browser.find("#plot-quality svg desc")[0].get_attribute("textContent")
    assert [block.get_attribute("data-board") for block in browser.find(".board:not([hidden])")] == ["0"] * 3
    browser.choose("#board", "trec · 100 rows · MiniLM")
    assert [block.get_attribute("data-board") for block in browser.find(".board:not([hidden])")] == ["1"] * 3
    after = browser.find("#plot-quality svg desc")[0].get_attribute("textContent")
    assert before != after and "prefix_tuning" in after and "zero_shot" not in after
    assert "trec/test.jsonl" in browser.find("#found")[0].text


def test_every_cost_can_be_drawn_and_names_cover_neither_each_other_nor_the_edge(view: View) -> None:
    browser = view()
    boxes = """
    const frame = document.querySelector("#plot-quality svg").getBoundingClientRect();
    return [...document.querySelectorAll("#plot-quality text.halo")].map((text) => text.getBoundingClientRect())
      .map((box) => [box.left - frame.left, box.top - frame.top, frame.right - box.right, frame.bottom - box.bottom, box.width, box.height]);
    """  # noqa: E501
    for cost in [option.text for option in browser.find("#cost option")]:
        browser.choose("#cost", cost)
        found = browser.run(boxes)
        assert found, cost
        for at, (left, top, right, bottom, width, height) in enumerate(found):
            assert min(left, top, right, bottom) >= 0, cost
            for other in found[at + 1 :]:
                apart = abs(left - other[0]) >= min(width, other[4]) * 0.9 or abs(top - other[1]) >= height * 0.7
                assert apart or left + width <= other[0] or other[0] + other[4] <= left, cost


def test_curves_follow_their_selects_and_boxes(view: View) -> None:
    browser = view()
    lines = len(browser.find("#plot-curves path.curve:not(.thin)"))
    assert lines == 3 and len(browser.find("#plot-curves path.thin")) == 9
    browser.click(browser.find("#curve-legend input")[0])
    assert len(browser.find("#plot-curves path.curve:not(.thin)")) == lines - 1
    browser.choose("#curve-y", "on validation rows")
    browser.choose("#curve-x", "seconds")
    title = browser.find("#plot-curves svg title")[0].get_attribute("textContent")
    assert title == "validation loss by seconds"


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_is_wider_than_the_window(view: View, width: int) -> None:
    browser = view(width=width)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    outside = """
    return [...document.querySelectorAll("main *")]
      .filter((node) => !node.closest(".scroll, .hidden, .command") && node.getBoundingClientRect().right > innerWidth)
      .map((node) => node.outerHTML.slice(0, 90));
    """
    assert browser.run(outside) == []


def test_dark_is_dark_and_readable(view: View) -> None:
    colors = "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]"
    assert view().run(colors) == ["rgb(255, 255, 255)", "rgb(27, 32, 39)"]
    assert view(dark=True).run(colors) == ["rgb(16, 20, 24)", "rgb(228, 232, 236)"]


def test_every_control_has_a_name_and_every_region_and_picture_too(view: View) -> None:
    browser = view()
    browser.run("for (const each of document.querySelectorAll('details')) each.open = true")
    for control in browser.find("main select, main input, main button, #board"):
        assert control.accessible_name.strip() or not control.is_displayed(), control.get_attribute("outerHTML")
    for picture in browser.find("svg[role=img]"):
        assert picture.accessible_name.strip()
    for region in browser.find("[role=region]"):
        assert region.get_attribute("aria-label").strip() and region.get_attribute("tabindex") == "0"
    for table in browser.find("table"):
        assert table.find_elements("css selector", "th[scope=col], thead th")
    levels = [int(heading.tag_name[1]) for heading in browser.find("h1, h2, h3, h4") if heading.is_displayed()]
    assert levels.count(1) == 1 and all(b - a <= 1 for a, b in pairwise(levels))


def test_it_prints_every_board_in_light(view: View) -> None:
    browser = view(dark=True)
    browser.command("Emulation.setEmulatedMedia", media="print")
    shown = [block.is_displayed() for block in browser.find("#scores .board")]
    assert shown == [True, True]
    assert not browser.find("#explorer")[0].is_displayed()
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser.command("Emulation.setEmulatedMedia", media="")
    assert browser.print().startswith(b"%PDF")


def test_one_board_with_nothing_but_failures_has_a_page_too(chromium: Browser, tmp_path: Path) -> None:
    found = made.tournament(tmp_path, boards=1, contestants=2)
    for line in found["boards"][0]["lines"]:
        line |= {"status": "failed", "score": None, "error": "out of memory", "costs": {}, "curve": []}
    found |= {"ranks": None, "sweeps": [], "ablations": [], "transfer": [], "trials": []}
    found["boards"][0]["pairs"] = []
    (tmp_path / "standings.json").write_text(json.dumps(found))
    (tmp_path / "items.parquet").unlink()
    page.write(tmp_path)
    chromium.open(tmp_path / "page.html")
    assert "out of memory" in chromium.find("table.scores")[0].text
    assert chromium.said() == []


def test_a_graded_metric_where_less_is_better(chromium: Browser, tmp_path: Path) -> None:
    found = made.tournament(tmp_path, boards=1, contestants=3, items=21, seeds=1)
    found |= {"metric": {"name": "ter", "title": "TER", "unit": "%", "higher_is_better": False}, "ranks": None}
    (tmp_path / "standings.json").write_text(json.dumps(found))
    rows = pq.read_table(tmp_path / "items.parquet").to_pylist()
    graded = [row | {"full.score": 3.5 * at, "lora.score": 40.25, "bitfit.score": 71.0} for at, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(graded), tmp_path / "items.parquet")
    page.write(tmp_path)
    chromium.open(tmp_path / "page.html")
    scores = column(chromium, chromium.find("table.scores")[0], 1)
    assert scores == sorted(scores) and len(scores) == 3  # the best, which is the lowest, first
    chromium.click(chromium.find("#explorer summary")[0])
    chromium.choose("#rights label:nth-child(1) select", "better half")
    middle = median(row[name] for row in graded for name in ("full.score", "lora.score", "bitfit.score"))
    assert count(chromium) == sum(row["full.score"] < middle for row in graded) > 0
    assert chromium.said() == []


def test_one_item_and_one_seed_are_enough_for_a_page(chromium: Browser, tmp_path: Path) -> None:
    made.tournament(tmp_path, boards=1, contestants=13, items=1, seeds=1)
    page.write(tmp_path)
    chromium.open(tmp_path / "page.html")
    assert chromium.find("#count")[0].text == "1 of 1 items"
    assert chromium.said() == []
