"""Writes down the OpenAPI descriptions of the supported Prefect servers, without their prose, in one file.

`python -m tests.compat.make_openapi` asks each version in an environment of its own; no server is started.
"""

from __future__ import annotations

import json
import lzma
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.compat.versions import DATA, VERSIONS, environment

OPENAPI = DATA / "openapi.json.xz"
_PROSE = frozenset(
    {"description", "title", "summary", "examples", "example", "operationId", "tags", "default"}
)


def described(version: str) -> dict[str, Any]:
    """Return the description that a version's server gives of itself."""
    with tempfile.TemporaryDirectory() as home:
        ran = subprocess.run(
            [str(environment(version)), str(Path(__file__).with_name("dump_openapi.py"))],
            env={**os.environ, "PREFECT_HOME": home, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
            stdout=subprocess.PIPE,
            check=True,
        )
    full = json.loads(ran.stdout)
    return {"paths": _bare(full["paths"]), "schemas": _bare(full["components"]["schemas"])}


def _bare(value: Any, *, names: bool = True) -> Any:
    # below `properties`, the keys are names of fields, which may be called `description` or `tags`
    if isinstance(value, dict):
        return {
            key: _bare(each, names=(not names and key == "properties") or key in ("paths", "schemas"))
            for key, each in value.items()
            if names or key not in _PROSE
        }
    return [_bare(each, names=False) for each in value] if isinstance(value, list) else value


@cache
def descriptions() -> dict[str, dict[str, Any]]:
    """Return what was written down: `paths` and `schemas` by version."""
    described_by_version: dict[str, dict[str, Any]] = json.loads(lzma.decompress(OPENAPI.read_bytes()))
    return described_by_version


def main() -> None:
    """Write the descriptions of all versions into one compressed file: they differ little."""
    text = json.dumps({version: described(version) for version in VERSIONS}, sort_keys=True)
    OPENAPI.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    sys.stdout.write(f"{OPENAPI}: {OPENAPI.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
