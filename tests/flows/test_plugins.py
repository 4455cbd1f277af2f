"""A package of somebody else's adds an action, a lever, a detector, a playbook and failure rules; policy judges them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pilotage.planner import plugins
from pilotage.telemetry.errors import ConfigError

EXAMPLE = Path(__file__).parents[1] / "plugin_example"


def wheel_of(project: Path, into: Path) -> Path:
    """Build the wheel of a pure Python project without its build backend, which may have to be downloaded."""
    told = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    name = str(told["name"]).replace("-", "_")
    info = f"{name}-{told['version']}.dist-info"
    wheel = into / f"{name}-{told['version']}-py3-none-any.whl"
    groups = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for group, entries in told["entry-points"].items()
    ]
    texts = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {told['name']}\nVersion: {told['version']}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "\n".join(groups),
    }
    modules = {
        str(path.relative_to(project)): path.read_text() for path in sorted((project / name).glob("*.py"))
    }
    record = "".join(f"{path},,\n" for path in (*modules, *texts, f"{info}/RECORD"))
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**modules, **texts, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)
    return wheel


@pytest.fixture(scope="module")
def came_of_it(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an installation with the example package says; the package is installed for this test alone."""
    place = tmp_path_factory.mktemp("plugin")
    wheel = wheel_of(EXAMPLE, place)
    installed = place / "site"
    pip = (
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--target",
        str(installed),
    )
    subprocess.run([*pip, str(wheel)], check=True, timeout=120)
    env = {**os.environ, "PYTHONPATH": str(installed)}
    ended = subprocess.run(
        [sys.executable, str(EXAMPLE / "exercise.py"), str(place)],
        env=env, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_what_a_package_detects_is_planned_by_its_playbook(came_of_it: dict[str, Any]) -> None:
    assert came_of_it["playbook"] == "label-unowned"
    assert came_of_it["proposed"]["kind"] == "label_run"
    assert came_of_it["words"] == "label run (label unowned)"


def test_a_kind_that_no_policy_names_is_denied_and_not_offered(came_of_it: dict[str, Any]) -> None:
    assert came_of_it["kinds"] is True
    assert came_of_it["denied"]["outcome"] == "deny"
    assert came_of_it["denied"]["offered"] is False


def test_a_policy_that_names_it_permits_it(came_of_it: dict[str, Any]) -> None:
    assert came_of_it["allowed"] == {"outcome": "allow", "policy_ids": ["agent-labels"], "offered": True}


def test_its_lever_acts_once_verifies_and_undoes(came_of_it: dict[str, Any]) -> None:
    assert came_of_it["delivered"] == ["done", "already", "verified", "done"]


def test_its_failure_rule_decides_where_none_of_ours_does(came_of_it: dict[str, Any]) -> None:
    assert came_of_it["diagnosis"] == "warehouse-asleep"


def test_a_package_that_is_broken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "lame-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lame\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pilotage.detectors]\nlame = there_is_no_such_module:detector\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"the plug-in lame \(pilotage.detectors\) of lame: ModuleNotFoundError"
    ):
        list(plugins.plugins("pilotage.detectors"))
