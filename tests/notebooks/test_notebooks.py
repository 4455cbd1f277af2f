"""The notebooks run from top to bottom, with no key in their environment, while the store's owner writes."""

from __future__ import annotations

import base64
import re
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from tests.notebooks.queue_facts import PrefectProbe, write

from pilotage.telemetry.store.duckdb import DuckDBStore

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
QUEUE_STATE = NOTEBOOKS / "01_queue_state.ipynb"
PNG = b"\x89PNG\r\n"
CELL_TIMEOUT = 60
"""Seconds; the slowest cell, which imports matplotlib, takes three on a busy machine."""

GIST = (
    "of 9 flows; retried in place: 4",
    "15 failed attempts of 7 flows",
    "2 of the runs to come are expected to",
    "8 proposals: 7 verified, 1 denied, 1 approved by a person",
    "tier0-never-paused: deny",
    "prod-needs-approver: needs_approval",
    "4 of 4 runs recovered after 10.0 s, 13.0 s, 19.0 s, 34.0 s",
    "low: at most 2 waiting",
)
"""What the cells must say of the queue state, counted by hand from `queue_snapshot_facts.py`."""


@dataclass(slots=True)
class Collector:
    """A thread that keeps writing what `Floor.later` tells, as the real collector does."""

    store: DuckDBStore
    prefect_probe: PrefectProbe
    rows: int = 0
    failure: BaseException | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Collector:
        self._thread = threading.Thread(target=self._write, name="collector")
        self._thread.start()
        return self

    def _write(self) -> None:
        try:
            for facts in self.prefect_probe.later():
                if self._stop.wait(0.1):
                    return
                self.rows += write(self.store, facts)
        except BaseException as exc:
            self.failure = exc

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)


def opened(path: Path) -> Any:
    """The notebook in the file."""
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def execute(path: Path, env: dict[str, str]) -> list[Any]:
    """The code cells with their outputs. A cell that raises ends the test with its traceback."""
    notebook = opened(path)
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute(env=env)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(cells: list[Any], tag: str) -> list[Any]:
    return [cell for cell in cells if tag in cell.metadata.get("tags", [])]


def images(cell: Any) -> list[bytes]:
    return [
        base64.b64decode(output.data["image/png"])
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]


def texts(cell: Any) -> str:
    """What a cell printed or displayed, as text."""
    return "\n".join(
        output.get("text", "") or output.get("data", {}).get("text/markdown", "") for output in cell.outputs
    )


def complaints(cells: list[Any]) -> list[str]:
    return [
        output.get("text", output.output_type)
        for cell in cells
        for output in cell.outputs
        if output.output_type == "error" or output.get("name") == "stderr"
    ]


def test_the_floor_is_drawn_while_a_collector_writes(
    owner: DuckDBStore, without_credentials: dict[str, str], tmp_path: Path
) -> None:
    prefect_probe = PrefectProbe(datetime(2026, 11, 2, 12, 0, tzinfo=UTC))
    write(owner, prefect_probe.opening())
    with Collector(store=owner, prefect_probe=prefect_probe) as collector:
        cells = execute(QUEUE_STATE, without_credentials)
        written = collector.rows
    assert collector.failure is None

    assert complaints(cells) == []
    assert all(cell.execution_count for cell in cells)
    plots = tagged(cells, "plot")
    assert len(plots) == 7
    for number, cell in enumerate(plots):
        (image,) = images(cell)
        assert image.startswith(PNG)
        (tmp_path / f"plot{number}.png").write_bytes(image)

    told = "\n".join(texts(cell) for cell in plots)
    assert [line for line in GIST if line not in told] == []

    (last,) = tagged(cells, "last")
    seen = {name: int(count) for name, count in re.findall(r"(\w+) (\d+)", texts(last))}
    assert seen["runs"] > 0, "the kernel itself saw no run arrive"
    assert seen["events"] >= 2 * (seen["runs"] - 1)
    assert sum(seen.values()) <= written


def test_a_store_with_nothing_in_it_is_said_plainly(
    owner: DuckDBStore, without_credentials: dict[str, str]
) -> None:
    cells = execute(QUEUE_STATE, without_credentials)
    assert complaints(cells) == []
    said = [re.search(r"\*\*No ([a-z ]+) yet\.\*\*", texts(cell)) for cell in tagged(cells, "plot")]
    assert [match and match.group(1) for match in said] == [
        "runs",
        "failures",
        "forecasts",
        "decisions",
        "verdicts",
        "recoveries",
        "queue snapshots",
    ]


def test_names_that_users_chose_cannot_break_a_plot(
    owner: DuckDBStore, without_credentials: dict[str, str]
) -> None:
    opening = PrefectProbe(datetime(2026, 11, 2, 12, 0, tzinfo=UTC)).opening()
    hostile = "cost $\\frac{1}{$ \x1b[31m\n夜間 🚢 <b>" + "long" * 40
    write(owner, replace(opening, runs=tuple(replace(run, flow_name=hostile) for run in opening.runs)))
    cells = execute(QUEUE_STATE, without_credentials)
    assert complaints(cells) == []
    assert [len(images(cell)) for cell in tagged(cells, "plot")] == [1] * 7


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path: Path) -> None:
    cells = [cell for cell in opened(path).cells if cell.cell_type == "code"]
    assert cells
    assert [cell.id for cell in cells if cell.outputs or cell.execution_count] == []


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_cell_that_draws_is_tagged_as_a_plot(path: Path) -> None:
    cells = [cell for cell in opened(path).cells if cell.cell_type == "code"]
    drawing = [cell.id for cell in cells if "plt.show()" in cell.source]
    assert drawing
    assert drawing == [cell.id for cell in tagged(cells, "plot")]
