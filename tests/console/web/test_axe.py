"""axe-core finds nothing serious on any view, in both themes, on a desk and on a phone. `make axe` fetches it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.console.browser import Page, chromium, needs_browser
from tests.console.console_stack import ConsoleStack, console_stack
from tests.console.crowd import fill, views_of
from tests.pictures.take import look, settle

AXE = Path(__file__).parents[3] / ".axe" / "node_modules" / "axe-core" / "axe.min.js"
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
SERIOUS = ("serious", "critical")
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, tuple[str, ...]]]:
    needs_browser()
    if not AXE.exists():
        words = "axe-core is not here; make axe"
        if os.environ.get("PILOTAGE_AXE_TESTS") == "required":
            pytest.fail(words)
        pytest.skip(words)
    with ExitStack() as stack:
        port: ConsoleStack = stack.enter_context(console_stack(tmp_path_factory.mktemp("a")))
        ids = fill(port, 3, 3, rich=True)
        opened = stack.enter_context(chromium(port.url, tmp_path_factory.mktemp("c")))
        opened.open(f"/#code={port.sessions.issue_code(port.tokens['ann'])}")
        opened.live()
        yield opened, views_of(ids)


def serious(page: Page) -> list[str]:
    """What axe finds serious on the page as it is now, a line each with the element."""
    if not page.driver.execute_script("return Boolean(window.axe)"):
        page.driver.execute_script(AXE.read_text())
    found: dict[str, Any] = page.driver.execute_async_script(
        "const [rules, done] = arguments; axe.run(document, rules).then(done, (e) => done({broken: String(e)}))",
        RULES,
    )
    assert "broken" not in found, found
    return [
        f"{each['impact']} {each['id']}: {node['html'][:160]}"
        for each in found["violations"]
        if each["impact"] in SERIOUS
        for node in each["nodes"][:3]
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desk", "phone"])
def test_no_view_has_a_serious_fault(
    page: tuple[Page, tuple[str, ...]], width: int, height: int, theme: str
) -> None:
    opened, views = page
    look(opened, width, height, theme)
    opened.driver.refresh()
    opened.live()
    found = {}
    for view in views:
        opened.go(view)
        settle(opened, still=0.4)
        for summary in opened.driver.find_elements("css selector", ".rows details > summary")[:1]:
            summary.click()
            settle(opened, still=0.4)
        if faults := serious(opened):
            found[view] = faults
    assert found == {}
