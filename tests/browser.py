"""A headless Chromium that opens a page of the project's, and tells what the page asked for, complained about and shows."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

REQUIRED = "CAMSEG_REQUIRE_BROWSER"
"""Set by `.ci/run`: a missing browser is then an error, not a reason to skip."""

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
"""What systems call it."""

DRIVER = "chromedriver"

FLAGS = (
    "--headless",
    "--no-sandbox",  # a sandbox of its own cannot be had as root, in a container
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


class Page:
    """A page in the browser."""

    def __init__(self, driver: Any, path: Path) -> None:
        """Open the file at `path`."""
        self._driver = driver
        driver.get(
            "about:blank"
        )  # ends what the page before, or the browser's own first page, still loads
        for log in ("performance", "browser"):
            driver.get_log(log)  # from here on, the logs are this page's
        driver.get(path.as_uri())
        self.path = path

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns; it comes from the driver, so the page's policy does not stop it."""
        return self._driver.execute_script(script, *arguments)

    def figures(self, metric: str) -> list[dict[str, str]]:
        """The elements of a `data-metric`: their `text` as shown, and their other `data-` values."""
        return self.run(
            "return Array.from(document.querySelectorAll('[data-metric]'))"
            ".filter(e => e.dataset.metric === arguments[0]).map(e => ({...e.dataset, text: e.innerText.trim()}))",
            metric,
        )

    def figure(self, metric: str) -> str:
        """The only such figure."""
        (found,) = self.figures(metric)
        return found["text"]

    def requests(self) -> list[str]:
        """Every address that the browser asked for since the page was opened, `data:` aside."""
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
        """What the browser's console says."""
        return [each["message"] for each in self._driver.get_log("browser")]

    def show_dark(self, dark: bool) -> None:
        """As a reader's system would ask for it."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def screenshot(self, path: Path, width: int = 1240) -> None:
        """The whole page as PNG."""
        self._driver.set_window_size(width, 1000)
        height = self.run("return document.documentElement.scrollHeight")
        self._driver.set_window_size(width, min(height + 200, 16000))
        self._driver.save_screenshot(str(path))


class Browser:
    """A running browser."""

    def __init__(self, driver: Any) -> None:
        """`driver` is selenium's."""
        self._driver = driver

    def open(self, path: Path) -> Page:
        """Open a file."""
        return Page(self._driver, path)


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with a new profile in the empty folder `profile`; the test is skipped where there is none and none is required."""
    chromium, driver = next(filter(None, map(shutil.which, CHROMIUM)), None), shutil.which(DRIVER)
    if chromium is None or driver is None:
        message = f"{CHROMIUM[0]} or {DRIVER} is not installed; on Debian: apt install chromium chromium-driver"
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
    running = webdriver.Chrome(
        options, Service(driver)
    )  # the driver is named, so selenium looks for none to download
    try:
        yield Browser(running)
    finally:
        running.quit()
