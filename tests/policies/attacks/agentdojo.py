"""The injection strings of AgentDojo (PyPI `agentdojo`, MIT), read from its sources and never run.

Its attacks are templates around a goal; its goals are those of its own suites (bank, mail, travel), to which ours are
added. They are strings, not its score: its tools are not ours, and no model is asked.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import yaml

SOURCES = Path(__file__).parents[3] / ".agentdojo" / "agentdojo"
"""Where `make attacks` puts the package, without its dependencies."""
_NAMES = {"{user}": "Emma Johnson", "{model}": "AI assistant"}
"""What its templates call the person and the model."""


def agentdojo_strings(sources: Path = SOURCES) -> tuple[str, ...]:
    """Return each template filled with each goal; none where the package is not there."""
    ours = yaml.safe_load((Path(__file__).parent / "strings.yaml").read_text(encoding="utf-8"))["goals"]
    goals = list(dict.fromkeys([*ours, *_goals(sources)]))
    return tuple(_filled(template, goal) for template in _templates(sources) for goal in goals)


def _filled(template: str, goal: str) -> str:
    for name, value in _NAMES.items():
        template = template.replace(name, value)
    return template.replace("{goal}", goal)


def _templates(sources: Path) -> list[str]:
    found = [
        node.value
        for path in sorted(sources.glob("attacks/*.py"))
        for node in _beside_docstrings(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "{goal}" in node.value
    ]
    return list(dict.fromkeys(found))


def _goals(sources: Path) -> Iterator[str]:
    for path in sorted(sources.glob("default_suites/*/*/injection_tasks.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Assign(targets=[ast.Name(id="GOAL")], value=value):
                    said = [each.value for each in ast.walk(value) if isinstance(each, ast.Constant)]
                    yield "".join(str(each) for each in said)


def _beside_docstrings(tree: ast.AST) -> Iterator[ast.AST]:
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return (node for node in ast.walk(tree) if id(node) not in docstrings)
