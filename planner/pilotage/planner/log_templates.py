"""Log lines as templates with counts: what a run said, in as many lines as it said different things.

Values are masked by their form (addresses, paths, times, ids, numbers), so that most lines of one kind become equal. What
is left are words in a value's place: `user alice`, `user bob`. Two templates of equal length that differ in one word are
merged where that place is one for a value: after `=` or a label, after a noun that takes a name, after a preposition, in
quotes, or where more words were seen than a vocabulary has. The idea of grouping by length and widening a position by
its number of children is that of Drain (He, Zhu, Zheng, Lyu, ICWS 2017) and Brain (Yu, He, Chen, Wu, TSC 2023); no
expression here belongs to one system.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from pilotage.telemetry.facts import LogLine

ANY = "<*>"
MOST = 500
"""Templates that are kept; a run that says more different things is told by its newest ones."""
READ_CHARS = 2_000
"""Characters of a line that are read."""
VOCABULARY = 12
"""More different words than these in one place, all else being equal, are values."""
AFTER_PREPOSITION = 3
"""Different words in one place after a preposition that are values; two may be two things that are done."""
ROUNDS = 3
"""How many places of one line can turn out to be for values, one after the other."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NAMED = _words(
    "user host hostname node table task flow run file class method package name column topic bucket database schema "
    "service server client module queue pool worker deployment container pod image model job block path key field "
    "attribute parameter variable thread process session device interface"
)
"""Nouns that a name follows."""
_PREPOSITIONS = _words("for from to at by in on of with via into about as")

_STATUS = re.compile(
    r"(?i)\b(?:https?(?:/\d(?:\.\d)?)?|status code|errno|exit(?:ed)?(?: with)?(?: code| status)?|signal)"
    r"\b[\"']?\s{0,9}[:=]?\s{0,9}[\"'(\[]?(?P<code>-?\d{1,5})\b(?![.:]\d)"
    r"|(?P<leading>\b[45]\d\d)(?=, message=| (?:Client|Server) Error| (?-i:[A-Z][a-z]+ ){0,2}(?-i:[A-Z][a-z]+)\b)"
)
"""A number that says what happened, such as `HTTP 429` or `exit code 137`: it looks like a value and is a word. A field of
a line (`status: 200 len: 1893`) is a value like its neighbours."""

_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_VALUES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), stands_for)
    for pattern, stands_for in (
        (
            r"(?<==)\s?\"[^\"\n]{0,500}\"|(?<![\w'])'(?!\ue000)[^'\n]{0,250} [^'\n]{0,250}'(?![\w'])|`[^`\n]{0,500}`",
            "<text>",
        ),
        (r"(?<![\w:/.])[a-zA-Z][a-zA-Z0-9+.-]{0,20}://[^\s'\"<>()\[\]{},;]+", "<url>"),
        (r"(?<![\w/.<>])(?:[A-Za-z]:|~|\.{1,2})?[/\\](?:[\w.@+%=~:$#*?&-]+[/\\]*)+", "<path>"),
        (r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}", "<id>"),
        (
            r"\b\d{4}[-/]\d\d[-/]\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?|"
            rf"\b(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\w*,? )?{_MONTH}\w* +\d{{1,2}} \d\d:\d\d:\d\d"
            r"(?: [A-Z]{3,4})?(?: \d{4})?|"
            r"\b\d\d?:\d\d:\d\d(?:[.,]\d+)?\b",
            "<time>",
        ),
        (r"\b(?:[0-9a-fA-F]{2}:){5,}[0-9a-fA-F]{2}\b", "<hex>"),
        (
            # host.name:port, names of three parts and more where a value stands, addresses with or without a port
            r"(?<![\w.$-])(?:[A-Za-z0-9_][\w$-]{0,80}\.){1,8}[A-Za-z0-9_$][\w$-]{0,80}:\d{1,5}\b|"
            r"(?<![\w.$-])localhost:\d{1,5}\b|"
            r"(?<=[=(@ ])(?:[A-Za-z0-9][\w-]{0,80}\.){2,8}[A-Za-z][\w-]{0,80}\b|"
            r"(?<![\w.])/?(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?\b",
            "<host>",
        ),
        (
            r"(?<![\w.-])[-+]?\d+(?:[.,]\d+)*(?:%| ?(?:[KMGTP]i?B|B|bytes)\b|(?:[KMGTP]i?|ms|us|ns|s|k|[KMG]Hz)\b)?(?!\w)",
            "<n>",
        ),
        (r"\b0[xX][0-9a-fA-F]+\b|(?<![\w-])(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{8,}\b", "<hex>"),
        # a value that is empty is one all the same
        (r"(?<!\S)(?:\(\)|\[\]|\{\}|''|\"\")(?!\S)", "<text>"),
        # a word with digits in it: blk_-123, task-7f, container_01_000002
        (r"(?<!\w)[A-Za-z]{0,200}[_#@-]?-?[\w-]{0,200}\d[\w-]*", "<id>"),
    )
)
_NAMES = re.compile(r"(?<!\w)'(?![45]\d\d )[^'\n]{0,500}'(?!\w)|(?<!\w)\"(?![45]\d\d )[^\"\n]{0,500}\"(?!\w)")
"""What stands in quotes, a status left aside: in a message it is a value, in a line's template it may be a word."""
_KEPT = re.compile("\ue000([^\ue000\ue001]*)\ue001")
_SEVERAL = re.compile(r"(<\w+>)(?:[,/:;-]?<\w+>)+")
_QUOTED = re.compile(r"([\"'])[^\"']*\1[.,:;)]?")
_MASK = re.compile(r"\(?<(?:\w+|\*)>\)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogTemplate:
    """One kind of line."""

    words: tuple[str, ...]
    """Masked; what differs between its lines is `<*>`. Untrusted."""
    level: int
    """The highest level of its lines."""
    count: int
    first_at: datetime
    last_at: datetime
    first_log_id: str
    last_log_id: str
    example: str
    """The newest line, as it was; untrusted."""

    @property
    def text(self) -> str:
        """The template as one line."""
        return " ".join(self.words)


def masked(message: str) -> tuple[str, ...]:
    """Return the words of a line with its values masked; several masks in a row are one."""
    text = message[:READ_CHARS].replace("\ue000", "").replace("\ue001", "")
    text = _STATUS.sub(_kept, text)
    for pattern, stands_for in _VALUES:
        text = pattern.sub(stands_for, text)
    text = _SEVERAL.sub(r"\1", _KEPT.sub(lambda match: _digits(match[1]), text))
    words: list[str] = []
    for word in text.split():
        if not (words and word == words[-1] and _MASK.fullmatch(word)):
            words.append(word)
    return tuple(words) or ("",)


def normalised(message: str) -> str:
    """Return a message with everything that differs between two occurrences of one fault taken out."""
    return _NAMES.sub("<text>", " ".join(masked(message)))[:500]


def _kept(match: re.Match[str]) -> str:
    """Write the digits of a status as private characters, so that no pattern takes them for a value."""
    name = "code" if match["code"] else "leading"
    start, end = match.start(name) - match.start(), match.end(name) - match.start()
    hidden = "".join(chr(0xE010 + ord(c)) for c in match[name])
    return f"{match[0][:start]}\ue000{hidden}\ue001{match[0][end:]}"


def _digits(hidden: str) -> str:
    return "".join(chr(ord(c) - 0xE010) for c in hidden)


def grouped(lines: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return, for the masked words of each line, the words of its group: equal for lines of one template."""
    kinds: dict[tuple[str, ...], tuple[str, ...]] = {}
    by_length: dict[int, set[tuple[str, ...]]] = defaultdict(set)
    for words in lines:
        kind = tuple(_MASK.sub(ANY, word) for word in words)
        kinds[words] = kind
        by_length[len(kind)].add(kind)
    merged: dict[tuple[str, ...], tuple[str, ...]] = {}
    for alike in by_length.values():
        merged |= _merged(alike)
    return {words: merged[kind] for words, kind in kinds.items()}


def _merged(kinds: set[tuple[str, ...]]) -> Mapping[tuple[str, ...], tuple[str, ...]]:
    """Return the group of each of these, which have one length; the first word is a name and never a value."""
    group = {kind: kind for kind in kinds}
    length = len(next(iter(kinds)))
    for _ in range(ROUNDS):
        before = set(group.values())
        for place in range(1, length):
            siblings: dict[tuple[str, ...], set[str]] = defaultdict(set)
            for kind in set(group.values()):
                siblings[(*kind[:place], ANY, *kind[place + 1 :])].add(kind[place])
            for wider, words in siblings.items():
                values = _values(wider[place - 1], words)
                if len(values) > 1:
                    gone = {(*wider[:place], word, *wider[place + 1 :]) for word in values}
                    group = {kind: wider if own in gone else own for kind, own in group.items()}
        if set(group.values()) == before:
            break
    return group


def _values(before: str, words: set[str]) -> set[str]:
    """Return those of the words found in one place that are values there."""
    lead = before.strip("'\"(:=[,").lower()
    if (
        before.endswith(("=", ":"))
        or lead in _NAMED
        or (lead in _PREPOSITIONS and len(words) >= AFTER_PREPOSITION)
        or (all(_QUOTED.fullmatch(word) for word in words) and len(words) >= AFTER_PREPOSITION)
        or len(words) >= VOCABULARY
    ):
        return words
    return {word for word in words if ANY in word}


def mined(lines: Iterable[LogLine]) -> list[LogTemplate]:
    """Return the templates of these lines, that of the newest line last."""
    ordered = [
        (line, masked(line.message)) for line in sorted(lines, key=lambda line: (line.at, line.log_id))
    ]
    groups = grouped(words for _, words in ordered)
    by_words: dict[tuple[str, ...], LogTemplate] = {}
    for line, words in ordered:
        known = by_words.pop(groups[words], None)
        by_words[groups[words]] = (
            LogTemplate(
                words=words,
                level=line.level,
                count=1,
                first_at=line.at,
                last_at=line.at,
                first_log_id=line.log_id,
                last_log_id=line.log_id,
                example=line.message,
            )
            if known is None
            else replace(
                known,
                words=tuple(a if a == b else ANY for a, b in zip(known.words, words, strict=True)),
                level=max(known.level, line.level),
                count=known.count + 1,
                last_at=line.at,
                last_log_id=line.log_id,
                example=line.message,
            )
        )
    return list(by_words.values())[-MOST:]
