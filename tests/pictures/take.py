"""Take the pictures of the documentation from a demo that is left running: `make pictures`.

The terminal at 160 columns and one view of the page go into docs/pictures/; every view at 1280 and 390 pixels, light and
dark, goes into docs/pictures/all/, to be looked at and not kept.
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

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"
ALL = PICTURES / "all"
SHOWN = "incidents-1280-light.png"
VIEWS = ("chat", "inbox", "incidents", "queues", "forecast", "kpi", "audit")
WIDTHS = {1280: 900, 390: 844}
COMMANDS = (["status"], ["incidents"])
COLUMNS = 160


def main() -> None:
    """Run the demo, take the pictures, stop everything."""
    ALL.mkdir(parents=True, exist_ok=True)
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
                    page.go(view)
                    settle(page)
                    name = f"{view}-{width}-{theme}.png"
                    page.driver.save_screenshot(str(ALL / name))
                    print(name, flush=True)
    shutil.copy(ALL / SHOWN, PICTURES / "page.png")


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
