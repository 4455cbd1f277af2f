"""Writes down the sentences of Prefect: what its states, refusals, errors and log lines say in each version.

`python -m tests.compat.make_messages` reads the sources in the wheels; nothing of Prefect is imported or run.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.compat.versions import DATA, VERSIONS, wheel

MESSAGES = DATA / "messages.json"

READ = (
    *("states.py", "engine.py", "flow_engine.py", "task_engine.py", "_flow_run_process.py", "exceptions.py"),
    *("flow_runs.py", "flows.py", "tasks.py", "utilities/engine.py", "client/base.py", "cli/_utilities.py"),
    *("workers/", "runner/", "concurrency/", "deployments/steps/", "_internal/", "server/models/"),
    *("server/orchestration/", "server/services/", "server/api/", "server/utilities/", "events/utilities.py"),
)
"""What can put words into a state, a refusal or the log of a run: files, and folders with everything below."""
_SKIPPED = (
    "_internal/compatibility/",
    "_internal/schemas/",
    "_internal/versioning.py",
    "server/utilities/schemas",
)
_QUIET = frozenset({"debug", "info", "Field", "Query", "Path", "Body", "Header", "deprecated_parameter"})
"""Calls whose words nobody reads in a run: quiet log lines, and descriptions of fields and parameters."""
STATES = frozenset(
    {
        *(
            "State",
            "Failed",
            "Crashed",
            "Cancelled",
            "Cancelling",
            "Pending",
            "Scheduled",
            "Paused",
            "Suspended",
        ),
        *("AwaitingRetry", "AwaitingConcurrencySlot", "Retrying", "Completed", "Late", "Running"),
    }
)
_DESCRIBING = frozenset({"description", "help", "title", "summary"})
_EVENT = re.compile(r"prefect\.[a-z]+(?:-[a-z]+)*\.[a-z]+(?:-[a-z]+)*")
_FEWEST_WORDS = 3
"""Fewer words are a key or an option, except for a state's name."""


def template(node: ast.expr) -> str:
    """Return the text of a string expression, with `{expression}` where a value comes in, or an empty string."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(
                str(part.value) if isinstance(part, ast.Constant) else "{" + _value(part) + "}"
                for part in parts
            )
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            # either side may be a value: `"failed: " + reason`
            ends = [template(side) or "{" + ast.unparse(side) + "}" for side in (left, right)]
            return "".join(ends) if any(template(side) for side in (left, right)) else ""
        case ast.Call(func=ast.Attribute(value=inner, attr="format")):
            return template(inner)
        case _:
            return ""


def _value(part: ast.expr) -> str:
    return ast.unparse(part.value) if isinstance(part, ast.FormattedValue) else ast.unparse(part)


class _Reader(ast.NodeVisitor):
    def __init__(self) -> None:
        self.texts: set[str] = set()

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.expr) and (text := " ".join(template(node).split())):
            if len(text.split()) >= _FEWEST_WORDS:
                self.texts.add(text)
            elif _EVENT.fullmatch(text):
                self.texts.add(f"event {text}")
        else:
            super().visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # which would be a docstring
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        called = ast.unparse(node.func).rpartition(".")[2]
        if called in _QUIET:
            return
        for keyword in node.keywords:
            if keyword.arg == "name" and isinstance(keyword.value, ast.Constant) and called in STATES:
                self.texts.add(f"state {keyword.value.value!s}")
            elif keyword.arg not in _DESCRIBING:
                self.visit(keyword)
        for argument in (node.func, *node.args):
            self.visit(argument)


def sentences(source: bytes) -> set[str]:
    """Return what a module can say, white space made one blank; also `state NAME` and `event NAME`."""
    reader = _Reader()
    reader.visit(ast.parse(source))
    return reader.texts


def sources_in_wheel(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every file in a wheel, the names relative to the package."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.startswith("prefect/"):
                yield name.removeprefix("prefect/"), archive.read(name)


def sources_below(package: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every Python file of an installed package."""
    for path in package.rglob("*.py"):
        yield path.relative_to(package).as_posix(), path.read_bytes()


def sentences_of(sources: Iterable[tuple[str, bytes]]) -> set[tuple[str, str]]:
    """Return every (module, text) of the sources."""
    return {
        (name, text)
        for name, content in sources
        if name.endswith(".py") and name.startswith(READ) and not name.startswith(_SKIPPED)
        for text in sentences(content)
    }


def main() -> None:
    """Write `data/messages.json`: one row a sentence, with the module and the versions that have it."""
    versions_by_sentence: dict[tuple[str, str], list[str]] = {}
    for version in VERSIONS:
        for sentence in sentences_of(sources_in_wheel(wheel(version))):
            versions_by_sentence.setdefault(sentence, []).append(version)
    rows = [
        {"text": text, "module": module, "versions": versions}
        for (module, text), versions in sorted(versions_by_sentence.items())
    ]
    MESSAGES.parent.mkdir(parents=True, exist_ok=True)
    MESSAGES.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n")
    sys.stdout.write(f"{len(rows)} sentences of Prefect {', '.join(VERSIONS)} in {MESSAGES}\n")


if __name__ == "__main__":
    main()
