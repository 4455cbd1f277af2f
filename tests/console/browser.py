"""A headless Chromium, and a real `pilotage serve` for it to look at."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from tests.flows.running_controller import RunningController, eventually

T = TypeVar("T")
INSTALL = "apt-get install chromium chromium-driver"
WITHIN = 120.0
"""Seconds; a loaded machine is many times slower than a quiet one."""
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--force-color-profile=srgb",
)


def needs_browser() -> None:
    """Returns when Chromium is here. Else skips, or fails where PILOTAGE_BROWSER_TESTS is `required`."""
    if shutil.which("chromium") and shutil.which("chromedriver"):
        return
    words = f"Chromium and its driver are not here; {INSTALL}"
    if os.environ.get("PILOTAGE_BROWSER_TESTS") == "required":
        pytest.fail(words)
    pytest.skip(words)


class Page:
    """One browser on the console, used as a person would."""

    def __init__(self, driver: Chrome, base: str) -> None:
        self.driver = driver
        self.base = base

    def open(self, path: str = "/") -> None:
        """Open the page."""
        self.driver.get(self.base + path)

    def go(self, view: str) -> None:
        """Ask for the view `#/…`."""
        self.driver.execute_script("location.hash = arguments[0]", f"#/{view}")

    def until(self, look: Callable[[], T | None], what: str, within: float = WITHIN) -> T:
        """The first true answer; what changes under our hands is looked at again."""

        def once() -> T | None:
            try:
                return look()
            except StaleElementReferenceException:
                return None

        try:
            return eventually(once, within=within, what=what)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.text()}\n{self.complaints()}") from exc

    def find(self, css: str, words: str = "", within: float = WITHIN) -> WebElement:
        """The first shown element that has these words, once there is one."""

        def look() -> WebElement | None:
            found = self.driver.find_elements(By.CSS_SELECTOR, css)
            return next((each for each in found if each.is_displayed() and words in each.text), None)

        return self.until(look, f"{css} with {words!r}", within)

    def gone(self, css: str, words: str = "") -> None:
        """Wait until no shown element has these words."""
        found = self.driver.find_elements
        self.until(
            lambda: not [e for e in found(By.CSS_SELECTOR, css) if e.is_displayed() and words in e.text],
            f"no {css} with {words!r}",
        )

    def press(self, words: str, within: str = "") -> None:
        """Click the button with these words."""

        def click() -> bool:
            for each in self.driver.find_elements(By.CSS_SELECTOR, f"{within} button".strip()):
                if each.is_displayed() and each.is_enabled() and each.text.strip() == words:
                    each.click()
                    return True
            return False

        self.until(click, f"a button {words!r} in {within or 'the page'}")

    def say(self, words: str) -> None:
        """Send the message."""
        self.find("#message").send_keys(words, Keys.ENTER)

    def keys(self, *keys: str) -> None:
        """Send the keys to whatever has the focus."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def text(self, css: str = "body") -> str:
        """What a person reads there."""
        return str(self.driver.find_element(By.CSS_SELECTOR, css).text)

    def sign_in(self, name: str, password: str) -> None:
        """Sign the person in."""
        self.open()
        self.find("#door input[name=name]").send_keys(name)
        self.driver.find_element(By.CSS_SELECTOR, "#door input[name=password]").send_keys(
            password, Keys.ENTER
        )
        self.find("#who", name)
        self.live()

    def be(self, name: str, password: str) -> None:
        """Sign this person in, whoever was before."""
        self.open("/#/kpi")
        self.find("#door input, #who p")
        if not self.driver.find_elements(By.CSS_SELECTOR, "#who p"):
            self.sign_in(name, password)
        elif name not in self.text("#who p"):
            self.press("Sign out")
            self.sign_in(name, password)
        self.live()

    def live(self) -> None:
        """Wait until events arrive."""
        self.find("#connection", "live")

    def complaints(self) -> list[str]:
        """What the browser itself found wrong since it was asked last: broken scripts, breaches of the policy."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]


@contextmanager
def chromium(base: str, directory: Path, *, width: int = 1280, height: int = 900) -> Iterator[Page]:
    """A browser of its own, with nothing remembered."""
    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--window-size={width},{height}", f"--user-data-dir={directory}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=ChromeService(str(shutil.which("chromedriver"))))
    try:
        driver.set_page_load_timeout(WITHIN)
        yield Page(driver, base)
    finally:
        driver.quit()


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A running `pilotage serve`."""

    base: str
    link: str
    """Signs in once, as whoever's token it runs with."""


@contextmanager
def serving(ship: RunningController, env: Mapping[str, str], who: str = "pat") -> Iterator[Serving]:
    """`pilotage serve` on a free port, in the name of one person, without any key to Prefect."""
    log = ship.paths.root / "serve.log"
    command = [
        sys.executable,
        "-m",
        "pilotage.flows.dev.supervised_child",
        str(os.getpid()),
        "pilotage.console",
    ]
    paths = {
        "PILOTAGE_STATE_DIR": str(ship.paths.root),
        "PILOTAGE_TOKEN_FILE": str(ship.paths.root / f"{who}.token"),
    }
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*command, "serve", "--port", "0"],
            env={"PATH": "/usr/bin:/bin", "COLUMNS": "300", **paths, **env},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:

        def link() -> re.Match[str] | None:
            assert process.poll() is None, log.read_text()
            return re.search(r"(http://[\d.:]+)/(#code=\S+)", re.sub(r"\s*\n", "", log.read_text()))

        found = eventually(link, within=WITHIN, what="pilotage serve")
        yield Serving(base=found[1], link=f"/{found[2]}")
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
