"""Lists of the page at 500 incidents and 5,000 proposals beside an empty installation: first paint, and each list drawn.

Both run at once and take turns in one browser. Before it is measured every row is reached once, page by page.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.report import Row, beside, in_turn, publish

INCIDENTS, EACH, RUNS = 500, 10, 15
LISTS = ("now", "inbox", "incidents", "runs", "audit")
DRAWN = """
    const [view, again, done] = arguments;
    const began = again ? performance.now() : 0;
    if (again) location.hash = `#/${view}`;
    const look = () => {
      const shown = document.getElementById("view");
      const drawn = shown?.dataset.name === view && shown.querySelector(".now section, .listing > .count")?.textContent
        && !shown.querySelector(".loading, [aria-busy=true]");
      if (drawn) requestAnimationFrame(() => done(performance.now() - began)); else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
"""


def reached(port: Any) -> dict[str, tuple[int, int]]:
    """How many rows of each list were reached, and how many it counts."""
    found = {}
    with port.client("ann") as client:
        for name, key, wanted in (
            ("proposals", "proposal_id", {"status": "needs_approval"}),
            ("incidents", "incident_id", {}),
            ("runs", "run_id", {}),
        ):
            ids, after, page = set(), "", {"count": 0}
            while True:
                page = client.get(
                    f"/api/lists/{name}", params={**wanted, "after": after, "limit": 200}
                ).json()
                ids |= {row[key] for row in page["rows"]}
                if not (after := page["next"]):
                    break
            found[name] = (len(ids), page["count"])
    return found


def list_rows(runs: int = RUNS) -> list[Row]:
    """Milliseconds until it is drawn, medians, beside those of the empty installation."""
    from tests.console.browser import chromium
    from tests.console.console_stack import console_stack
    from tests.console.crowd import fill

    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="l")))
        empty = stack.enter_context(console_stack(root / "e"))
        full = stack.enter_context(console_stack(root / "f"))
        fill(full, INCIDENTS, EACH)
        counted = reached(full)
        print(counted, flush=True)
        assert counted == {
            "proposals": (INCIDENTS * EACH, INCIDENTS * EACH),
            "incidents": (INCIDENTS, INCIDENTS),
            "runs": (INCIDENTS * EACH, INCIDENTS * EACH),
        }
        # cookies know no ports: each installation has a host name of its own
        bases = {"empty": empty.url, "full": full.url.replace("127.0.0.1", "localhost")}
        page = stack.enter_context(chromium(bases["empty"], root / "c"))
        driver = page.driver
        for name, port in (("empty", empty), ("full", full)):
            driver.get(f"{bases[name]}/#code={port.sessions.issue_code(port.tokens['ann'])}")
            page.live()

        def first(name: str) -> float:
            driver.get("about:blank")
            driver.get(f"{bases[name]}/#/now")
            return float(driver.execute_async_script(DRAWN, "now", False))

        def drawn(view: str) -> float:
            driver.execute_async_script(DRAWN, "inbox" if view == "now" else "now", True)
            return float(driver.execute_async_script(DRAWN, view, True))

        rows = [_row("first paint", in_turn({name: partial(first, name) for name in bases}, runs), runs)]
        for view in LISTS:
            taken: dict[str, list[float]] = {name: [] for name in bases}
            for _ in range(runs):
                for name, base in bases.items():
                    driver.get(f"{base}/#/now")
                    page.live()
                    taken[name].append(drawn(view))
            medians = {name: sorted(values)[len(values) // 2] for name, values in taken.items()}
            rows.append(_row(view, medians, runs))
    return rows


def _row(measure: str, found: dict[str, float], runs: int) -> Row:
    return beside(measure, "ms", runs, ours=found["full"], peer="empty installation", theirs=found["empty"])


def main() -> None:
    """Measures and publishes."""
    publish("lists", list_rows(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS))


if __name__ == "__main__":
    main()
