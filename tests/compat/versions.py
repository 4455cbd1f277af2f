"""The Prefect server versions that pilotage is held against, and where their wheels are fetched from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

VERSIONS = ("3.6.16", "3.6.29", "3.7.8", "3.8.8", "3.9.1")
"""Oldest first. The oldest is the oldest server that is accepted; the last of each line in between; the newest."""
OF_THEIR_TIME = {
    "3.6.16": ("fastapi<0.130", "sqlalchemy<2.1", "importlib-metadata"),
    "3.6.29": ("fastapi<0.130", "sqlalchemy<2.1", "importlib-metadata"),
    "3.7.8": ("fastapi<0.151", "sqlalchemy<2.1", "importlib-metadata"),
    "3.8.8": ("fastapi<0.151", "sqlalchemy<2.1", "importlib-metadata"),
}
"""What a server needs beside it where its own metadata admits releases with which it does not start or answer."""
DATA = Path(__file__).parent / "data"
CACHE = Path(os.environ.get("PILOTAGE_COMPAT_CACHE") or Path.home() / ".cache" / "pilotage-compat")
"""Wheels and environments of those versions; outside the repository, so that `make clean` keeps them."""


def wheel(version: str) -> Path:
    """Return the wheel of a Prefect version, fetched from the package index the first time."""
    folder = CACHE / "wheels"
    found = list(folder.glob(f"prefect-{version}-*.whl"))
    if not found:
        folder.mkdir(parents=True, exist_ok=True)
        options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:")
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder)]
        subprocess.run([*command, f"prefect=={version}"], check=True)
        found = list(folder.glob(f"prefect-{version}-*.whl"))
    return found[0]


def environment(version: str) -> Path:
    """Return the Python of an environment that has this Prefect version and nothing of ours."""
    home = CACHE / version
    python, stamp = home / "bin" / "python", home / ".installed"
    if not stamp.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        options = ("--quiet", "--disable-pip-version-check")
        wanted = (f"prefect=={version}", *OF_THEIR_TIME.get(version, ()))
        subprocess.run([str(python), "-m", "pip", "install", *options, *wanted], check=True)
        stamp.touch()
    return python
