"""Headless Chromium as a person's eyes and hands, for what regionfs draws. Knows pages, nothing of regionfs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

SWITCHES = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic")


class Page:
    """One page of a browser."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, path: Path, width: int = 1280, dark: bool = False, height: int = 900) -> None:
        """Show a file in a window of that size and colour scheme."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                    {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})
        self.driver.get(path.as_uri())
        self.settle()

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.run("return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a function's body."""
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[WebElement]:
        """Every element a CSS selector finds."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        """The first of them."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """Their texts."""
        return [str(element.get_property("textContent")) for element in self.all(selector)]

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()
            self.settle()

    def hover(self, element: WebElement) -> None:
        """Move the pointer to an element's middle."""
        ActionChains(self.driver).move_to_element(element).perform()
        self.settle()

    def complaints(self) -> list[str]:
        """What the browser wrote to its console, and what it fetched from elsewhere."""
        fetched = self.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
        return [*(entry["message"] for entry in self.driver.get_log("browser")), *fetched]


@contextmanager
def browser() -> Iterator[Page]:
    """A browser; skips the test where there is none."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("pictures are looked at with chromium and chromedriver, which are not installed")
    options = ChromeOptions()
    options.binary_location = chromium
    for switch in SWITCHES:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = Chrome(options=options, service=Service(driver))
    try:
        yield Page(running)
    finally:
        running.quit()
