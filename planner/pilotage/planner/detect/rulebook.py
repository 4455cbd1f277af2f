"""An index over the failure rules: which of them a text can fit, in their order, without trying them all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from pilotage.planner.detect.signs.reading import Reading
from pilotage.planner.detect.signs.rule import FailureRule, Phrase, stem
from pilotage.telemetry.facts import StateType


class Rulebook:
    """Rules in their order, findable by the signs of a text."""

    def __init__(self, rules: Iterable[FailureRule]) -> None:
        self.rules = tuple(rules)
        self._by_name: dict[str, list[int]] = defaultdict(list)
        self._by_code: dict[str, list[int]] = defaultdict(list)
        self._by_word: dict[str, list[tuple[int, str, Phrase]]] = defaultdict(list)
        self._always: list[int] = []
        self.by_id = {rule.id: rule for rule in self.rules}
        self.known_types = frozenset(name for rule in self.rules for name in rule.exceptions)
        """Every exception type that a row names."""
        for number, rule in enumerate(self.rules):
            for name in rule.exceptions:
                self._by_name[name].append(number)
            if rule.exceptions:
                continue
            for code in rule.codes:
                self._by_code[code].append(number)
            if rule.codes:
                continue
            for phrase in rule.phrases:
                self._by_word[stem(phrase.key)].append((number, phrase.segments[0], phrase))
            if not rule.phrases:
                self._always.append(number)

    def candidates(self, reading: Reading) -> tuple[int, ...]:
        """Return the numbers of the rules whose first sign a text shows, in their order."""
        numbers = set(self._always)
        for name in reading.names & self._by_name.keys():
            numbers.update(self._by_name[name])
        for code in reading.codes & self._by_code.keys():
            numbers.update(self._by_code[code])
        for word in set(map(stem, reading.tokens)) & self._by_word.keys():
            for number, first, phrase in self._by_word[word]:
                if first in reading.lowered and number not in numbers and phrase.found_in(reading.lowered):
                    numbers.add(number)
        return tuple(sorted(numbers))

    def first(
        self,
        reading: Reading,
        state_type: StateType,
        state_name: str,
        *,
        strengths: frozenset[str],
        candidates: tuple[int, ...] | None = None,
    ) -> FailureRule | None:
        """Return the first rule of the given strengths that a text fits; `candidates` are its own, where known."""
        for number in self.candidates(reading) if candidates is None else candidates:
            rule = self.rules[number]
            if rule.strength in strengths and _fits(rule, reading, state_type, state_name):
                return rule
        return None

    def all_that_fit(self, reading: Reading, state_type: StateType, state_name: str) -> Iterator[FailureRule]:
        """Yield every rule that a text fits, in their order."""
        for number in self.candidates(reading):
            if _fits(self.rules[number], reading, state_type, state_name):
                yield self.rules[number]


def _fits(rule: FailureRule, reading: Reading, state_type: StateType, state_name: str) -> bool:
    """Return whether every column that the rule fills is true of a text."""
    if state_type not in rule.state_types:
        return False
    if rule.state_names and state_name not in rule.state_names:
        return False
    if rule.exceptions and not _named(rule, reading):
        return False
    if rule.codes and not rule.codes & reading.codes:
        return False
    if rule.exclusive & reading.codes:
        return False
    text = reading.lowered
    # without another sign the index has already found one of the phrases
    indexed = not (rule.exceptions or rule.codes)
    if rule.phrases and not indexed and not any(p.found_in(text) for p in rule.phrases):
        return False
    if rule.also and not any(p.found_in(text) for p in rule.also):
        return False
    return not any(p.found_in(text) for p in rule.unless)


def _named(rule: FailureRule, reading: Reading) -> bool:
    """Exceptions of the language, and names that are plain words, count only where they are reported as types."""
    if rule.exceptions.intersection(reading.spoken):
        return True
    if rule.strength in ("builtin", "weak"):
        return False
    return any(sum(map(str.isupper, name)) > 1 for name in rule.exceptions & reading.names)
