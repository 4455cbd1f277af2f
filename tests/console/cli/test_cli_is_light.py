"""A command that only asks the API must not pay for what it does not use."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

HEAVY = frozenset(
    {
        "prefect",
        "langgraph",
        "langchain_core",
        "langchain_openai",
        "openai",
        "sklearn",
        "scipy",
        "numpy",
        "pyarrow",
        "duckdb",
        "textual",
        "sqlalchemy",
        "cedarpy",
        "httpx",
    }
)

PROBE = """
import json, sys
from pilotage.console.cli.main import app
try:
    app({arguments!r}, standalone_mode=False)
except BaseException as exc:
    print(type(exc).__name__, exc, file=sys.stderr)
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["status"],
        ["incidents"],
        ["proposals"],
        ["why", "p-000000000000"],
        ["approve", "p-000000000000"],
        ["stop"],
        ["grants"],
        ["mode", "show"],
        ["policy", "published"],
        ["forecast", "status"],
        ["forecast", "models"],
        ["forecast", "rollback", "m-1"],
    ],
    ids="-".join,
)
def test_a_local_command_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROBE.format(arguments=arguments)],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "PILOTAGE_STATE_DIR": str(tmp_path)},
    )
    loaded = set(json.loads(ran.stdout.splitlines()[-1]))
    assert not HEAVY & loaded


def test_the_version_is_that_of_the_installed_distribution() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pilotage.console", "--version"], capture_output=True, text=True, check=True
    )
    assert f"pilotage {version('pilotage')}, prefect {version('prefect')}" in ran.stdout
