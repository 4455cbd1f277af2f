"""Take the pictures of the documentation from a demo that is left running: `make pictures`.

The terminal at 160 columns and two views of the page go into docs/pictures/; every view at 1280 and 390 pixels, light and
dark, of the demo and of an empty, a normal and a crowded installation goes into docs/pictures/all/, to be looked at and
not kept.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text
from tests.console.browser import Page, chromium
from tests.console.console_stack import console_stack
from tests.console.crowd import fill, views_of

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"
ALL = PICTURES / "all"
SHOWN = {"now-1280-light.png": "page.png", "incident-1280-light.png": "incident.png"}
"""Pictures of the demo that are kept, under which name."""
CROWDS = {"empty": (0, 0), "normal": (4, 5), "crowded": (500, 10)}
"""Installations by how many incidents of how many runs each they have."""
VIEWS = ("now", "chat", "inbox", "incidents", "incident", "runs", "queues", "forecast", "kpi", "audit")
WIDTHS = {1280: 900, 390: 844}
COMMANDS = (["status"], ["incidents"])
COLUMNS = 160


def main() -> None:
    """Run the demo, take the pictures, stop everything."""
    ALL.mkdir(parents=True, exist_ok=True)
    for name in CROWDS:
        take_crowd(name)
    if "crowds" in sys.argv[1:]:
        return
    with left_running() as left:
        state = Path(left["state directory"])
        take_terminal(state)
        with serving(state) as link:
            take_page(link)


@contextmanager
def left_running() -> Iterator[dict[str, str]]:
    """Yield where to look while a demo that has told its stories is left running."""
    command = [sys.executable, "-m", "pilotage.console", "demo", "--json", "--keep"]
    print("running the demo …", flush=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as demo:
        assert demo.stdout is not None
        text = ""
        for line in demo.stdout:
            text += line
            with_end = line.rstrip() == "}"
            if with_end:
                break
        try:
            yield dict(json.loads(text)["left_running"])
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait(60)


@contextmanager
def serving(state: Path) -> Iterator[str]:
    """Yield the link that signs in once at a `pilotage serve` of the installation."""
    command = [sys.executable, "-m", "pilotage.console", "serve", "--port", "0", "--state-dir", str(state)]
    env = {**os.environ, "COLUMNS": "300"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
    ) as server:
        assert server.stdout is not None
        try:
            yield next(
                found.group(0) for line in server.stdout if (found := re.search(r"http://\S+#code=\S+", line))
            )
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)


def take_crowd(name: str) -> None:
    """Take each view of an installation with so much in it, at each width, in light and dark."""
    with tempfile.TemporaryDirectory(prefix="s") as directory, console_stack(Path(directory) / "s") as port:
        incidents, runs = CROWDS[name]
        ids = fill(port, incidents, runs, rich=True) if incidents else []
        with chromium(port.url, Path(directory) / "c") as page:
            page.open(f"/#code={port.sessions.issue_code(port.tokens['ann'])}")
            page.live()
            for width, height in WIDTHS.items():
                for theme in ("light", "dark"):
                    look(page, width, height, theme)
                    page.driver.refresh()
                    page.live()
                    for view in views_of(ids):
                        page.go(view)
                        settle(page, still=0.6)
                        picture = f"{name}-{view.split('/')[0]}-{width}-{theme}.png"
                        page.driver.save_screenshot(str(ALL / picture))
                        print(picture, flush=True)


def take_page(link: str) -> None:
    """Take each view of the page at each width, in light and dark."""
    base = link.partition("/#")[0]
    with tempfile.TemporaryDirectory() as profile, chromium(base, Path(profile)) as page:
        page.driver.get(link)
        page.live()
        for width, height in WIDTHS.items():
            for theme in ("light", "dark"):
                look(page, width, height, theme)
                for view in VIEWS:
                    page.go("incidents?state=all" if view == "incident" else view)
                    settle(page)
                    if view == "incident":
                        page.find(".rows a.says-it").click()
                        settle(page)
                    name = f"{view}-{width}-{theme}.png"
                    page.driver.save_screenshot(str(ALL / name))
                    print(name, flush=True)
    for taken, kept in SHOWN.items():
        shutil.copy(ALL / taken, PICTURES / kept)


def settle(page: Page, still: float = 1.5, at_most: float = 30.0) -> None:
    """Wait until the page has not changed for `still` seconds, at most `at_most`."""
    deadline, since, before = time.monotonic() + at_most, time.monotonic(), ""
    while time.monotonic() < deadline and time.monotonic() - since < still:
        now = str(page.driver.execute_script("return document.body.innerHTML"))
        if now != before or page.driver.find_elements("css selector", ".loading, [aria-busy=true]"):
            before, since = now, time.monotonic()
        time.sleep(0.1)


def look(page: Page, width: int, height: int, theme: str) -> None:
    """Give the page this size and theme, as a device would."""
    driver = page.driver
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = [{"name": "prefers-color-scheme", "value": theme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})


def take_terminal(state: Path) -> None:
    """Take what the commands print at 100 columns, as SVG."""
    env = {**os.environ, "COLUMNS": str(COLUMNS), "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"))  # noqa: SIM115
    for words in COMMANDS:
        command = [sys.executable, "-m", "pilotage.console", *words, "--state-dir", str(state)]
        printed = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
        console.print(Text(f"$ pilotage {' '.join(words)}", style="bold"))
        console.print(Text.from_ansi(printed.stdout))
    drawn = console.export_svg(title="pilotage")
    plain = re.sub(
        r"@font-face \{[^}]*\}", "", drawn
    )  # the reader's own fonts: nothing is loaded from elsewhere
    (PICTURES / "terminal.svg").write_text(plain)
    print("terminal.svg", flush=True)


if __name__ == "__main__":
    main()
