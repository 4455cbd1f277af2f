"""YAML that people write: the safe subset, and no key twice in one mapping, since the last would win without a word."""

from __future__ import annotations

from typing import Any

import yaml


class _NoTwins(yaml.SafeLoader):
    """Refuses a key that stands twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """As the parent's. Raises yaml.constructor.ConstructorError naming the key and its line."""
        known: set[str] = set()
        for key, _ in node.value:
            if key.value in known and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    "reading a mapping",
                    node.start_mark,
                    f"the key {str(key.value)[:80]!r} stands twice",
                    key.start_mark,
                )
            known.add(str(key.value))
        return super().construct_mapping(node, deep)


def loaded(text: str) -> Any:
    """The value of a YAML text. Raises yaml.YAMLError for what is none, and for a key that stands twice."""
    return yaml.load(text, _NoTwins)  # noqa: S506 - a SafeLoader
