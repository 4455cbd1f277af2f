"""Where the long matrices write what they counted: `.bench/soak.json`, one section each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

TARGET = Path(".bench") / "soak.json"


def progress(text: str) -> None:
    """Print one line for whoever watches `make soak`."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", flush=True)


def record(section: str, counts: Mapping[str, Any]) -> None:
    """Write these counts to the section of the report; the other sections keep theirs."""
    sections = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps({**sections, section: dict(counts)}, indent=2, sort_keys=True) + "\n")
