"""What the pages under docs/ say can be done, can be done."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pilotage.console.cli.main import app
from pilotage.flows.config.reference import document
from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE
from pilotage.telemetry.store.duckdb import DuckDBStore

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs"
INSTALLATION = ROOT / "tests" / "data" / "installations" / "80a8c89" / "state.tar.gz"


def blocks(page: str, kind: str) -> list[str]:
    """The code blocks of one kind on a page."""
    return re.findall(rf"```{kind}\n(.*?)```", (PAGES / page).read_text(), flags=re.DOTALL)


def test_the_site_builds_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "site" / "quickstart.html").exists()


def test_the_configuration_page_is_the_code() -> None:
    page = (PAGES / "configuration.md").read_text()
    assert page == document(), "run `python -m pilotage.flows.config.reference > docs/configuration.md`"
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 80
    assert [row for row in rows if row.endswith("|  |")] == [], "a key without a docstring"


def test_the_policy_of_the_page_is_sound(tmp_path: Path) -> None:
    [policy] = blocks("policies.md", "cedar")
    shutil.copytree(DEFAULT_BUNDLE, tmp_path / "mine")
    (tmp_path / "mine" / "mondays.cedar").write_text(policy)
    checked = CliRunner().invoke(app, ["policy", "check", "--policies", str(tmp_path / "mine")])
    assert checked.exit_code == 0, checked.output


def test_the_failure_rule_of_the_page_is_sound_and_decides(tmp_path: Path) -> None:
    [rules] = blocks("failure-rules.md", "yaml")
    file = tmp_path / "failure_rules.yaml"
    file.write_text(rules)
    for command in (["check"], ["test"]):
        ran = CliRunner().invoke(app, ["rules", *command, str(file)])
        assert ran.exit_code == 0, ran.output


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_takes_the_unit() -> None:
    unit = PAGES / "systemd" / "pilotage.service"
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert verified.returncode == 0, verified.stderr
    assert "pilotage.service" not in verified.stderr


def test_backup_restore_move_upgrade_and_uninstall_go_as_the_page_says(tmp_path: Path) -> None:
    upgrade, kept, backup, restore, uninstall = blocks("operations.md", "sh")
    old, new = tmp_path / "old-host", tmp_path / "new-host"
    old.mkdir()
    with tarfile.open(INSTALLATION) as archive:
        archive.extractall(old, filter="data")
    [state] = [path.parent for path in old.rglob("ledger.sqlite")]
    tools = _tools(tmp_path)

    DuckDBStore(state / "telemetry.duckdb").close()  # brought to the present schema, as a start would
    _sh(kept, state, tmp_path, tools)
    _sh(backup, state, tmp_path, tools)
    _sh(restore, new, tmp_path, tools)
    assert (new / "users.toml").read_bytes() == (state / "users.toml").read_bytes()
    assert "restored from a backup" in (new / "STOP").read_text()
    _sh(upgrade, new, tmp_path, tools)
    assert (tmp_path / "new-host.before" / "ledger.sqlite").exists()
    _sh(uninstall, new, tmp_path, tools)
    assert not new.exists()
    assert (tmp_path / "pipx.log").read_text().splitlines() == ["upgrade pilotage", "uninstall pilotage"]


def _tools(folder: Path) -> Path:
    """A folder with the `pilotage` of this environment and a `pipx` that only writes down what was asked of it."""
    tools = folder / "bin"
    tools.mkdir()
    (tools / "pipx").write_text(f'#!/bin/sh\necho "$@" >> {folder}/pipx.log\n')
    (tools / "pilotage").write_text(f'#!/bin/sh\nexec {sys.executable} -m pilotage.console "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    return tools


def _sh(script: str, state: Path, folder: Path, tools: Path) -> None:
    """Run one block of the page for the installation in `state`; fails the test where a command of it fails."""
    path = f"{tools}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["sh", "-ec", script],
        cwd=folder,
        env={**os.environ, "PATH": path, "PILOTAGE_STATE_DIR": str(state)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, f"{script}\n{ran.stdout}\n{ran.stderr}"


def test_each_test_that_the_security_model_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", (ROOT / "docs" / "security.md").read_text())
    assert len(named) > 15
    assert [each for each in named if f"def {each[1]}(" not in (ROOT / each[0]).read_text()] == []
