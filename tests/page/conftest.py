"""A comparison that never took place, its page, and a browser to open it with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graft import page
from page import browser, made


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison of two boards and six contestants with its page."""
    folder = tmp_path_factory.mktemp("run")
    made.tournament(folder)
    page.write(folder)
    return folder


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    """One headless Chromium for all tests of a process."""
    with browser.opened(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture
def view(chromium: browser.Browser, run: Path) -> Any:
    """The page in a window; `view(width=360)`, `view(dark=True)`. In the end: nothing was said, nobody was asked."""

    def open_page(**options: Any) -> browser.Browser:
        chromium.open(run / "page.html", **options)
        return chromium

    yield open_page
    assert chromium.said() == []
    assert chromium.asked() == []
