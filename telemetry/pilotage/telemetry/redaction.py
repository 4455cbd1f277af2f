"""What must not leave a run's text: secrets go on the way in, control characters on the way out.

A table of patterns, each keeping what a reader needs (which key, which host) and masking the rest. What it
cannot know is a secret without a shape or a name beside it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

MASK = "[redacted]"

_TELLING = (
    r"pass(?:word|wd|phrase)?|pwd|secret(?:[-_ ]?(?:access[-_ ]?)?key)?|client[-_ ]?secret|token|"
    r"api[-_ ]?key|access[-_ ]?key(?:[-_ ]?id)?|account[-_ ]?key|"
    r"shared[-_ ]?access[-_ ]?(?:key|signature)|private[-_ ]?key|auth(?:[-_ ]?(?:token|string|key))?|"
    r"authorization|credentials?|session[-_ ]?(?:id|key)|cookie|signature|sig|sas|dsn|"
    r"connection[-_ ]?string"
)
"""Names beside which a value is a secret."""
_SECRET_KEY = re.compile(rf"(?:^|[-_. ]|(?<=[a-z])(?=[A-Z]))(?:{_TELLING})s?$", re.IGNORECASE)
_NOT_SECRET_KEY = re.compile(r"(?:max|min|num|count|total|input|output|prompt)[-_ ]?tokens?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One shape of secret."""

    name: str
    shape: re.Pattern[str]
    keep: str = MASK
    """What stands in its place; `\\1` keeps the first group."""


def _pattern(name: str, shape: str, keep: str = MASK, flags: int = 0) -> Pattern:
    return Pattern(name=name, shape=re.compile(shape, flags), keep=keep)


PATTERNS: tuple[Pattern, ...] = (
    _pattern(
        "private key block",
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,20}-----.*?"
        r"(?:-----END [A-Z0-9 ]{0,40}KEY[A-Z ]{0,20}-----|\Z)",
        flags=re.DOTALL,
    ),
    _pattern(
        "password in a URL",
        r"([a-zA-Z][a-zA-Z0-9+.-]{1,30}://[^\s:/@'\"]{0,200}):[^\s/'\"]{1,500}@",
        rf"\1:{MASK}@",
    ),
    _pattern("user token in a URL", r"(https?://)[^\s:/@'\"]{16,500}@", rf"\1{MASK}@"),
    _pattern(
        "authorization header",
        r"\b((?:proxy-)?authorization['\"]?\s*[:=]\s*['\"]?(?:bearer|basic|token|digest|negotiate|apikey)\s+)[^\s'\",;]+",
        rf"\1{MASK}",
        re.IGNORECASE,
    ),
    _pattern(
        "bearer or basic token", r"\b(bearer|basic)\s+[A-Za-z0-9._~+/-]{12,}=*", rf"\1 {MASK}", re.IGNORECASE
    ),
    _pattern("JSON web token", r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?"),
    _pattern("AWS key id", r"\b(?:AKIA|ASIA|AIDA|AROA|AGPA|ANPA)[A-Z0-9]{16}\b"),
    _pattern("GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})"),
    _pattern("GitLab token", r"\bgl(?:pat|ptt|dt|rt|cbt|soat)-[A-Za-z0-9_-]{16,}"),
    _pattern("Slack token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    _pattern("Slack webhook", r"(hooks\.slack\.com/(?:services|workflows)/)[A-Za-z0-9/_-]+", rf"\1{MASK}"),
    _pattern("provider key", r"\b(?:sk|rk|pk)[-_](?:[a-z]{2,12}[-_])*[A-Za-z0-9_-]{16,}"),
    _pattern("Google key", r"\bAIza[A-Za-z0-9_-]{30,}|\bya29\.[A-Za-z0-9_-]{20,}"),
    _pattern("Prefect key", r"\bpn[ub]_[A-Za-z0-9]{16,}"),
    _pattern("package index token", r"\b(?:pypi-|npm_|hf_|dop_v1_|SG\.)[A-Za-z0-9_.-]{20,}"),
    _pattern(
        "named secret in quotes",
        rf"((?:\b|_)(?:{_TELLING})s?\\?['\"]?\s{{0,3}}(?:[:=]|=>)\s{{0,3}}\\?(['\"]))(?!\[redacted\]).{{1,2000}}?\\?\2",
        rf"\1{MASK}\2",
        re.IGNORECASE,
    ),
    _pattern(
        "named secret",
        rf"((?:\b|_)(?:{_TELLING})s?\\?['\"]?\s{{0,3}}(?:[:=]|=>)\s{{0,3}})(?!\[redacted\]|(?:bearer|basic|token|digest|negotiate|apikey)\s+\[redacted\]|['\"\\])[^\s,;&|'\"()\[\]{{}}<>\\]{{2,}}",
        rf"\1{MASK}",
        re.IGNORECASE,
    ),
)

_LONG_WORD = re.compile(r"(?<![A-Za-z0-9+/_=-])[A-Za-z0-9+/_-]{24,}={0,2}(?![A-Za-z0-9+/_=-])")
_NEAR_KEY = re.compile(
    r"(?:key|secret|token|password|credential|auth)\W{0,3}(?:\w+\W{1,3}){0,2}$", re.IGNORECASE
)
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_RANDOM_BITS = 3.5
"""Bits a character: English and paths lie below, random base64 of 24 characters and more above."""


_SHORT = 80
"""Characters up to which answers are remembered: most texts of events are keys, names and states seen before."""


def redact(text: str) -> str:
    """The text without the secrets that have a known shape or stand beside a telling name."""
    return _redacted_short(text) if len(text) <= _SHORT else _redacted(text)


@lru_cache(maxsize=20_000)
def _redacted_short(text: str) -> str:
    return _redacted(text)


def _redacted(text: str) -> str:
    for pattern in PATTERNS:
        text = pattern.shape.sub(pattern.keep, text)
    return _LONG_WORD.sub(_masked_if_random(text), text)


def _masked_if_random(text: str) -> Callable[[re.Match[str]], str]:
    def mask(match: re.Match[str]) -> str:
        word = match.group(0)
        if _UUID.fullmatch(word) or not _NEAR_KEY.search(text[max(0, match.start() - 60) : match.start()]):
            return word
        return MASK if _entropy(word) > _RANDOM_BITS else word

    return mask


def _entropy(word: str) -> float:
    return -sum(n / len(word) * math.log2(n / len(word)) for n in Counter(word).values())


def redact_json(value: Any) -> Any:
    """The same value with secrets masked in every text, and all of what stands under a secret-looking key."""
    match value:
        case dict():
            return {redact(str(key)): _under(str(key), item) for key, item in value.items()}
        case list() | tuple():
            return [redact_json(item) for item in value]
        case str():
            return redact(value)
        case _:
            return value


def _under(key: str, value: Any) -> Any:
    secret = _SECRET_KEY.search(key) and not _NOT_SECRET_KEY.search(key)
    if secret and value not in (None, "", False, True):
        return MASK
    return redact_json(value)


def quoted(text: str, limit: int = 200) -> str:
    """The text as one line of at most `limit` characters, for terminals and models.

    Line ends become `⏎`; control, format and invisible characters (terminal escapes, direction marks) become
    visible `\\x1b` forms, so that nothing in it can move a cursor, hide or reorder what is shown.
    """
    shown = "".join(_visible(character) for character in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: max(0, limit - 1)] + "…"


def _visible(character: str) -> str:
    if character == "\n":
        return "⏎"
    if character == "\t":
        return " "
    if not character.isprintable():
        code = ord(character)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{{{code:x}}}"
    return character
