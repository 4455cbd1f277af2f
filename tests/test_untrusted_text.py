"""One module makes text harmless, and nothing is printed past it: what a program's text shows is held here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.test_layout import ROOT, SOURCES

HOME = "telemetry/pilotage/telemetry/harmless.py"
TERMINALS = "console/pilotage/console/render/text.py"
"""Where the terminals are made, which make every plain string harmless."""
OF_DEVELOPERS = ("flows/pilotage/flows/dev/", "flows/pilotage/flows/examples/", "flows/pilotage/flows/bench/")
WRITES_ITS_OWN = {
    TERMINALS: "JSON in ASCII",
    "console/pilotage/console/cli/audit.py": "JSON of the audit log, as it was signed",
    "console/pilotage/console/cli/diagnose.py": "JSON in ASCII",
    "console/pilotage/console/tui/once.py": "JSON",
    "console/pilotage/console/render/statuses.py": "a page of the documentation",
    "flows/pilotage/flows/config/reference.py": "a page of the documentation",
    "planner/pilotage/planner/llm/scripted/server.py": "its own address",
}
"""Files that write to standard output by themselves, and what."""
MAKERS = frozenset({"harmless", "harmless_lines", "one_line", "local", "join", "assemble"})
"""Calls whose result may become text of a terminal."""


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _made_safe(node: ast.expr) -> bool:
    """Whether an expression holds no words but ours and what went through a maker."""
    match node:
        case ast.Constant():
            return True
        case ast.Call():
            return _name(node.func) in MAKERS
        case ast.Attribute(value=inner, attr="plain"):
            return _made_safe(inner)
        case ast.JoinedStr(values=parts):
            # a number that is formatted as one is a number
            return all(
                isinstance(part, ast.Constant)
                or (
                    isinstance(part, ast.FormattedValue)
                    and (part.format_spec is not None or _made_safe(part.value))
                )
                for part in parts
            )
        case ast.BinOp(op=ast.Mult()):
            return True
        case _:
            return False


def faults(path: str, source: str) -> Iterator[str]:
    """Yield each place of a source that makes or prints text past the one module."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(attr="isprintable") if path != HOME:
                yield f"{path}:{node.lineno} makes text printable by itself"
            case ast.Call(func=ast.Attribute(attr="basicConfig" | "setFormatter")) if path != HOME:
                yield f"{path}:{node.lineno} formats logs by itself"
            case ast.Call(func=ast.Name(id="Console")) if path != TERMINALS:
                yield f"{path}:{node.lineno} makes a terminal by itself"
            case ast.Call(func=ast.Name(id="print"), args=[said, *_]):
                if not (_made_safe(said) or path in WRITES_ITS_OWN):
                    yield f"{path}:{node.lineno} prints"
            case ast.Call(
                func=ast.Attribute(value=ast.Attribute(attr="stdout" | "stderr"), attr="write"),
                args=[said, *_],
            ):
                if not (_made_safe(said) or path in WRITES_ITS_OWN):
                    yield f"{path}:{node.lineno} writes to the terminal"
            case ast.Call(func=ast.Name(id="Text"), args=[said, *_]) if not _made_safe(said):
                yield f"{path}:{node.lineno} draws words that nothing made harmless"
            case ast.Call(func=ast.Attribute(attr="from_markup" | "from_ansi")):
                yield f"{path}:{node.lineno} reads markup"


def test_nothing_is_printed_past_it() -> None:
    found = [
        fault
        for file in SOURCES
        if not (path := file.relative_to(ROOT).as_posix()).startswith(OF_DEVELOPERS)
        for fault in faults(path, file.read_text())
    ]
    assert found == []


@pytest.mark.parametrize("path", WRITES_ITS_OWN)
def test_each_exception_is_still_one(path: str) -> None:
    source = Path(ROOT / path).read_text()
    assert "stdout.write(" in source or "print(" in source


@pytest.mark.parametrize(
    "source",
    [
        "print(f'{state}')",
        "print(state)",
        "sys.stdout.write(state)",
        "Text(state)",
        "Text(f'{state} it is')",
        "Text.from_markup(state)",
        "Console()",
        "''.join(s for s in state if s.isprintable())",
        "logging.basicConfig()",
    ],
)
def test_what_would_print_run_text_is_found(source: str) -> None:
    assert list(faults("console/pilotage/console/cli/new.py", source))
