"""Which looked-up facts a schema declares, so that a bundle of another version is asked in its own words.

Facts are added from version to version. A policy is validated against its own schema and can read nothing else, so
leaving out what that schema does not declare changes no answer; handing it over would be an error, and a denial of
everything. Only facts are left out: an argument that a schema does not know is something that its authors never
judged, and stays an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Shape = str | dict[str, "Shape"]
"""The type of a value as the schema writes it: a name, or a record of types by attribute."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\w+(?:::\w+)*|[{}\[\]<>,;:?=@()]')


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """The attributes that a schema declares."""

    attributes: Mapping[str, frozenset[str]]
    """Of each entity type, by its name without the namespace."""
    worlds: Mapping[str, Shape]
    """The shape of `context.world` of each action that has one."""

    def of_entity(self, kind: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes that this type of entity has."""
        known = self.attributes.get(kind)
        return {name: value for name, value in attributes.items() if known is None or name in known}

    def of_context(self, action: str, context: Mapping[str, Any]) -> dict[str, Any]:
        """The context with as much of its world as this action's has."""
        if "world" not in context or action not in self.worlds:
            return dict(context)
        return {**context, "world": _within(self.worlds[action], context["world"])}


def declared_in(schema: str) -> Declared:
    """What this schema declares, in the form in which cedarpy prints one. Raises ValueError when it is none."""
    tokens = _Tokens(schema)
    types: dict[str, Shape] = {}
    entities: dict[str, Shape] = {}
    contexts: dict[str, Shape] = {}
    while (word := tokens.next()) != "":
        match word:
            case "type":
                name = tokens.next()
                tokens.expect("=")
                types[name] = tokens.shape()
            case "entity":
                names, shape = tokens.names(), tokens.shape_after("=")
                entities |= dict.fromkeys(names, shape)
            case "action":
                names, shape = tokens.names(), tokens.shape_after("context", ":")
                contexts |= dict.fromkeys(names, shape)
    return Declared(
        attributes={name: frozenset(_record(shape, types)) for name, shape in entities.items()},
        worlds={
            name: _resolved(record["world"], types)
            for name, shape in contexts.items()
            if "world" in (record := _record(shape, types))
        },
    )


def _within(shape: Shape, value: Any) -> Any:
    if isinstance(shape, str) or not isinstance(value, Mapping):
        return value
    return {name: _within(shape[name], part) for name, part in value.items() if name in shape}


def _record(shape: Shape, types: Mapping[str, Shape]) -> dict[str, Shape]:
    resolved = _resolved(shape, types)
    return resolved if isinstance(resolved, dict) else {}


def _resolved(shape: Shape, types: Mapping[str, Shape]) -> Shape:
    """The shape with the names of records replaced by them. Types cannot hold themselves: cedarpy refuses such."""
    if isinstance(shape, str):
        named = types.get(shape.rpartition("::")[2])
        return shape if named is None else _resolved(named, types)
    return {name: _resolved(part, types) for name, part in shape.items()}


class _Tokens:
    """The words and marks of a schema, read one after the other."""

    def __init__(self, text: str) -> None:
        self._all: Iterator[str] = (found[0] for found in _TOKEN.finditer(text))
        self._ahead: list[str] = []

    def next(self) -> str:
        """The next one, empty at the end."""
        return self._ahead.pop() if self._ahead else next(self._all, "")

    def back(self, lexeme: str) -> None:
        self._ahead.append(lexeme)

    def expect(self, wanted: str) -> None:
        if (lexeme := self.next()) != wanted:
            raise ValueError(f"{wanted!r} is missing in the schema before {lexeme!r}")

    def names(self) -> list[str]:
        """Names with commas between them."""
        names = [self.next().strip('"')]
        while (lexeme := self.next()) == ",":
            names.append(self.next().strip('"'))
        self.back(lexeme)
        return names

    def shape_after(self, *marks: str) -> Shape:
        """The shape after these in this declaration, which is read to its end; an empty record when there is none."""
        shape: Shape = {}
        while (lexeme := self.next()) != ";":
            if not lexeme:
                raise ValueError("a declaration of the schema has no end")
            if lexeme == marks[0]:
                for mark in marks[1:]:
                    self.expect(mark)
                shape = self.shape()
        return shape

    def shape(self) -> Shape:
        """A type: a name, a set of something, or a record."""
        lexeme = self.next()
        if lexeme == "Set":
            depth = 0
            while True:
                depth += {"<": 1, ">": -1}.get(self.next(), 0)
                if depth == 0:
                    return "Set"
        if lexeme != "{":
            return lexeme
        record: dict[str, Shape] = {}
        while (lexeme := self.next()) != "}":
            if not lexeme:
                raise ValueError("a record of the schema has no end")
            if lexeme == ",":
                continue
            if lexeme == "@":
                self._pass_annotation()
                continue
            if (mark := self.next()) == "?":
                mark = self.next()
            self.back(mark)
            self.expect(":")
            record[lexeme.strip('"')] = self.shape()
        return record

    def _pass_annotation(self) -> None:
        self.next()
        if (lexeme := self.next()) != "(":
            self.back(lexeme)
            return
        while self.next() not in (")", ""):
            pass
