"""What importing costs: the types drag no library along, and each technology has one importer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "planner" / "pilotage" / "planner"
HEAVY = {
    "langgraph",
    "langchain_core",
    "langchain_openai",
    "openai",
    "prefect",
    "duckdb",
    "sklearn",
    "pyarrow",
}


@pytest.mark.parametrize(
    "module",
    [
        "",
        ".actions.types",
        ".findings",
        ".proposals",
        ".playbooks.registry",
        ".detect.starvation",
        ".loop.planner",
        ".chat.tools",
    ],
)
def test_importing_what_decides_loads_no_heavy_library(module: str) -> None:
    code = f"import sys, pilotage.planner{module}; print(' '.join({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert not HEAVY & set(done.stdout.split())


def test_only_the_adapter_imports_the_model_client() -> None:
    importers = {
        path.name
        for path in PACKAGE.rglob("*.py")
        if any(
            line.strip().startswith(
                ("import openai", "from openai", "from langchain_openai", "import langchain_openai")
            )
            for line in path.read_text().splitlines()
        )
    }
    assert importers == {"openai.py"}


def test_the_scripted_server_runs_by_itself_and_prints_its_address() -> None:
    import json
    import urllib.request

    process = subprocess.Popen(
        [sys.executable, "-m", "pilotage.planner.llm.scripted.server", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        base_url = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{base_url}/models", timeout=10) as reply:  # noqa: S310 - our own loopback
            assert json.load(reply)["data"][0]["id"] == "scripted"
    finally:
        process.terminate()
        process.communicate(timeout=10)
