"""Every sentence of the page is in every catalogue, with the same values in it, and none is put together from pieces."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

import pilotage.console.session.now as now
import pilotage.console.web as web

STATIC = Path(web.__file__).parent / "static"
TEXT = r'"((?:[^"\\]|\\.)*)"'
CATALOGUES = sorted(STATIC.glob("words.*.json"))


def sentences_of_the_page() -> set[str]:
    """The sentences that the scripts say."""
    found: set[str] = set()
    for script in STATIC.glob("*.js"):
        code = script.read_text()
        found |= set(re.findall(rf"\b(?:t|parts)\({TEXT}", code))
        for one, many in re.findall(rf"\btn\([^\"\n]*?,\s*{TEXT},\s*{TEXT}", code):
            found |= {one, many}
    return {json.loads(f'"{each}"') for each in found}


def sentences_of_now() -> set[str]:
    """The sentences that the server says on Now."""
    tree = ast.parse(Path(now.__file__).read_text())
    docs = {
        node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    said = {each for each in texts - docs if re.match(r"[A-Z{].* .*[.}]$", each)}
    return said | {*now.TITLES, "Done in the last day"}


def values_in(words: str) -> list[str]:
    return sorted(re.findall(r"\{(\w+)\}", words))


@pytest.mark.parametrize("catalogue", CATALOGUES, ids=lambda path: path.name)
def test_a_catalogue_says_every_sentence_and_no_other(catalogue: Path) -> None:
    said = json.loads(catalogue.read_text())
    wanted = sentences_of_the_page() | sentences_of_now()
    assert len(wanted) > 150
    assert sorted(wanted - said.keys()) == []
    assert sorted(said.keys() - wanted) == []
    assert {words: other for words, other in said.items() if values_in(words) != values_in(other)} == {}
    assert [words for words, other in said.items() if not other.strip()] == []


def test_there_is_another_language() -> None:
    assert CATALOGUES
