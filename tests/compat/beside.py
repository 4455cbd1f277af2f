"""Shows what pip would change in a project with Prefect, pandas and SQLAlchemy if pilotage were installed beside them.

`python -m tests.compat.beside` makes such a project for each version, asks pip for its report, installs nothing, prints
a table, and ends with 1 when a package that the project has would change. It fetches packages: run by `make beside`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.compat.versions import CACHE, VERSIONS

ROOT = Path(__file__).parents[2]
PROJECTS = VERSIONS[-2:]
"""The Prefect versions of the projects: those that `prefect>=3.8.8,<4` admits."""
OPTIONS = ("--disable-pip-version-check", "--quiet")


def _pip(python: Path, *arguments: str) -> str:
    ran = subprocess.run(
        [str(python), "-m", "pip", *arguments], stdout=subprocess.PIPE, check=True, text=True
    )
    return ran.stdout


def _name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def project(version: str) -> Path:
    """Return the Python of a project with this Prefect, made the first time, with what pip chooses today."""
    home = CACHE / f"beside-{version}"
    python, stamp = home / "bin" / "python", home / ".installed"
    if not stamp.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        _pip(python, "install", *OPTIONS, f"prefect=={version}", "pandas", "sqlalchemy")
        stamp.touch()
    return python


def changes(python: Path) -> tuple[dict[str, tuple[str, str]], int]:
    """Return what would change, as name to (version now, version then), and how many packages would be added."""
    have = {
        _name(each["name"]): each["version"] for each in json.loads(_pip(python, "list", "--format=json"))
    }
    report = json.loads(_pip(python, "install", *OPTIONS, "--dry-run", "--report", "-", str(ROOT)))
    then = {_name(each["metadata"]["name"]): each["metadata"]["version"] for each in report["install"]}
    changed = {name: (have[name], version) for name, version in then.items() if name in have}
    return changed, len(then) - len(changed)


def main() -> int:
    """Print a row for each project. Return the exit code."""
    sys.stdout.write("| project | changes | adds |\n|---|---|---|\n")
    told = {version: changes(project(version)) for version in PROJECTS}
    for version, (changed, added) in told.items():
        words = ", ".join(f"{name} {now} to {then}" for name, (now, then) in sorted(changed.items()))
        sys.stdout.write(
            f"| prefect {version}, pandas, SQLAlchemy | {words or 'nothing'} | {added} packages |\n"
        )
    return 1 if any(changed for changed, _ in told.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
