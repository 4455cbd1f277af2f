"""Text of runs, models and people, made harmless to look at: one line, nothing hidden, nothing that acts.

The one place for it. Terminals, logs, Markdown and SVG take what these functions return; the page's `plain` in `dom.js`
does the same, and a test holds both to one table of cases.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from functools import lru_cache
from typing import Any
from xml.sax.saxutils import escape

from pilotage.telemetry.redaction import invisible, redact

WHOLE = 1_000_000
"""A limit for text that is not to be cut."""
LOOKALIKE_SCRIPTS = frozenset(
    {
        *("GREEK", "CYRILLIC", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU", "GEORGIAN"),
        *("FULLWIDTH", "MATHEMATICAL"),
    }
)
"""First words of the Unicode names of letters that pass for Latin ones."""
SYMBOLS = frozenset("μΔΩΣπσλθ")
"""Greek letters that stand in Latin words as units and symbols, and look like no Latin letter."""

_WORD = re.compile(r"\w+")
_MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_{}[]<>()#+-.!|~"})


def harmless(value: object, limit: int = 200) -> str:
    """Return the value as one line of at most `limit` characters, for terminals, logs and models.

    Line ends become `⏎`, tabs a space. Control, format and invisible characters (terminal escapes, direction marks)
    become visible `\\x1b` forms, so that nothing can move a cursor, hide or reorder what is shown; so do letters that
    pass for others in a word of two scripts, such as a Greek omicron in `orders`.
    """
    start = ("" if value is None else str(value))[: limit + 1]
    plain = start.isascii() and start.isprintable()
    shown = start if plain else _WORD.sub(_marked, "".join(map(_visible, start)))
    return shown if len(shown) <= limit else shown[: max(0, limit - 1)] + "…"


def harmless_lines(value: object) -> str:
    """Return the value with its line ends kept and each of its lines harmless, uncut."""
    return "\n".join(harmless(line, WHOLE) for line in str(value).split("\n"))


def markdown(value: object, limit: int = 1200) -> str:
    """Return the value as one line of Markdown in which nothing is markup or a link."""
    flat = re.sub(r"\s", " ", "" if value is None else str(value))
    return harmless(flat, limit).translate(_MARKDOWN)


def xml(value: object, limit: int = 400) -> str:
    """Return the value as one line of text inside an element of HTML or SVG."""
    return escape(harmless(value, limit))


class HarmlessFormatter(logging.Formatter):
    """Formats log records: a record's words are one line without secrets, a traceback as many as it has."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """As logging.Formatter."""
        record.message = harmless(redact(record.message), WHOLE)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """As logging.Formatter."""
        return harmless_lines(redact(super().formatException(ei)))


def log_to_stderr(level: int) -> None:
    """Let this process log to its standard error from a level on, harmlessly."""
    handler = logging.StreamHandler()
    handler.setFormatter(HarmlessFormatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


@lru_cache(maxsize=4096)
def _visible(sign: str) -> str:
    if sign == "\n":
        return "⏎"
    if sign == "\t":
        return " "
    return sign if sign.isprintable() and not invisible(sign) else _code(sign)


def _code(sign: str) -> str:
    number = ord(sign)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{{{number:x}}}"


def _marked(word: re.Match[str]) -> str:
    """A word as it stands, or with the letters of its rarer script in numbers when it mixes two that look alike."""
    if word[0].isascii():
        return word[0]
    latin = sum(_script(sign) == "LATIN" for sign in word[0])
    others = sum(_script(sign) in LOOKALIKE_SCRIPTS for sign in word[0])
    if not latin or not others:
        return word[0]
    foreign = {"LATIN"} if latin < others else LOOKALIKE_SCRIPTS
    return "".join(_code(sign) if _script(sign) in foreign else sign for sign in word[0])


@lru_cache(maxsize=4096)
def _script(sign: str) -> str:
    if not sign.isalpha() or sign in SYMBOLS:
        return ""
    return unicodedata.name(sign, "").partition(" ")[0]
