"""A headless Chromium that opens a page and reports its requests, its console and its content."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

REQUIRED = "CAMSEG_REQUIRE_BROWSER"
"""Set in the environment by `.ci/run`: without a browser, tests then fail instead of skipping."""

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
"""Its names on different systems."""

DRIVER = "chromedriver"

LOAD_SECONDS = 60
"""A page that has not loaded by then fails its test."""

FLAGS = (
    "--headless",
    "--no-sandbox",  # as root in a container there is no sandbox
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
)


FAINT_TEXTS = """
const numbers = color => color.match(/[\\d.]+/g).map(Number);
const over = (color, back) => {
  const [r, g, b, alpha = 1] = numbers(color);
  return [r, g, b].map((each, i) => alpha * each + (1 - alpha) * back[i]);
};
const behind = e => e === null ? [255, 255, 255]
  : over(getComputedStyle(e).backgroundColor, behind(e.parentElement));
const light = color => color.map(c => c / 255)
  .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0.05);
const texts = Array.from(document.body.querySelectorAll('*')).filter(e => e.checkVisibility()
    && Array.from(e.childNodes).some(n => n.nodeType === Node.TEXT_NODE && n.data.trim()));
if (!texts.length) return ['the page has no text'];
return texts.map(e => {
    const back = behind(e), style = getComputedStyle(e);
    const ink = over(e.closest('svg') ? style.fill : style.color, back);
    const [low, high] = [light(ink), light(back)].sort((a, b) => a - b);
    return [high / low, e];
  })
  .filter(([ratio]) => !(ratio >= 4.5))
  .map(([ratio, e]) => `${e.tagName}.${e.className}: ${ratio.toFixed(2)} ${e.textContent.trim()}`);
"""
"""Texts with less contrast than WCAG's 4.5 against the colours of the elements around them."""


class Page:
    """A page in the browser."""

    def __init__(self, driver: Any, path: Path) -> None:
        """Open the file at `path`."""
        self._driver = driver
        driver.get("about:blank")  # stops what the previous page still loads
        for log in ("performance", "browser"):
            driver.get_log(log)  # reading clears a log, so that it is this page's from here on
        driver.get(path.as_uri())
        self.path = path
        self._wait_until_loaded()

    def _wait_until_loaded(self) -> None:
        # `get` may take the end of about:blank's loading for the page's, and return while a busy
        # browser has only read a part of the file
        from selenium.webdriver.support.ui import WebDriverWait

        loaded = "return location.href === arguments[0] && document.readyState === 'complete'"
        WebDriverWait(self._driver, LOAD_SECONDS).until(
            lambda _: self.run(loaded, self.path.as_uri())
        )

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script and return its result; the page's content policy does not apply to it."""
        return self._driver.execute_script(script, *arguments)

    def figures(self, metric: str) -> list[dict[str, str]]:
        """The elements with this `data-metric`: `text` as shown, and their other `data-` values."""
        found: list[dict[str, str]] = self.run(
            "return Array.from(document.querySelectorAll('[data-metric]'))"
            ".filter(e => e.dataset.metric === arguments[0])"
            ".map(e => ({...e.dataset, text: e.innerText.trim()}))",
            metric,
        )
        return found

    def figure(self, metric: str) -> str:
        """The text of the only element with this `data-metric`."""
        (found,) = self.figures(metric)
        return found["text"]

    def requests(self) -> list[str]:
        """Every address requested since the page was opened, except `data:`."""
        messages = [
            json.loads(each["message"])["message"] for each in self._driver.get_log("performance")
        ]
        urls = [
            each["params"]["request"]["url"]
            for each in messages
            if each["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith("data:")]

    def complaints(self) -> list[str]:
        """The messages in the browser's console."""
        return [each["message"] for each in self._driver.get_log("browser")]

    def show_dark(self, dark: bool) -> None:
        """Set the preferred colour scheme, as a reader's system does."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def faint_texts(self) -> list[str]:
        """The texts that are hard to read by day or by night, see `FAINT_TEXTS`."""
        found: list[str] = []
        for dark in (True, False):
            self.show_dark(dark)
            found += self.run(FAINT_TEXTS)
        return found

    def screenshot(self, path: Path, width: int = 1240) -> None:
        """Write the whole page as PNG."""
        self._driver.set_window_size(width, 1000)
        height = self.run("return document.documentElement.scrollHeight")
        self._driver.set_window_size(width, min(height + 200, 16000))
        self._driver.save_screenshot(str(path))


class Browser:
    """A running browser."""

    def __init__(self, driver: Any) -> None:
        """Wrap selenium's `driver`."""
        self._driver = driver

    def open(self, path: Path) -> Page:
        """Open a file."""
        return Page(self._driver, path)


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start a browser with a new profile in the empty folder `profile`.

    Without one, the test is skipped, or fails if `REQUIRED` is set.
    """
    chromium, driver = next(filter(None, map(shutil.which, CHROMIUM)), None), shutil.which(DRIVER)
    if chromium is None or driver is None:
        missing = f"{CHROMIUM[0]} or {DRIVER} is not installed"
        message = f"{missing}; on Debian: apt install chromium chromium-driver"
        if os.environ.get(REQUIRED):
            pytest.fail(message)
        pytest.skip(message)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    # selenium downloads no driver, as this one is named
    running = webdriver.Chrome(options, Service(driver))
    try:
        yield Browser(running)
    finally:
        running.quit()
