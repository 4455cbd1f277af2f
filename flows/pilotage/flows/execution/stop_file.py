"""The kill switch's file. Apart and light, because stopping must work when nothing else does."""

from __future__ import annotations

import os
from pathlib import Path


def pull(path: Path, text: str) -> None:
    """Writes the stop file durably; harmless when it is already there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text.replace("\n", " ")[:500] + "\n")
        file.flush()
        os.fsync(file.fileno())
