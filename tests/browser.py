"""A real browser for tests of pages: Debian's chromium, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser; skips where playwright or a browser is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the path")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=list(FLAGS))
        yield browser
        browser.close()


class Tab:
    """A page opened from disk that records errors and every request to somewhere else."""

    def __init__(self, browser: Any, path: Path, fragment: str = "", **context: Any) -> None:
        """Open a file; ``context`` are playwright's settings of a browser context."""
        self.context = browser.new_context(offline=True, **context)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._said)
        self.page.on("request", lambda request: self._asked(request.url, path))
        self.page.goto(path.as_uri() + fragment)

    def _said(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _asked(self, url: str, path: Path) -> None:
        if not url.startswith(("data:", "blob:", path.parent.as_uri())):
            self.requests.append(url)

    def close(self) -> None:
        """Close it, and fail on an error in the page or a request."""
        self.context.close()
        assert self.errors == []
        assert self.requests == []
