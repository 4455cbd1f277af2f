"""The architecture can be seen from the tree, and a machine holds it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("telemetry", "planner", "policies", "flows", "console")
SOURCES = [path for room in PACKAGES for path in sorted((ROOT / room / "pilotage").rglob("*.py"))]

ADAPTERS = {
    "duckdb": {"telemetry"},
    "sklearn": {"telemetry"},
    "cedarpy": {"policies"},
    "sqlalchemy": {"policies"},
    "openai": {"planner"},
    "langchain_openai": {"planner"},
    "langgraph": {"planner"},
    "prefect": {"flows", "telemetry"},
    "typer": {"console"},
}
"""Which technology lives in which packages."""


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


TOP_LEVEL = {
    "telemetry": {
        "errors",
        "facts",
        "forecasts",
        "kpis",
        "pool_cpu",
        "pool_memory",
        "redaction",
        "harmless",
        "times",
        "fact_ages",
        "token_detectors",
        "yaml_text",
    },
    "planner": {
        *("findings", "proposals", "parameters", "remediation", "plugins"),
        *("similar_incidents", "log_templates", "checkpoints"),
    },
    "policies": {
        *("types", "refusals", "roles", "digests", "json_values", "grants"),
        *("ledger_facts", "autonomy", "publishing"),
    },
    "flows": set(),
    "console": {"__main__"},
}
"""The modules that lie directly in a package; every other module lies in a sub-package."""

SUB_PACKAGES = {
    "telemetry": {"analysis", "prefect", "store", "queries", "forecast"},
    "planner": {"actions", "detect", "incidents", "playbooks", "investigate", "loop", "llm", "chat"},
    "policies": {"gate", "cedar", "ledger", "audit", "identity", "testing", "replay", "bundles"},
    "flows": {
        *("config", "prefect", "levers", "execution", "controller", "api", "notify", "agent"),
        *("doctor", "sdk", "replay", "dev", "demo", "bench", "examples"),
    },
    "console": {"cli", "mcp", "session", "render", "tui", "web"},
}
"""The folders of a package; `docs/architecture.md` and the package's README say what is in each."""


@pytest.mark.parametrize("room", PACKAGES)
def test_a_module_lies_in_a_sub_package_unless_the_tree_names_it(room: str) -> None:
    package = ROOT / room / "pilotage" / room
    assert {path.stem for path in package.glob("*.py")} - {"__init__"} == TOP_LEVEL[room]
    folders = {path.name for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == SUB_PACKAGES[room]


@pytest.mark.parametrize("room", PACKAGES)
def test_each_sub_package_says_what_it_is_for(room: str) -> None:
    package = ROOT / room / "pilotage" / room
    code = {path.parent for path in package.rglob("*.py")} - {package, package / "examples"}
    silent = [
        str(folder.relative_to(ROOT))
        for folder in sorted(code)
        if not (folder / "__init__.py").exists()
        or not ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    ]
    assert not silent
    named = (ROOT / "docs" / "architecture.md").read_text() + (ROOT / room / "README.md").read_text()
    assert [name for name in sorted(SUB_PACKAGES[room]) if f"`{name}/`" not in named] == []


@pytest.mark.parametrize("room", PACKAGES)
def test_each_room_is_one_portion_of_the_namespace(room: str) -> None:
    portion = ROOT / room / "pilotage"
    assert not (portion / "__init__.py").exists()
    assert not list((ROOT / room).glob("*.py"))
    assert [child.name for child in portion.iterdir() if child.name != "__pycache__"] == [room]
    assert (portion / room / "py.typed").exists()
    assert (ROOT / room / "README.md").exists()


def test_imports_only_go_down() -> None:
    ran = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("technology", sorted(ADAPTERS))
def test_a_technology_stays_in_its_room(technology: str) -> None:
    strangers = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if technology in imports_of(path) and path.relative_to(ROOT).parts[0] not in ADAPTERS[technology]
    ]
    assert not strangers


def test_scikit_learn_stays_in_the_sub_package_of_models() -> None:
    users = [path for path in SOURCES if "sklearn" in imports_of(path)]
    assert users
    assert {path.parent for path in users} == {ROOT / "telemetry/pilotage/telemetry/forecast"}


@pytest.mark.parametrize("technology", ["cedarpy", "langchain_openai", "openai"])
def test_one_adapter_imports_a_technology_and_no_other_file(technology: str) -> None:
    users = [path.name for path in SOURCES if technology in imports_of(path)]
    assert len(users) <= 1, users


def test_only_the_collector_of_the_telemetry_room_knows_prefect() -> None:
    users = {
        str(path.relative_to(ROOT / "telemetry"))
        for path in SOURCES
        if path.is_relative_to(ROOT / "telemetry") and "prefect" in imports_of(path)
    }
    assert all("prefect" in name for name in users), users


def test_the_shipped_flows_import_nothing_of_pilotage() -> None:
    shipped = ROOT / "flows" / "pilotage" / "flows" / "examples"
    assert [path.name for path in shipped.glob("*.py") if "pilotage" in imports_of(path)] == []


def test_no_tracked_file_names_a_package_registry() -> None:
    hosts = re.compile(
        r"(extra-)?index-url[ =]|\"resolved\": *\"https?:|pypi\s*\.\s*org|files\.python" + r"hosted"
    )
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    named = [
        name
        for name in tracked
        if name and name != "tests/test_layout.py" and (ROOT / name).is_file()
        if hosts.search((ROOT / name).read_text(errors="ignore"))
    ]
    assert not named


def test_every_constraint_is_an_exact_version() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert len(lines) > 200
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.\-]+==[A-Za-z0-9_.+!\-]+", line)] == []


def test_the_stations_of_a_failed_run_are_where_the_page_says() -> None:
    rows = re.findall(
        r"^\| \d+ \| \w+ \| `([^`]+)`: `(\w+)`", (ROOT / "docs" / "architecture.md").read_text(), re.M
    )
    assert len(rows) == 20
    for path, function in rows:
        assert re.search(rf"\bdef {function}\(", (ROOT / path).read_text()), f"{path} has no {function}"
